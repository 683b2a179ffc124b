"""A follower that the log no longer reaches is brought up by a snapshot, whatever ends it meanwhile."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import connect_kv
from connect_kv.client.client import Client
from connect_kv.testing.processes import NodeProcess, ProcessCluster, until
from tests.cluster import faulty
from tests.cluster.conftest import scaled
from tests.cluster.workload import Workload, check_nothing_lost, stored

MACHINES = {"counter": "tests.cluster.machines:Counter"}
MIB = 1 << 20


async def fill(client: Client, count: int, value_bytes: int, *, at_once: int = 16) -> None:
    """Write so many keys of random bytes, which no compression makes smaller."""
    rng = random.Random(3)
    numbers = iter(range(count))

    async def write() -> None:
        for number in numbers:
            await client.put(f"filled/{number:06}", rng.randbytes(value_bytes), timeout=60)

    await asyncio.gather(*(write() for _ in range(at_once)))


async def applied(node: NodeProcess) -> float:
    """The last entry it has applied; 0 if it does not answer."""
    return await node.metric("connect_kv_raft_applied_index") or 0


async def compacted_past(nodes: list[NodeProcess], index: float) -> None:
    """Wait until none of them holds that entry any more."""

    async def gone() -> bool:
        firsts = [await node.metric("connect_kv_raft_first_index") or 0 for node in nodes]
        return min(firsts) > index

    await until(gone, 60, f"entry {index:g} to be compacted away")


async def caught_up(node: NodeProcess, leader: NodeProcess, timeout: float = 60.0) -> None:
    """Wait until it has applied all that the leader had at the time of this call."""
    target = await applied(leader)

    async def there() -> bool:
        assert node.running, node.log_tail()
        return await applied(node) >= target

    await until(there, timeout, f"{node.name} to apply entry {target:g}")


async def fall_behind(cluster: ProcessCluster, follower: NodeProcess, workload: Workload) -> None:
    """Kill it and let the others go on until they could only send it a snapshot."""
    await follower.kill()
    leader = await cluster.leader()
    async with cluster.client() as client:
        await fill(client, 16, 64 << 10)
    await workload.progress(50)
    await compacted_past([node for node in cluster.nodes if node.running], await applied(leader))


async def a_follower(cluster: ProcessCluster) -> NodeProcess:
    leader = await cluster.leader()
    return next(node for node in cluster.nodes if node is not leader)


async def restart(node: NodeProcess, leader: NodeProcess, *, die_at: str = "") -> None:
    """Start it; wait until it has died at that step, or, with none, until it has a snapshot and caught up."""
    node.environment["DIE_AT"] = die_at
    await node.start()
    if die_at:
        assert await node.wait(60) == -9, f"at {die_at!r}: {node.log_tail()}"
    else:
        await node.ready()
        await caught_up(node, leader)


async def test_killed_at_every_step_of_a_snapshot_it_catches_up_while_writes_go_on(tmp_path: Path) -> None:
    arguments = ["--catch-up-entries", "20", "--snapshot-count", "50"]
    cluster = ProcessCluster(tmp_path, machines=MACHINES, arguments=arguments)
    for node in cluster.nodes:
        node.program = "tests.cluster.faulty"
    async with cluster, Workload(cluster, callers=8) as workload:
        async with cluster.client() as client:
            await fill(client, 64, 64 << 10)
        follower = await a_follower(cluster)
        await fall_behind(cluster, follower, workload)
        for step in faulty.BEFORE_NAMED:
            await restart(follower, await cluster.leader(), die_at=step)
        await restart(follower, await cluster.leader())
        assert await follower.metric("connect_kv_snapshots_installed_total") == 1
        for step in faulty.AFTER_NAMED:
            await fall_behind(cluster, follower, workload)
            await restart(follower, await cluster.leader(), die_at=step)
            await workload.progress(50)
            await restart(follower, await cluster.leader())
            assert len(list((follower.data_dir / "state").iterdir())) == 1
        await workload.stop()
        assert not workload.errors
        await check_nothing_lost(workload)
        async with connect_kv.connect(follower.client_address) as client:
            assert (await stored(client, f"{workload.name}/")).keys() >= workload.acknowledged.keys()
            assert len(await stored(client, "filled/")) == 64


async def test_a_large_state_moves_in_little_memory(tmp_path: Path) -> None:
    """While writes go on, the leader's anonymous memory stays below 400 MB."""
    size, value_bytes = int(scaled(96 * MIB, 1024 * MIB)), 256 << 10
    # Values are stored as current ones and in the history: the default quota is just too small.
    arguments = ["--quota-bytes", str(4096 * MIB)]
    async with ProcessCluster(tmp_path, machines=MACHINES, arguments=arguments) as cluster:
        follower = await a_follower(cluster)
        await follower.kill()
        async with cluster.client() as client:
            await fill(client, size // value_bytes, value_bytes)
        leader = await cluster.leader()
        others = [node for node in cluster.nodes if node.running]
        async with Workload(cluster, callers=10) as workload:
            await compacted_past(others, 10)
            before, loop = leader.memory()["RssAnon"], asyncio.get_running_loop()
            started, written = loop.time(), len(workload.acknowledgements)
            await follower.start()
            watch = asyncio.create_task(highest_memory(leader))
            await caught_up(follower, leader, 300)
            seconds, calls = loop.time() - started, len(workload.acknowledgements) - written
            watch.cancel()
            peak = await watch
            await workload.stop()
        assert await follower.metric("connect_kv_snapshots_installed_total") == 1
        assert await check_nothing_lost(workload) == workload.increments
    print(
        f"{size / MIB:.0f} MiB in {seconds:.1f} s from start to caught up "
        f"({size / MIB / seconds:.0f} MiB/s), {calls / seconds:.0f} calls/s meanwhile; "
        f"leader's anonymous memory {before / 1e6:.0f} MB before, at most {peak / 1e6:.0f} MB"
    )
    assert calls > 10
    assert peak < 400e6


async def highest_memory(node: NodeProcess) -> int:
    """The most anonymous memory it was seen to have until this is cancelled."""
    highest = 0
    while True:
        highest = max(highest, node.memory()["RssAnon"])
        try:
            await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            return highest
