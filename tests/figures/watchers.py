"""A process of its own with many watches: ``watchers.py HOST:PORT WATCHES KEY [PER_STREAM]``.

All of one key, or each of its own where KEY has a ``%d``. Prints READY once all are created; then
waits for a line "REVISION", and prints DONE once all have seen it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import grpc

from connect_kv.rpc.watch_pb2 import WatchCreateRequest, WatchRequest, WatchResponse

WATCHES_PER_STREAM = 50


class Stream:
    """Some watches of one stream."""

    def __init__(self, connection: grpc.aio.Channel) -> None:
        self.call: Any = connection.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=WatchRequest.SerializeToString,
            response_deserializer=WatchResponse.FromString,
        )()
        self.seen: dict[int, int] = {}
        """The last revision, by watch."""
        self._arrived = asyncio.Event()
        self.events = 0

    async def create(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            await self.call.write(WatchRequest(create_request=WatchCreateRequest(key=key)))
        while len(self.seen) < len(keys):
            self._take(await self.call.read())

    async def follow(self) -> None:
        while True:
            self._take(await self.call.read())

    async def reached(self, revision: int) -> None:
        """Wait until each watch has seen it."""
        while min(self.seen.values()) < revision:
            self._arrived.clear()
            await self._arrived.wait()

    def _take(self, response: WatchResponse) -> None:
        self.seen.setdefault(response.watch_id, 0)
        if response.events:
            self.events += len(response.events)
            self.seen[response.watch_id] = response.events[-1].kv.mod_revision
            self._arrived.set()


async def main(address: str, watches: str, key: str, per_stream: str = str(WATCHES_PER_STREAM)) -> None:
    connection = grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])
    keys = [(key % number if "%" in key else key).encode() for number in range(int(watches))]
    size = int(per_stream)
    streams = []
    for first in range(0, len(keys), size):
        streams.append(Stream(connection))
        await streams[-1].create(keys[first : first + size])
    followers = [asyncio.create_task(stream.follow()) for stream in streams]
    print("READY", flush=True)
    last = int(await asyncio.to_thread(sys.stdin.readline))
    await asyncio.gather(*(stream.reached(last) for stream in streams))
    print(f"DONE {sum(stream.events for stream in streams)}", flush=True)
    for follower in followers:
        follower.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
