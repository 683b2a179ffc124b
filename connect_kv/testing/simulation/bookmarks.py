"""A watch as it is on the wire: each response by itself, with what it promises.

The client of this package hides where one response ends and the next begins. This watcher looks: a
revision is never split over two responses, responses go forward only, and a progress notice says
truly that everything up to its revision has been sent: the watch goes on from there elsewhere.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from connect_kv.client.failures import CallFailed
from connect_kv.client.stubs import StreamCall, Stubs
from connect_kv.rpc.watch_pb2 import WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse
from connect_kv.testing.simulation.invariants import Violation
from connect_kv.testing.simulation.watching import Segment, WatchRecorder, seen

PATIENCE_SECONDS = 2.0
"""Silence after which the stream is given up, and another member asked."""
ASK_SECONDS = 0.5
"""How often it asks where it stands, on average."""


class OutOfOrder(Violation):
    """A response contradicts an earlier one."""


@dataclass
class BookmarkWatcher(WatchRecorder):
    """A watch of all keys, with bookmarks, on one member after the other."""

    bookmarks: int = 0
    """Progress notices it got."""

    async def run(self) -> None:
        """Watch, for ever."""
        rng = self.world.chance(f"watch {self.name}")
        channel = self.world.clients.channel(self.name)
        self.segments.append(Segment(1))
        while True:
            host = rng.choice([host for host in self.world.hosts if not host.removed])
            with suppress(CallFailed, TimeoutError):
                stream = await Stubs(channel(host.client_address)).watch(metadata=(("hasleader", "true"),))
                try:
                    await self._stream(stream)
                finally:
                    stream.cancel()
            await asyncio.sleep(rng.uniform(0, 0.2))

    async def _stream(self, stream: StreamCall[WatchRequest, WatchResponse]) -> None:
        create = WatchCreateRequest(
            key=b"\0", range_end=b"\0", start_revision=self._start(), prev_kv=self.prev_kv
        )
        await stream.write(WatchRequest(create_request=create))
        asking = asyncio.create_task(self._ask(stream))
        try:
            while True:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    response = await stream.read()
                if response.canceled:
                    if response.compact_revision:
                        self.segments.append(Segment(max(response.compact_revision + 1, self._start())))
                    return
                if not response.created:
                    self.take(response)
        finally:
            asking.cancel()

    async def _ask(self, stream: StreamCall[WatchRequest, WatchResponse]) -> None:
        rng = self.world.chance(f"progress {self.name}")
        with suppress(CallFailed):
            while True:
                # The first time at once, while the past is still being read.
                await stream.write(WatchRequest(progress_request=WatchProgressRequest()))
                await asyncio.sleep(rng.expovariate(1 / ASK_SECONDS))

    def take(self, response: WatchResponse) -> None:
        """Judge one response. Raises OutOfOrder."""
        segment, header = self.segments[-1], response.header.revision
        revisions = [event.kv.mod_revision for event in response.events]
        where = f"watch {self.name}: a response at {header} with {revisions} after {segment.complete_to}"
        if revisions != sorted(revisions) or (revisions and revisions[-1] > header):
            raise OutOfOrder(f"{where}: out of order, or beyond its header")
        if revisions and revisions[0] <= segment.complete_to:
            raise OutOfOrder(f"{where}: split, repeated, or missing from an earlier promise")
        segment.events += [seen(event, self.prev_kv) for event in response.events]
        if not revisions:
            self.bookmarks += 1
        segment.complete_to = max(segment.complete_to, revisions[-1] if revisions else header)

    def _start(self) -> int:
        segment = self.segments[-1]
        return max(segment.start, segment.complete_to + 1)
