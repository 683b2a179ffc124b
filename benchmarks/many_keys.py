"""Three nodes with many keys: how fast they came in, what they take, how soon all is back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import cycle

import grpc.aio

from benchmarks import loads
from benchmarks.pairs import PAIRS
from benchmarks.run import BenchmarkRun
from benchmarks.systems import ConnectKv, Etcd, KeyValueSystem
from connect_kv.rpc.kv_pb2 import PutRequest, PutResponse, RangeRequest, RangeResponse
from connect_kv.testing.processes import ServerProcess

REPEATS = 3
"""Of each way to die, in turns; the median counts."""
PROBE_SECONDS = 0.02
BACK_SECONDS = 60.0
LOADING_SECONDS = 240.0


async def many_keys(run: BenchmarkRun) -> None:
    """Many keys of 256 bytes: loaded in transactions of 128, weighed, killed and started again."""
    async with ConnectKv(run.directory / "ours") as ours, Etcd(run.directory / "etcd", run.etcd) as etcd:
        systems: tuple[KeyValueSystem, ...] = (ours, etcd)
        for system in systems:
            await system.leader_first()
        for system, door in zip(systems, ("session", "unary"), strict=True):
            await _load(run, system, door)
        for system in systems:
            run.notebook.note("memory after loading", system.name, system.memory())
        ways: tuple[tuple[str, Callable[[KeyValueSystem], Awaitable[float]]], ...] = (
            ("start to the first answer", start_to_answer),
            ("kill -9 of all to the first put", all_killed),
            ("kill -9 of the leader to the first put", leader_killed),
        )
        for name, way in ways:
            for _ in range(REPEATS):
                for system in systems:
                    run.notebook.note(name, system.name, {"seconds": await way(system)})
        for system in systems:
            run.notebook.note("memory after a start", system.name, system.memory())


async def _load(run: BenchmarkRun, system: KeyValueSystem, door: str) -> None:
    arguments = ("txn", "--callers", "16", "--clients", "1", "--door", door)
    counts = ("--total", str(-(-run.keys // PAIRS)))
    row = f"loading {run.keys:,} keys"
    try:
        found = dict(await loads.bench(system, *arguments, *counts, timeout=LOADING_SECONDS))
    except (RuntimeError, TimeoutError) as error:
        run.notebook.failed(row, system.name, error)
        raise
    run.notebook.note(row, system.name, {"rate": found["rate"] * PAIRS, "cpu": found["cpu"] / PAIRS})


async def start_to_answer(system: KeyValueSystem) -> float:
    """Seconds from the start of all processes, which had ended in order, to a linearizable read."""
    await system.stop()
    return await _until_back(system, system.launch, _read)


async def all_killed(system: KeyValueSystem) -> float:
    """Seconds from the restart of all, who were killed, to an acknowledged put."""
    await system.kill()
    return await _until_back(system, system.launch, _put)


async def leader_killed(system: KeyValueSystem) -> float:
    """Seconds from the death of the leader to a put that the others acknowledge."""
    leader = await system.leader()
    seconds = await _until_back(system, leader.kill, _put, without=leader)
    return seconds


Probe = Callable[[grpc.aio.Channel], Awaitable[object]]


async def _until_back(
    system: KeyValueSystem,
    happens: Callable[[], Awaitable[None]],
    probe: Probe,
    *,
    without: ServerProcess | None = None,
) -> float:
    """A new call every 20 ms, at one member after the other; none waits for those before it."""
    loop = asyncio.get_running_loop()
    addresses = [member.client_address for member in system.members if member is not without]
    back = asyncio.Event()

    async def one(address: str) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            try:
                await probe(channel)
            except grpc.aio.AioRpcError:
                return
            back.set()

    began = loop.time()
    await happens()
    tasks = set()
    async with asyncio.timeout(BACK_SECONDS):
        for address in cycle(addresses):
            tasks.add(asyncio.create_task(one(address)))
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    await back.wait()
            except TimeoutError:
                continue
            break
    seconds = loop.time() - began
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await system.start()
    return seconds


async def _put(channel: grpc.aio.Channel) -> object:
    put = channel.unary_unary(
        "/etcdserverpb.KV/Put",
        request_serializer=PutRequest.SerializeToString,
        response_deserializer=PutResponse.FromString,
    )
    return await put(PutRequest(key=b"back", value=b"again"), timeout=10)


async def _read(channel: grpc.aio.Channel) -> object:
    get = channel.unary_unary(
        "/etcdserverpb.KV/Range",
        request_serializer=RangeRequest.SerializeToString,
        response_deserializer=RangeResponse.FromString,
    )
    return await get(RangeRequest(key=b"bench/000000000001"), timeout=10)
