"""How long a write of the log takes, fsync included, while its node has something else to do on its disk."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import connect_kv
from benchmarks import loads, timed_node
from benchmarks.pairs import PAIRS
from benchmarks.run import BenchmarkRun
from benchmarks.systems import ConnectKv
from connect_kv.client.client import Client
from connect_kv.testing.processes import NodeProcess, until

KEYS = 200_000
VERSIONS = 3
CALLERS = 8
"""Of puts, through one session, all the while: several hundred writes of the log a second."""
SECONDS = 8.0
"""Of a phase, at least."""
SNAPSHOTS = 3
SETTLE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Phase:
    """What happened from when to when (CLOCK_MONOTONIC), and on which node it counts."""

    name: str
    node: NodeProcess
    began: float
    ended: float


async def log_writes(run: BenchmarkRun) -> None:
    """Writes of the log while the state is compacted, rewritten, sent and installed as a snapshot."""
    arguments = ("--snapshot-count", "1000", "--catch-up-entries", "200")
    system = ConnectKv(run.directory / "ours", arguments=arguments, program="benchmarks.timed_node")
    for node in system.nodes:
        node.environment[timed_node.VARIABLE] = str(_times(run, node))
    async with system:
        await system.leader_first()
        keys = run.some(KEYS, least=20_000)
        for _ in range(VERSIONS):
            counts = ("--clients", "1", "--callers", "16", "--total", str(-(-keys // PAIRS)))
            await loads.bench(system, "txn", *counts)
        async with connect_kv.connect(system.endpoints, timeout=60) as client, _putting(client, keys):
            phases = await _phases(system, client, SECONDS * min(1.0, run.scale))
        writes: dict[str, list[tuple[float, float]]] = {}
        await system.stop()
        for node in system.nodes:
            writes[node.name] = timed_node.read(_times(run, node))
    for name in dict.fromkeys(phase.name for phase in phases):
        parts = [phase for phase in phases if phase.name == name]
        took = sorted(
            seconds * 1000
            for phase in parts
            for began, seconds in writes[phase.node.name]
            if phase.began <= began < phase.ended
        )
        total = sum(phase.ended - phase.began for phase in parts)
        figures = {"rate": len(took) / total, **loads.percentiles(took), "seconds": total}
        run.notebook.note(f"log write, {name}", system.name, figures)


async def _phases(system: ConnectKv, client: Client, seconds: float) -> list[Phase]:
    """Each of what is measured, with a stretch of nothing else before it."""
    led_by = (await system.leader()).client_address
    leader = next(node for node in system.nodes if node.client_address == led_by)
    follower = next(node for node in system.nodes if node is not leader)
    phases: list[Phase] = []

    async def during(name: str, node: NodeProcess, work: Callable[[], Awaitable[object]]) -> None:
        began = time.monotonic()
        await work()
        phases.append(Phase(name, node, began, time.monotonic()))

    async def pause() -> None:
        await asyncio.sleep(SETTLE_SECONDS)
        await during("nothing else", leader, lambda: asyncio.sleep(seconds))

    async def compact() -> None:
        ends = time.monotonic() + seconds
        await client.compact((await client.range(b"0")).header.revision, physical=True)
        await asyncio.sleep(max(0.0, ends - time.monotonic()))

    async def defragment() -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            await client.maintenance.defragment(leader.client_address, timeout=60)

    await pause()
    await during("compaction of the state", leader, compact)
    await pause()
    await during("defragment", leader, defragment)
    await pause()
    for _ in range(SNAPSHOTS):
        await _fall_behind(follower, leader)
        await during("sending a snapshot", leader, lambda: _return(follower, leader))
        sent = phases[-1]
        await asyncio.sleep(SETTLE_SECONDS)
        phases.append(Phase("installing a snapshot", follower, sent.began, time.monotonic()))
    return phases


@asynccontextmanager
async def _putting(client: Client, keys: int) -> AsyncIterator[None]:
    """Puts of random keys by a few callers."""
    rng = random.Random(1)
    value = rng.randbytes(256)

    async def caller() -> None:
        while True:
            await client.put(b"bench/%012d" % rng.randrange(keys), value)

    async with asyncio.TaskGroup() as tasks:
        callers = [tasks.create_task(caller()) for _ in range(CALLERS)]
        yield
        for task in callers:
            task.cancel()


async def _fall_behind(follower: NodeProcess, leader: NodeProcess) -> None:
    """Kill it, and wait until the leader's log no longer reaches back to it."""
    await follower.kill()
    last = await _metric(leader, "connect_kv_raft_applied_index")

    async def compacted() -> bool:
        return await _metric(leader, "connect_kv_raft_first_index") > last

    await until(compacted, 60, "the log to be compacted")


async def _return(follower: NodeProcess, leader: NodeProcess) -> None:
    """Start it, and wait until it has what the leader has now."""
    target = await _metric(leader, "connect_kv_raft_applied_index")
    await follower.start()

    async def there() -> bool:
        return (await follower.metric("connect_kv_raft_applied_index") or 0) >= target

    await until(there, 60, f"{follower.name} to catch up")
    if not await follower.metric("connect_kv_snapshots_installed_total"):
        raise RuntimeError(f"{follower.name} needed no snapshot")


async def _metric(node: NodeProcess, name: str) -> float:
    async def answered() -> float | None:
        return await node.metric(name)

    return await until(answered, 60, f"{node.name} to tell {name}")


def _times(run: BenchmarkRun, node: NodeProcess) -> Path:
    return run.directory / f"{node.name}.times"
