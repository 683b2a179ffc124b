"""connect_kv.v1.Watch and etcdserverpb.Watch."""

from __future__ import annotations

import asyncio

from connect_kv.interfaces import Clock
from connect_kv.kv.watch import WatchHub
from connect_kv.kv.watch_stream import WatchStream
from connect_kv.rpc.watch_pb2 import WatchRequest
from connect_kv.services.caller import Channel
from connect_kv.services.executor import Replica

_BACKLOG = 4096
"""Answers that may wait on one stream before no more requests are read from it."""
_PAUSE_SECONDS = 0.02


class WatchService:
    """Carries requests to a stream of watches and its responses back; the hub has the rules."""

    def __init__(self, replica: Replica, hub: WatchHub, clock: Clock) -> None:
        self._replica = replica
        self._clock = clock
        self._hub = hub

    async def Watch(self, channel: Channel[WatchRequest]) -> None:
        """Serve one stream until the client cancels it.

        That it half-closes does not end it: a client that asks for one watch and only listens then
        is common. It never ends with OK, which an etcd client would take for the end of its watch.
        """
        stream = WatchStream(self._hub)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._requests(channel, stream))
                while True:
                    await channel.write(await stream.next_encoded(self._replica.encoded_header))
        finally:
            try:
                await stream.close_slowly()
            finally:
                stream.close()

    async def _requests(self, channel: Channel[WatchRequest], stream: WatchStream) -> None:
        while (request := await channel.read()) is not None:
            stream.handle(request)
            while stream.backlog > _BACKLOG:
                # Whoever sends requests and reads no answers waits: its stream's own window holds it back.
                await self._clock.sleep(_PAUSE_SECONDS)
