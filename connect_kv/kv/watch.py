"""WatchHub: who hears of which change.

A watch is either synced or unsynced (etcd's words). A synced one is in the hub's index and is offered
each change as it is published; an unsynced one is in no index, costs nothing, and reads the history at
the pace of its consumer (`catch_up`), until it has reached exactly the published revision: then it is
synced.
A synced watch whose consumer is too slow falls behind; what it had waiting is read again later. So
neither memory nor the writes depend on how fast anybody reads. Watches that see the same share a
`watcher_group.WatcherGroup`: a change costs the more, the more different ranges hold it, not the more
watches.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from connect_kv.interfaces import Clock
from connect_kv.kv.intervals import IntervalIndex
from connect_kv.kv.layout import FROM_KEY
from connect_kv.kv.read_transactions import ReadTransactions
from connect_kv.kv.revision import Revision
from connect_kv.kv.store import UNREAD, ChangeFields, WatchedChange
from connect_kv.kv.watcher_group import GroupKey, PendingBytes, WatcherGroup
from connect_kv.rpc.watch_pb2 import WatchCreateRequest, WatchResponse

GROUP_PENDING_BYTES = 4 << 20
"""What a group may keep for watches that have not taken it; beyond that they are unsynced."""
PENDING_BYTES = 64 << 20
"""What all groups together may keep for watches that have not taken it."""
PROGRESS_INTERVAL = 600.0
"""Seconds between progress notifications."""
SLICE_WATCHES = 256
"""What is done for every watch, or for all of a stream, pauses after so many: there may be ten thousands."""
FRAGMENT_BYTES = 2 << 20
"""Larger responses are split for watches that asked for it."""


class Outlet(Protocol):
    """Where the changes for a watch leave the machine (`watch_stream.WatchStream`)."""

    def __len__(self) -> int:
        """How many watches it has."""

    def enqueue(self, watch: Watcher) -> None:
        """It has something to send."""

    def notify_progress(self, watch: Watcher) -> None:
        """Tell its client where it stands."""

    def wake(self) -> None:
        """Let the consumer look again."""


_START = Revision(0)


class Watcher:
    """One watch of one stream."""

    __slots__ = (
        "closed",
        "fields",
        "fragment",
        "group",
        "group_key",
        "id",
        "owner",
        "position",
        "prev_kv",
        "progress_notify",
        "queued",
        "quiet",
        "start",
        "stream",
        "taken",
        "unsent",
        "unsynced",
    )

    def __init__(
        self, stream: Outlet, id: int, key: bytes, request: WatchCreateRequest, owner: str = ""
    ) -> None:
        self.stream = stream
        self.id = id
        self.owner = owner
        """The user who asked for it; empty while nobody was asked who they are."""
        self.fields = WatchResponse(watch_id=id).SerializeToString()
        """What each of its responses begins with."""
        self.group_key: GroupKey = (key, request.range_end, frozenset(request.filters))
        self.group: WatcherGroup[Watcher] | None = None
        """While live: where it takes its changes."""
        self.taken = 0
        """Live: how far it has taken them."""
        self.prev_kv = request.prev_kv
        self.progress_notify = request.progress_notify
        self.fragment = request.fragment
        self.start = request.start_revision
        """As asked for; 0: from the next revision on."""
        self.position = _START
        """The first change not yet seen; kept up only while behind."""
        self.unsynced = False
        self.closed = False
        self.unsent: list[WatchedChange] = []
        """Behind: changes read from the history and not sent, the last revision perhaps in part."""
        self.queued = False
        """Whether the stream will come to it by itself."""
        self.quiet = True
        """No event was sent since the last tick of the progress timer."""

    def caught_up(self, revision: int) -> bool:
        """Whether it has seen, or has waiting, everything up to the published `revision`."""
        return not self.unsynced and self.start <= revision


class WatchHub:
    """All watches of this member. Used on the loop only."""

    def __init__(self, transactions: ReadTransactions, *, fragment_bytes: int = FRAGMENT_BYTES) -> None:
        self.transactions = transactions
        self.fragment_bytes = fragment_bytes
        self.revision = 1
        """The revision that was published last."""
        self.closed = False
        self.sent = 0
        """Events that left for clients."""
        self.owned: Counter[str] = Counter()
        """How many watches each user has."""
        self.prev_kv_watches = 0
        """Watches that want to know what was before."""
        self._streams: dict[Outlet, None] = {}
        self._live: dict[Watcher, None] = {}
        self._groups: dict[GroupKey, WatcherGroup[Watcher]] = {}
        self._keys: dict[bytes, list[WatcherGroup[Watcher]]] = {}
        """The groups of single keys."""
        self._ranges: IntervalIndex[WatcherGroup[Watcher]] = IntervalIndex()
        self._held = PendingBytes()

    def add(self, stream: Outlet) -> None:
        """There is a new stream of watches."""
        self._streams[stream] = None

    @property
    def watches(self) -> int:
        """How many watches there are."""
        return sum(len(stream) for stream in self._streams)

    @property
    def streams(self) -> int:
        """How many streams of watches there are."""
        return len(self._streams)

    @property
    def unsynced(self) -> int:
        """How many watches still read the history."""
        return self.watches - len(self._live)

    @property
    def pending_changes(self) -> int:
        """Changes that wait for slow consumers; once for all who wait for the same."""
        return self._held.changes

    @property
    def pending_bytes(self) -> int:
        """Of the changes that wait for slow consumers."""
        return self._held.bytes

    def load(self, revision: int) -> None:
        """The database was exchanged: every watch goes on from its history."""
        for watch in list(self._live):
            self._desync(watch, self.revision + 1)
        self.revision = revision

    def publish(self, revision: int, changes: Sequence[ChangeFields]) -> None:
        """The store stands at `revision`, by these changes. Only groups that match cost anything."""
        self.revision = revision
        if not self._live:
            return
        if self.prev_kv_watches:
            self._leave_unread(changes)
        keys, ranges = self._keys, self._ranges
        fed: dict[WatcherGroup[Watcher], None] = {}
        for fields in changes:
            key = fields[0]
            groups: Sequence[WatcherGroup[Watcher]] = keys.get(key, ())
            if ranges:
                groups = [*groups, *ranges.stab(key)]
            if groups:
                change = WatchedChange(*fields)
                for group in groups:
                    if group.wants(change):
                        group.add(change)
                        fed[group] = None
        for group in fed:
            for watch in group.wake():
                watch.stream.enqueue(watch)
            self._limit(group, GROUP_PENDING_BYTES)
        if self._held.bytes > PENDING_BYTES:
            for group in list(self._groups.values()):
                self._limit(group, 0)

    async def notify_progress(self) -> None:
        """Tell the watches that asked for it, and had no event since the last time, where they stand."""
        for number, watch in enumerate(list(self._live), 1):
            if watch.progress_notify and watch.group is not None:
                if watch.quiet and watch.caught_up(self.revision):
                    watch.stream.notify_progress(watch)
                watch.quiet = True
            if not number % SLICE_WATCHES:
                await asyncio.sleep(0)

    async def run_progress(self, clock: Clock, interval: float = PROGRESS_INTERVAL) -> None:
        """Do so every `interval` seconds, until cancelled."""
        while True:
            await clock.sleep(interval)
            await self.notify_progress()

    def own(self, watch: Watcher, more: int) -> None:
        """Its user has so many such watches more, or fewer."""
        owner = watch.owner
        self.prev_kv_watches += more * watch.prev_kv
        self.owned[owner] += more
        if not self.owned[owner]:
            del self.owned[owner]

    def join(self, watch: Watcher) -> None:
        """It has seen everything up to the published revision: offer it what comes."""
        watch.unsynced = False
        self._live[watch] = None
        group = self._groups.get(watch.group_key)
        if group is None:
            group = self._groups[watch.group_key] = WatcherGroup(watch.group_key, self._held)
            key, range_end, _ = watch.group_key
            if range_end:
                self._ranges.add(key, _stop(range_end), group)
            else:
                self._keys.setdefault(key, []).append(group)
        watch.group = group
        group.join(watch)

    def leave(self, watch: Watcher) -> None:
        """Offer it nothing any more. Harmless for one that is not live."""
        group = watch.group
        if group is None:
            return
        del self._live[watch]
        watch.group = None
        group.leave(watch)
        if not group:
            del self._groups[watch.group_key]
            key, range_end, _ = watch.group_key
            if range_end:
                self._ranges.remove(key, _stop(range_end), group)
            else:
                self._keys[key].remove(group)
                if not self._keys[key]:
                    del self._keys[key]

    def forget(self, stream: Outlet) -> None:
        """A stream was closed."""
        self._streams.pop(stream, None)

    def close(self) -> None:
        """End all streams with NodeStopped."""
        self.closed = True
        for stream in list(self._streams):
            stream.wake()

    def _leave_unread(self, changes: Sequence[ChangeFields]) -> None:
        """Where nobody wanted to know what was before while these were applied, those who want to know by now
        read them from the history.
        """
        if any(fields[3] == UNREAD for fields in changes):
            for watch in [one for one in self._live if one.prev_kv]:
                self._desync(watch, changes[0][1])

    def _limit(self, group: WatcherGroup[Watcher], most: int) -> None:
        """Let those fall behind for whom it would have to keep more than so many bytes."""
        while group.size > most and (unsynced := group.unsynced(most)):
            for watch in unsynced:
                self._desync(watch, self.revision)

    def _desync(self, watch: Watcher, missed: int) -> None:
        """Forget what it has waiting; the history has it all, from the first of it on."""
        waiting = None if watch.group is None else watch.group.waiting(watch)
        self.leave(watch)
        first = missed if waiting is None else waiting.revision
        watch.position = Revision(max(first, watch.start))
        watch.unsynced = True
        if not watch.queued:
            watch.stream.enqueue(watch)


def _stop(range_end: bytes) -> bytes | None:
    return None if range_end == FROM_KEY else range_end
