"""WatchHub: who hears of which change.

A watch is either live or behind. A live one is in the hub's index and is offered each change as it
is published; one that is behind is in no index, costs nothing, and reads the history at the pace
of its consumer (`catch_up`), until it has reached exactly the published revision: then it is live.
A live watch whose consumer is too slow falls behind; what it had waiting is read again later. So
neither memory nor the writes depend on how fast anybody reads. Watches that see the same share a
`feed.Feed`: a change costs the more, the more different ranges hold it, not the more watches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Protocol

from connect_kv.interfaces import Clock
from connect_kv.kv.feed import Feed, FeedKey, Held
from connect_kv.kv.intervals import IntervalIndex
from connect_kv.kv.layout import FROM_KEY
from connect_kv.kv.readings import Readings
from connect_kv.kv.revision import Revision
from connect_kv.kv.store import Change, ChangeFields
from connect_kv.rpc.watch_pb2 import WatchCreateRequest, WatchResponse

FEED_PENDING_BYTES = 4 << 20
"""What a feed may keep for watches that have not taken it; beyond that they fall behind."""
PENDING_BYTES = 64 << 20
"""The same for all feeds together."""
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

    def enqueue(self, watch: Watch) -> None:
        """It has something to send."""

    def notify_progress(self, watch: Watch) -> None:
        """Tell its client where it stands."""

    def wake(self) -> None:
        """Let the consumer look again."""


_START = Revision(0)


class Watch:
    """One watch of one stream."""

    __slots__ = (
        "behind",
        "closed",
        "feed",
        "feed_key",
        "fields",
        "fragment",
        "id",
        "position",
        "prev_kv",
        "progress_notify",
        "queued",
        "quiet",
        "start",
        "stream",
        "taken",
        "unsent",
    )

    def __init__(self, stream: Outlet, id: int, key: bytes, request: WatchCreateRequest) -> None:
        self.stream = stream
        self.id = id
        self.fields = WatchResponse(watch_id=id).SerializeToString()
        """What each of its responses begins with."""
        self.feed_key: FeedKey = (key, request.range_end, frozenset(request.filters))
        self.feed: Feed[Watch] | None = None
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
        self.behind = False
        self.closed = False
        self.unsent: list[Change] = []
        """Behind: changes read from the history and not sent, the last revision perhaps in part."""
        self.queued = False
        """Whether the stream will come to it by itself."""
        self.quiet = True
        """No event was sent since the last tick of the progress timer."""

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
        self.sent = 0
        """Events that left for clients."""
        self._streams: dict[Outlet, None] = {}
        self._live: dict[Watch, None] = {}
        self._feeds: dict[FeedKey, Feed[Watch]] = {}
        self._keys: dict[bytes, list[Feed[Watch]]] = {}
        """The feeds of single keys."""
        self._ranges: IntervalIndex[Feed[Watch]] = IntervalIndex()
        self._held = Held()

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
    def behind(self) -> int:
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
            self._fall_behind(watch, self.revision + 1)
        self.revision = revision

    def publish(self, revision: int, changes: Iterable[ChangeFields]) -> None:
        """The store stands at `revision`, by these changes. Only feeds that match cost anything."""
        self.revision = revision
        if not self._live:
            return
        keys, ranges = self._keys, self._ranges
        fed: dict[Feed[Watch], None] = {}
        for fields in changes:
            key = fields[0]
            feeds: Sequence[Feed[Watch]] = keys.get(key, ())
            if ranges:
                feeds = [*feeds, *ranges.stab(key)]
            if feeds:
                change = Change(*fields)
                for feed in feeds:
                    if feed.wants(change):
                        feed.add(change)
                        fed[feed] = None
        for feed in fed:
            for watch in feed.wake():
                watch.stream.enqueue(watch)
            self._limit(feed, FEED_PENDING_BYTES)
        if self._held.bytes > PENDING_BYTES:
            for feed in list(self._feeds.values()):
                self._limit(feed, 0)

    async def notify_progress(self) -> None:
        """Tell the watches that asked for it, and had no event since the last time, where they stand."""
        for number, watch in enumerate(list(self._live), 1):
            if watch.progress_notify and watch.feed is not None:
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

    def join(self, watch: Watch) -> None:
        """It has seen everything up to the published revision: offer it what comes."""
        watch.behind = False
        self._live[watch] = None
        feed = self._feeds.get(watch.feed_key)
        if feed is None:
            feed = self._feeds[watch.feed_key] = Feed(watch.feed_key, self._held)
            key, range_end, _ = watch.feed_key
            if range_end:
                self._ranges.add(key, _stop(range_end), feed)
            else:
                self._keys.setdefault(key, []).append(feed)
        watch.feed = feed
        feed.join(watch)

    def leave(self, watch: Watch) -> None:
        """Offer it nothing any more. Harmless for one that is not live."""
        feed = watch.feed
        if feed is None:
            return
        del self._live[watch]
        watch.feed = None
        feed.leave(watch)
        if not feed:
            del self._feeds[watch.feed_key]
            key, range_end, _ = watch.feed_key
            if range_end:
                self._ranges.remove(key, _stop(range_end), feed)
            else:
                self._keys[key].remove(feed)
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

    def _limit(self, feed: Feed[Watch], most: int) -> None:
        """Let those fall behind for whom it would have to keep more than so many bytes."""
        while feed.size > most and (laggards := feed.laggards(most)):
            for watch in laggards:
                self._fall_behind(watch, self.revision)

    def _fall_behind(self, watch: Watch, missed: int) -> None:
        """Forget what it has waiting; the history has it all, from the first of it on."""
        waiting = None if watch.feed is None else watch.feed.waiting(watch)
        self.leave(watch)
        first = missed if waiting is None else waiting.revision
        watch.position = Revision(max(first, watch.start))
        watch.behind = True
        if not watch.queued:
            watch.stream.enqueue(watch)


def _stop(range_end: bytes) -> bytes | None:
    return None if range_end == FROM_KEY else range_end
