"""WatcherGroup: what the synced watches of one range have yet to take, kept once however many they are.

Each watch remembers how far it has taken. One that has taken everything rests, and costs nothing
until something comes; watches that take the same piece share its encoded form.
"""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import Generic, Protocol, TypeVar

from connect_kv.kv.store import WatchedChange
from connect_kv.rpc.watch_pb2 import WatchCreateRequest

BATCH_BYTES = 256 << 10
"""A watch takes about so much at a time, but always whole revisions."""
_BATCHES = 16
"""Pieces whose encoded form is kept at once."""

_REVISION = attrgetter("revision")

Filters = frozenset[WatchCreateRequest.FilterType.ValueType]
GroupKey = tuple[bytes, bytes, Filters]
"""Key, range_end and filters: watches that agree in these see the same changes."""


def passes(filters: Filters, change: WatchedChange) -> bool:
    """Whether a watch with these filters sees the change."""
    if not filters:
        return True
    kind = WatchCreateRequest.NODELETE if change.record is None else WatchCreateRequest.NOPUT
    return kind not in filters


class SyncedWatcher(Protocol):
    """One watch, as its group knows it. Compared by identity."""

    taken: int
    """Changes of the group it has taken, or that came before it, counted from the group's first."""


W = TypeVar("W", bound=SyncedWatcher)


class EventBatch:
    """Some changes, in order, whole revisions."""

    __slots__ = ("_encoded", "_with_previous", "changes")

    def __init__(self, changes: list[WatchedChange]) -> None:
        self.changes = changes
        self._encoded: bytes | None = None
        self._with_previous: bytes | None = None

    @property
    def revision(self) -> int:
        """The revision of the last change."""
        return self.changes[-1].revision

    def encoded(self, *, prev_kv: bool) -> bytes:
        """As the events of a WatchResponse."""
        if prev_kv:
            if self._with_previous is None:
                self._with_previous = b"".join([change.encoded(prev_kv=True) for change in self.changes])
            return self._with_previous
        if self._encoded is None:
            self._encoded = b"".join([change.encoded(prev_kv=False) for change in self.changes])
        return self._encoded

    def pieces(self, most: int, *, prev_kv: bool) -> list[EventBatch]:
        """This batch in several: the events of each take less than so many bytes, or are one revision."""
        pieces: list[list[WatchedChange]] = [[]]
        size = 0
        for _, group in groupby(self.changes, _REVISION):
            revision = list(group)
            more = sum(len(change.encoded(prev_kv=prev_kv)) for change in revision)
            if pieces[-1] and size + more >= most:
                pieces.append([])
                size = 0
            pieces[-1] += revision
            size += more
        return [EventBatch(piece) for piece in pieces]


class PendingBytes:
    """What all groups hold together: so many changes, of so many bytes."""

    def __init__(self) -> None:
        self.bytes = 0
        self.changes = 0


class WatcherGroup(Generic[W]):
    """Watches join when they have seen everything published, and leave when they fall behind or end."""

    __slots__ = ("_batches", "_busy", "_changes", "_filters", "_first", "_held", "_resting", "size")

    def __init__(self, key: GroupKey, held: PendingBytes) -> None:
        self._filters = key[2]
        self._held = held
        self._changes: list[WatchedChange] = []
        self._first = 0
        """The number of the first change that is kept."""
        self._batches: dict[tuple[int, int], EventBatch] = {}
        self._resting: dict[W, None] = {}
        """Watches that have taken everything."""
        self._busy: dict[W, None] = {}
        """Watches that have changes to take."""
        self.size = 0
        """Bytes of the changes kept."""

    def __bool__(self) -> bool:
        """Whether it has a watch."""
        return bool(self._resting or self._busy)

    def join(self, watch: W) -> None:
        """It takes what comes from now on."""
        watch.taken = self._first + len(self._changes)
        self._resting[watch] = None

    def leave(self, watch: W) -> None:
        """It takes nothing any more."""
        if watch in self._resting:
            del self._resting[watch]
        else:
            del self._busy[watch]
        self._forget_if_taken()

    def wants(self, change: WatchedChange) -> bool:
        """Whether the filters let it pass."""
        return passes(self._filters, change)

    def add(self, change: WatchedChange) -> None:
        """One more; those of a revision are added together, and then `wake` is called."""
        self._changes.append(change)
        self.size += change.size
        self._held.bytes += change.size
        self._held.changes += 1

    def wake(self) -> list[W]:
        """Those that rested: they have something to take now."""
        woken = list(self._resting)
        self._busy |= self._resting
        self._resting.clear()
        return woken

    def waiting(self, watch: W) -> WatchedChange | None:
        """The first change it has not taken."""
        at = watch.taken - self._first
        return self._changes[at] if at < len(self._changes) else None

    def take(self, watch: W) -> tuple[EventBatch | None, bool]:
        """What it has not taken, or the first part of it; and whether that was all. Then it rests."""
        start, end = watch.taken, self._first + len(self._changes)
        if start == end:
            self._rest(watch)
            return None, True
        stop = end if self.size <= BATCH_BYTES else self._stop(start)
        watch.taken = stop
        batch = self._batches.get((start, stop))
        if batch is None:
            if len(self._batches) >= _BATCHES:
                self._batches.clear()
            batch = EventBatch(self._changes[start - self._first : stop - self._first])
            self._batches[start, stop] = batch
        if stop == end:
            self._rest(watch)
            self._forget_if_taken()
        return batch, stop == end

    def unsynced(self, most: int) -> list[W]:
        """Drop the oldest changes until at most so many bytes are left: who has not taken them yet?

        They must leave. What everybody has taken is dropped without a word.
        """
        rest, at = self.size, 0
        while rest > most and at < len(self._changes):
            rest -= self._changes[at].size
            at += 1
        limit = self._first + at
        behind = [watch for watch in self._busy if watch.taken < limit]
        if not behind:
            self._drop(limit - self._first)
        return behind

    def _stop(self, start: int) -> int:
        """Where a batch from there ends: at the end of a revision."""
        changes, first = self._changes, self._first
        size, at = 0, start - first
        while at < len(changes) and size < BATCH_BYTES:
            size += changes[at].size
            at += 1
        while at < len(changes) and changes[at].revision == changes[at - 1].revision:
            at += 1
        return first + at

    def _rest(self, watch: W) -> None:
        self._busy.pop(watch, None)
        self._resting[watch] = None

    def _forget_if_taken(self) -> None:
        if self._changes and not self._busy:
            self._drop(len(self._changes))
            self._batches.clear()

    def _drop(self, number: int) -> None:
        size = sum(change.size for change in self._changes[:number])
        del self._changes[:number]
        self._first += number
        self.size -= size
        self._held.bytes -= size
        self._held.changes -= number
