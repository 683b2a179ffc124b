"""Proposals waiting to be appended, joined into one log entry per write of the disk;
and callers waiting for an entry to be applied.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from connect_kv.errors import NoLeader, NotProposed, OutcomeUnknown, Overloaded, RequestTooLarge
from connect_kv.events import gradually
from connect_kv.node.config import NodeConfig
from connect_kv.protowire import varint
from connect_kv.raft.types import Entry, EntryId

R = TypeVar("R")


@dataclass(slots=True)
class PendingProposal(Generic[R]):
    """One proposal: a caller's of this node (`future`), or one that a follower passed on (`source`)."""

    payload: bytes
    count: int
    since: float
    """When it arrived, on this node's clock."""
    future: asyncio.Future[Sequence[R]] | None = None
    source: int = 0
    id: int = 0
    """The follower's name for it."""

    @property
    def abandoned(self) -> bool:
        """Whether its caller has given up."""
        return self.future is not None and self.future.done()

    def fail(self, error: Exception) -> None:
        """Tell the caller, if it is one of this node."""
        if self.future is not None and not self.future.done():
            self.future.set_exception(error)


class ProposalQueue(Generic[R]):
    """In order of arrival, bounded in bytes and commands."""

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._waiting: deque[PendingProposal[R]] = deque()
        self.size = 0
        """Bytes waiting."""
        self.commands = 0
        """Commands waiting."""

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full_batch(self) -> bool:
        """Whether enough waits to fill an entry."""
        return self.size >= self._config.max_batch_bytes or self.commands >= self._config.max_batch_commands

    def put(self, waiting: PendingProposal[R]) -> None:
        """Append it. Raises RequestTooLarge, Overloaded; nothing was proposed then."""
        size = len(waiting.payload)
        if size > self._config.max_request_bytes:
            raise RequestTooLarge(
                f"{size} bytes in one proposal; {self._config.max_request_bytes} are allowed"
            )
        if (
            self.size + size > self._config.max_waiting_bytes
            or self.commands + waiting.count > self._config.max_waiting_commands
        ):
            raise Overloaded(f"{self.commands} commands of {self.size} bytes are waiting already")
        self._waiting.append(waiting)
        self.size += size
        self.commands += waiting.count

    def take(self) -> list[PendingProposal[R]]:
        """The next batch: the first, and more while they fit into one entry. Empty if none waits."""
        batch: list[PendingProposal[R]] = []
        size = commands = 0
        while self._waiting:
            first = self._waiting[0]
            if not first.abandoned:
                size += len(first.payload)
                commands += first.count
                if batch and (
                    size > self._config.max_batch_bytes or commands > self._config.max_batch_commands
                ):
                    break
                batch.append(first)
            self._remove_first()
        return batch

    def put_back(self, batch: Iterable[PendingProposal[R]]) -> None:
        """They come first again, in their order; the bounds do not apply."""
        for waiting in reversed(list(batch)):
            self._waiting.appendleft(waiting)
            self.size += len(waiting.payload)
            self.commands += waiting.count

    def remove_forwarded(self) -> list[PendingProposal[R]]:
        """Take out what other members passed on: this node is not the leader any more."""
        return self._remove(lambda waiting: waiting.future is None)

    def expire(self, before: float) -> None:
        """No leader is known: callers who arrived at or before that time are told NoLeader."""
        gradually(
            self._remove(lambda waiting: waiting.since <= before),
            lambda waiting: waiting.fail(NoLeader("no leader is known; nothing was proposed")),
        )

    def fail(self, error: Callable[[], Exception]) -> None:
        """Tell all and forget them."""
        for waiting in self._remove(lambda waiting: True):
            waiting.fail(error())

    def _remove(self, which: Callable[[PendingProposal[R]], bool]) -> list[PendingProposal[R]]:
        everything, self._waiting = self._waiting, deque()
        self.size = self.commands = 0
        taken = [waiting for waiting in everything if which(waiting)]
        if taken:
            self.put_back(waiting for waiting in everything if not which(waiting))
        else:
            self.put_back(everything)
        return taken

    def _remove_first(self) -> None:
        first = self._waiting.popleft()
        self.size -= len(first.payload)
        self.commands -= first.count


def join(batch: Iterable[PendingProposal[R]], log_time: int, elapsed: int = 0) -> bytes:
    """One CommandBatch of them all, stamped with the leader's wall clock (nanoseconds since 1970) and
    with what leaders have measured (nanoseconds; 0: not said).

    Encoded batches merge by concatenation, so nothing is parsed (command.proto).
    """
    parts = [waiting.payload for waiting in batch]
    parts.append(_stamp(1, log_time))
    if elapsed:
        parts.append(_stamp(3, elapsed))
    return b"".join(parts)


def _stamp(field: int, value: int) -> bytes:
    """A field of a CommandBatch that is a varint, encoded."""
    return bytes((field << 3,)) + varint(value)


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
