"""Concurrent callers that note what was acknowledged, and a check that it is all there."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from types import TracebackType

import connect_kv
from connect_kv.client.client import Client
from connect_kv.testing.processes import ProcessCluster, until
from tests.cluster.machines import Counter

PATIENCE = 60.0
"""Seconds a call may take: longer than any fault of these tests, so that the session can retry it through."""


class Workload:
    """Callers that take turns at incrementing the counter and at writing a key each of its own number."""

    def __init__(
        self, cluster: ProcessCluster, callers: int = 50, *, name: str = "w", value: bytes = b""
    ) -> None:
        self.cluster = cluster
        self.name = name
        self.callers = callers
        self.value = value
        self.acknowledged: dict[str, bytes] = {}
        self.increments = 0
        self.unknown_increments = 0
        self.errors: list[BaseException] = []
        self.acknowledgements: list[float] = []
        """When each call was acknowledged, on the loop's clock."""
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._client: Client | None = None

    async def __aenter__(self) -> Workload:
        self._client = await self.cluster.client().__aenter__()
        self._tasks = [asyncio.create_task(self._caller(number)) for number in range(self.callers)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._stopping:
            for task in self._tasks:
                task.cancel()
        await self.stop()

    async def stop(self) -> None:
        """Let every call under way end, and begin no more."""
        self._stopping = True
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.__aexit__(None, None, None)
            self._client = None

    async def _caller(self, caller: int) -> None:
        assert self._client is not None
        counter = self._client.machine("counter", Counter)
        loop = asyncio.get_running_loop()
        number = 0
        while not self._stopping:
            number += 1
            key, value = f"{self.name}/{caller}/{number}", f"{number}".encode() + self.value
            try:
                await self._client.put(key, value, timeout=PATIENCE)
                self.acknowledged[key] = value
                self.acknowledgements.append(loop.time())
                await counter.within(PATIENCE, Counter.increment)
                self.increments += 1
                self.acknowledgements.append(loop.time())
            except connect_kv.OutcomeUnknown as error:
                self.unknown_increments += 1
                self.errors.append(error)
            except connect_kv.ConnectKvError as error:
                self.errors.append(error)

    async def progress(self, calls: int = 50, timeout: float = 30.0) -> None:
        """Wait until that many more calls were acknowledged."""
        wanted = len(self.acknowledgements) + calls

        async def enough() -> bool:
            return len(self.acknowledgements) >= wanted

        await until(enough, timeout, f"{calls} acknowledgements")

    def longest_pause(self, since: float) -> float:
        """The longest time without any acknowledgement from that moment until the last one."""
        moments = [since, *(moment for moment in self.acknowledgements if moment > since)]
        return max((later - earlier for earlier, later in pairwise(moments)), default=0.0)


async def stored(client: Client, prefix: str) -> dict[str, bytes]:
    """Every key under a prefix, read linearizably page by page."""
    found: dict[str, bytes] = {}
    start, end = prefix.encode(), prefix.encode()[:-1] + bytes([prefix.encode()[-1] + 1])
    while True:
        page = await client.range(start, end, limit=5000, timeout=PATIENCE)
        found.update((one.key.decode(), one.value) for one in page.kvs)
        if not page.more:
            return found
        start = page.kvs[-1].key + b"\x00"


async def check_nothing_lost(workload: Workload, *, counter_from: int = 0) -> int:
    """Everything acknowledged is stored with its value, each increment counted once; returns the total."""
    async with workload.cluster.client() as client:
        found = await stored(client, f"{workload.name}/")
        lost = [key for key, value in workload.acknowledged.items() if found.get(key) != value]
        assert not lost, f"{len(lost)} acknowledged writes are lost, such as {lost[:3]}"
        total = await client.machine("counter", Counter).call(Counter.value)
        counted = total - counter_from
        assert workload.increments <= counted <= workload.increments + workload.unknown_increments
        return total
