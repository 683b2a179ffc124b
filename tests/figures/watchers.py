"""A process of its own that watches one key many times: ``watchers.py HOST:PORT WATCHES KEY``.

Prints READY once all are created; then, for each line "REVISION" read, DONE once all have seen it.
"""

from __future__ import annotations

import asyncio
import sys
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

    async def create(self, key: bytes, watches: int) -> None:
        for _ in range(watches):
            await self.call.write(WatchRequest(create_request=WatchCreateRequest(key=key)))
        while len(self.seen) < watches:
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


async def main(address: str, watches: str, key: str) -> None:
    connection = grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])
    streams = [Stream(connection) for _ in range(int(watches) // WATCHES_PER_STREAM)]
    for stream in streams:
        await stream.create(key.encode(), WATCHES_PER_STREAM)
    followers = [asyncio.create_task(stream.follow()) for stream in streams]
    print("READY", flush=True)
    last = int(await asyncio.to_thread(sys.stdin.readline))
    await asyncio.gather(*(stream.reached(last) for stream in streams))
    print(f"DONE {sum(stream.events for stream in streams)}", flush=True)
    for follower in followers:
        follower.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
