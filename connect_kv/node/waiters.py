"""Callers waiting for an entry to be applied, or for an index to be reached."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from connect_kv.errors import NotProposed, OutcomeUnknown
from connect_kv.raft.types import Entry, EntryId

R = TypeVar("R")


@dataclass(slots=True)
class _Waiter(Generic[R]):
    entry: EntryId
    offset: int
    count: int
    future: asyncio.Future[Sequence[R]]


class EntryWaiters(Generic[R]):
    """Who waits for which entry. A waiter is released only by its own EntryId.

    Another term at its index, or any entry of a later term applied before it, proves that its entry
    was replaced: logs that agree on the later one cannot hold the earlier (§5.3, log matching).
    """

    def __init__(self) -> None:
        self._by_index: dict[int, list[_Waiter[R]]] = {}
        self._term = 0

    def __len__(self) -> int:
        return sum(len(waiters) for waiters in self._by_index.values())

    def add(self, entry: EntryId, offset: int, count: int, future: asyncio.Future[Sequence[R]]) -> None:
        """Resolve `future` with ``results[offset:offset + count]`` of exactly that entry."""
        waiter = _Waiter(entry, offset, count, future)
        if entry.term < self._term:
            _fail(waiter, NotProposed(_REPLACED))
        else:
            self._by_index.setdefault(entry.index, []).append(waiter)

    def applied(self, entries: Sequence[Entry], results: Sequence[Sequence[R]]) -> None:
        """Release those of `entries`, which have just been applied with these results."""
        if self._by_index:
            for entry, values in zip(entries, results, strict=True):
                for waiter in self._by_index.pop(entry.id.index, ()):
                    _release(waiter, entry.id, values)
        if entries and entries[-1].term > self._term:
            self._term = entries[-1].term
            self._drop(lambda waiter: waiter.entry.term < self._term, lambda: NotProposed(_REPLACED))

    def jumped(self, index: int) -> None:
        """A snapshot replaced the state up to `index`: nobody knows what became of those below."""
        self._drop(lambda waiter: waiter.entry.index <= index, lambda: OutcomeUnknown(_JUMPED))

    def fail(self, error: Callable[[], Exception]) -> None:
        """Tell all, each with an error of its own."""
        self._drop(lambda waiter: True, error)

    def _drop(self, which: Callable[[_Waiter[R]], bool], error: Callable[[], Exception]) -> None:
        for index, waiters in list(self._by_index.items()):
            kept = []
            for waiter in waiters:
                if which(waiter):
                    _fail(waiter, error())
                else:
                    kept.append(waiter)
            if kept:
                self._by_index[index] = kept
            else:
                del self._by_index[index]


class IndexWaiters:
    """Who waits until this node has applied an index."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, list[asyncio.Future[int]]]] = []
        self._count = 0

    def add(self, index: int, futures: list[asyncio.Future[int]]) -> None:
        """Resolve each of `futures` with `index` once that is applied."""
        self._count += 1
        heapq.heappush(self._heap, (index, self._count, futures))

    def applied(self, index: int) -> None:
        """Release those who wait for `index` or less."""
        while self._heap and self._heap[0][0] <= index:
            needed, _, futures = heapq.heappop(self._heap)
            for future in futures:
                if not future.done():
                    future.set_result(needed)

    def fail(self, error: Callable[[], Exception]) -> None:
        """Tell all, each with an error of its own."""
        heap, self._heap = self._heap, []
        for _, _, futures in heap:
            for future in futures:
                if not future.done():
                    future.set_exception(error())


_REPLACED = "a new leader replaced the entry before it was committed"
_JUMPED = "a snapshot replaced the log before this node could see the outcome"


def _release(waiter: _Waiter[R], entry: EntryId, results: Sequence[R]) -> None:
    if waiter.entry != entry:
        _fail(waiter, NotProposed(_REPLACED))
    elif not waiter.future.done():
        waiter.future.set_result(results[waiter.offset : waiter.offset + waiter.count])


def _fail(waiter: _Waiter[R], error: Exception) -> None:
    if not waiter.future.done():
        waiter.future.set_exception(error)
