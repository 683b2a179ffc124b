"""What stands and says nothing: connections without a call, and watches of keys that nobody writes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from benchmarks.run import BenchmarkRun
from benchmarks.systems import ConnectKv, Etcd, KeyValueSystem
from connect_kv.http2.channel import Channel, ClientStream
from connect_kv.rpc.watch_pb2 import WatchCreateRequest, WatchRequest, WatchResponse

CONNECTIONS = 2000
WATCHES = 10_000
A_CONNECTION = 100
"""Watches that share a connection."""
AT_ONCE = 50
SETTLE_SECONDS = 1.0
WATCH = "/etcdserverpb.Watch/Watch"


async def idle(run: BenchmarkRun) -> None:
    """Memory that a node takes for connections without a call, and for watches, each a stream of its own."""
    async with (
        ConnectKv(run.directory / "ours", 1) as ours,
        Etcd(run.directory / "etcd", run.etcd, 1) as etcd,
    ):
        for system in (ours, etcd):
            await system.leader_first()
            await _connections(run, system, run.some(CONNECTIONS))
            await _watches(run, system, run.some(WATCHES))


async def _connections(run: BenchmarkRun, system: KeyValueSystem, count: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        before = system.memory()
        await _many(count, lambda _: _connect(system, stack))
        await asyncio.sleep(SETTLE_SECONDS)
        _note(run, f"{count:,} connections", system, before)


async def _watches(run: BenchmarkRun, system: KeyValueSystem, count: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        channels = [await _connect(system, stack) for _ in range(max(1, count // A_CONNECTION))]
        await asyncio.sleep(SETTLE_SECONDS)
        before = system.memory()
        await _many(count, lambda number: _watch(channels[number % len(channels)], number))
        await asyncio.sleep(SETTLE_SECONDS)
        _note(run, f"{count:,} watches", system, before)


async def _connect(system: KeyValueSystem, stack: contextlib.AsyncExitStack) -> Channel:
    host, _, port = system.addresses[0].rpartition(":")
    return await stack.enter_async_context(await Channel.connect(host, int(port)))


async def _watch(channel: Channel, number: int) -> ClientStream:
    stream = channel.stream(WATCH)
    await stream.write(
        WatchRequest(create_request=WatchCreateRequest(key=b"%d" % number)).SerializeToString()
    )
    answer = await stream.read()
    assert answer is not None
    assert WatchResponse.FromString(answer).created
    return stream


async def _many(count: int, make: Callable[[int], object]) -> Sequence[object]:
    """That many of them, a few at a time."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> object:
        async with room:
            return await make(number)  # type: ignore[misc]  # an awaitable of either kind

    return await asyncio.gather(*map(one, range(count)))


def _note(run: BenchmarkRun, row: str, system: KeyValueSystem, before: dict[str, float]) -> None:
    after = system.memory()
    run.notebook.note(row, system.name, {name: after[name] - before[name] for name in after})
