"""WatchHub: who hears of which change.

A watch is either live or behind. A live one is in the hub's index and is offered each change as it
is published; one that is behind is in no index, costs nothing, and reads the history at the pace
of its consumer (`catch_up`), until it has reached exactly the published revision: then it is live.
A live watch whose consumer is too slow falls behind; what it had waiting is read again later. So
neither memory nor the writes depend on how fast anybody reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from connect_kv.interfaces import Clock
from connect_kv.kv.intervals import IntervalIndex
from connect_kv.kv.layout import FROM_KEY
from connect_kv.kv.readings import Readings
from connect_kv.kv.revision import Revision
from connect_kv.kv.store import Change, ChangeFields
from connect_kv.rpc.watch_pb2 import WatchCreateRequest

WATCH_PENDING_BYTES = 256 << 10
"""What may wait for the consumer of one live watch; beyond that it falls behind."""
WATCH_PENDING_CHANGES = 4096
STREAM_PENDING_BYTES = 8 << 20
"""What may wait on one stream, all its watches together."""
PROGRESS_INTERVAL = 600.0
"""Seconds between progress notifications."""
FRAGMENT_BYTES = 2 << 20
"""Larger responses are split for watches that asked for it."""


class Outlet(Protocol):
    """Where the changes for a watch leave the machine (`watch_stream.WatchStream`)."""

    pending_bytes: int
    """Of the changes that wait on it, all its watches together."""

    def __len__(self) -> int:
        """How many watches it has."""

    def enqueue(self, watch: Watch) -> None:
        """It has something to send."""

    def drop_pending(self, watch: Watch) -> None:
        """Forget the changes that wait for its turn."""

    def notify_progress(self, watch: Watch) -> None:
        """Tell its client where it stands."""

    def wake(self) -> None:
        """Let the consumer look again."""


class Watch:
    """One watch of one stream."""

    __slots__ = (
        "behind",
        "closed",
        "filters",
        "fragment",
        "id",
        "key",
        "pending",
        "pending_bytes",
        "position",
        "prev_kv",
        "progress_notify",
        "queued",
        "quiet",
        "range_end",
        "start",
        "stream",
        "unsent",
    )

    def __init__(self, stream: Outlet, id: int, key: bytes, request: WatchCreateRequest) -> None:
        self.stream = stream
        self.id = id
        self.key = key
        self.range_end = request.range_end
        self.prev_kv = request.prev_kv
        self.progress_notify = request.progress_notify
        self.fragment = request.fragment
        self.filters = frozenset(request.filters)
        self.start = request.start_revision
        """As asked for; 0: from the next revision on."""
        self.position = Revision(0)
        """The first change not yet seen; kept up only while behind."""
        self.behind = False
        self.closed = False
        self.pending: list[Change] = []
        """Live: changes that wait for the consumer."""
        self.pending_bytes = 0
        self.unsent: list[Change] = []
        """Behind: changes read from the history and not sent, the last revision perhaps in part."""
        self.queued = False
        """Whether the stream will come to it by itself."""
        self.quiet = True
        """No event was sent since the last tick of the progress timer."""

    def wants(self, change: Change) -> bool:
        """Whether its filters let the change pass."""
        if not self.filters:
            return True
        kind = WatchCreateRequest.NODELETE if change.record is None else WatchCreateRequest.NOPUT
        return kind not in self.filters

    def caught_up(self, revision: int) -> bool:
        """Whether it has seen, or has waiting, everything up to the published `revision`."""
        return not self.behind and self.start <= revision


class WatchHub:
    """All watches of this member. Used on the loop only."""

    def __init__(self, readings: Readings, *, fragment_bytes: int = FRAGMENT_BYTES) -> None:
        self.readings = readings
        self.fragment_bytes = fragment_bytes
        self.revision = 1
        """The last published one."""
        self.closed = False
        self._streams: set[Outlet] = set()
        self._live: dict[Watch, None] = {}
        self._keys: dict[bytes, dict[Watch, None]] = {}
        self._ranges: IntervalIndex[Watch] = IntervalIndex()

    def add(self, stream: Outlet) -> None:
        """There is a new stream of watches."""
        self._streams.add(stream)

    @property
    def watches(self) -> int:
        """How many watches there are."""
        return sum(len(stream) for stream in self._streams)

    def load(self, revision: int) -> None:
        """The database was exchanged: every watch goes on from its history."""
        for watch in list(self._live):
            self._fall_behind(watch, self.revision + 1)
        self.revision = revision

    def publish(self, revision: int, changes: Iterable[ChangeFields]) -> None:
        """The store stands at `revision`, by these changes. Only watches that match cost anything."""
        self.revision = revision
        if not self._live:
            return
        keys, ranges = self._keys, self._ranges
        fallen: list[tuple[Watch, int]] = []
        for fields in changes:
            key = fields[0]
            watching: list[Watch] = list(keys.get(key, ()))
            if ranges:
                watching += ranges.stab(key)
            if watching:
                change = Change(*fields)
                for watch in watching:
                    self._offer(watch, change, fallen)
        for watch, missed in fallen:
            self._fall_behind(watch, missed)

    def notify_progress(self) -> None:
        """Tell the watches that asked for it, and had no event since the last time, where they stand."""
        for watch in self._live:
            if watch.progress_notify:
                if watch.quiet and not watch.pending and watch.caught_up(self.revision):
                    watch.stream.notify_progress(watch)
                watch.quiet = True

    async def run_progress(self, clock: Clock, interval: float = PROGRESS_INTERVAL) -> None:
        """Do so every `interval` seconds, until cancelled."""
        while True:
            await clock.sleep(interval)
            self.notify_progress()

    def join(self, watch: Watch) -> None:
        """It has seen everything up to the published revision: offer it what comes."""
        watch.behind = False
        self._live[watch] = None
        if watch.range_end:
            self._ranges.add(watch.key, _stop(watch), watch)
        else:
            self._keys.setdefault(watch.key, {})[watch] = None

    def leave(self, watch: Watch) -> None:
        """Offer it nothing any more. Harmless for one that is not live."""
        if watch not in self._live:
            return
        del self._live[watch]
        if watch.range_end:
            self._ranges.remove(watch.key, _stop(watch), watch)
        else:
            watching = self._keys[watch.key]
            del watching[watch]
            if not watching:
                del self._keys[watch.key]

    def forget(self, stream: Outlet) -> None:
        """A stream was closed."""
        self._streams.discard(stream)

    def close(self) -> None:
        """End all streams with NodeStopped."""
        self.closed = True
        for stream in list(self._streams):
            stream.wake()

    def _offer(self, watch: Watch, change: Change, fallen: list[tuple[Watch, int]]) -> None:
        if watch.behind or change.revision < watch.start or not watch.wants(change):
            return
        size = change.size
        stream = watch.stream
        if watch.pending and (
            watch.pending_bytes + size > WATCH_PENDING_BYTES
            or len(watch.pending) >= WATCH_PENDING_CHANGES
            or stream.pending_bytes + size > STREAM_PENDING_BYTES
        ):
            watch.behind = True  # taken out of the index after this round, which iterates over it
            fallen.append((watch, change.revision))
            return
        watch.pending.append(change)
        watch.pending_bytes += size
        stream.pending_bytes += size
        if not watch.queued:
            stream.enqueue(watch)

    def _fall_behind(self, watch: Watch, missed: int) -> None:
        """Forget what it has waiting; the history has it all, from the first of it on."""
        self.leave(watch)
        first = watch.pending[0].revision if watch.pending else missed
        watch.stream.drop_pending(watch)
        watch.position = Revision(max(first, watch.start))
        watch.behind = True
        if not watch.queued:
            watch.stream.enqueue(watch)


def _stop(watch: Watch) -> bytes | None:
    return None if watch.range_end == FROM_KEY else watch.range_end
