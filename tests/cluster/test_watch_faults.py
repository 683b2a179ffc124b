"""Watches that reconnect at random while leaders are killed miss nothing and see nothing twice."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import suppress
from pathlib import Path

import grpc

from connect_kv.client import txn
from connect_kv.rpc.watch_pb2 import WatchCreateRequest, WatchResponse
from connect_kv.testing.processes import ProcessCluster, until
from tests.cluster.conftest import rounds
from tests.cluster.streams import Connections

WATCHERS = int(os.environ.get("CONNECT_KV_WATCHERS", 100))
WRITES_PER_ROUND = int(os.environ.get("CONNECT_KV_WRITES", 150))
KEYS = ("w/0", "w/1", "w/2")
"""Written together, each time with the same number: an event is whole if all three are there."""


class Watcher:
    """Watches from the start, from one node after another."""

    def __init__(self, cluster: ProcessCluster, connections: Connections, seed: int) -> None:
        self._cluster = cluster
        self._connections = connections
        self._rng = random.Random(seed)
        self.numbers: list[int] = []
        self.revision = 0
        self.reconnects = 0
        self.wrong: str | None = None

    async def run(self) -> None:
        while self.wrong is None:
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await self._for_a_while()
            self.reconnects += 1
            await asyncio.sleep(self._rng.random() * 0.1)

    async def _for_a_while(self) -> None:
        create = WatchCreateRequest(key=b"w/", range_end=b"w0", start_revision=max(2, self.revision + 1))
        call = await self._connections.watch(self._rng.choice(self._cluster.nodes), create)
        try:
            for _ in range(self._rng.randint(1, 60)):
                response = await call.read()
                if response is grpc.aio.EOF:
                    return
                self._take(response)
        finally:
            call.cancel()

    def _take(self, response: WatchResponse) -> None:
        """Check and note the revisions of one response, each of which must be whole."""
        if response.canceled:
            self.wrong = f"cancelled: {response}"
        events = list(response.events)
        for at in range(0, len(events), len(KEYS)):
            together = events[at : at + len(KEYS)]
            revisions = {event.kv.mod_revision for event in together}
            values = {event.kv.value for event in together}
            keys = tuple(event.kv.key.decode() for event in together)
            (revision, *others) = sorted(revisions)
            if keys != KEYS or others or len(values) != 1 or revision <= self.revision:
                self.wrong = f"after revision {self.revision}: {together}"
            self.revision = revision
            self.numbers.append(int(values.pop()))


async def test_every_watcher_sees_every_revision_once_in_order_and_whole(tmp_path: Path) -> None:
    kills = rounds(2)
    async with (
        ProcessCluster(tmp_path) as cluster,
        cluster.client() as client,
        Connections(cluster.nodes) as connections,
    ):
        watchers = [Watcher(cluster, connections, seed) for seed in range(WATCHERS)]
        tasks = [asyncio.create_task(watcher.run()) for watcher in watchers]
        written = 0

        async def write(count: int) -> None:
            nonlocal written
            for _ in range(count):
                await client.transaction(success=[txn.put(key, str(written)) for key in KEYS], timeout=60)
                written += 1

        for _ in range(kills):
            await write(WRITES_PER_ROUND // 2)
            leader = await cluster.leader()
            await leader.kill()
            await write(WRITES_PER_ROUND // 2)
            await leader.start()
            await leader.ready()
        await write(WRITES_PER_ROUND // 2)

        async def all_told() -> bool:
            assert not [watcher.wrong for watcher in watchers if watcher.wrong]
            return all(len(watcher.numbers) >= written for watcher in watchers)

        await until(all_told, 60, "all watchers to see the last write")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for watcher in watchers:
            assert watcher.wrong is None
            assert watcher.numbers == list(range(written))
        reconnects = sum(watcher.reconnects for watcher in watchers)
        print(f"{WATCHERS} watchers, {written} revisions, {kills} leaders killed, {reconnects} reconnects")
