"""Processes that die at once lose nothing that was acknowledged, and the others go on."""

from __future__ import annotations

import asyncio
from pathlib import Path

from connect_kv.testing.processes import ProcessCluster
from tests.cluster.conftest import rounds
from tests.cluster.workload import Workload, check_nothing_lost

MACHINES = {"counter": "tests.cluster.machines:Counter"}


async def test_leader_killed_under_load(tmp_path: Path) -> None:
    """Writes resume within 3 s, none acknowledged is lost, and every increment counts exactly once."""
    loop = asyncio.get_running_loop()
    pauses: list[float] = []
    async with ProcessCluster(tmp_path, machines=MACHINES) as cluster, Workload(cluster) as workload:
        for _ in range(rounds(3)):
            await workload.progress(500)
            leader = await cluster.leader()
            killed = loop.time()
            await leader.kill()
            await workload.progress(200)
            pauses.append(workload.longest_pause(killed))
            await leader.start()
            await leader.ready()
        await workload.stop()
        assert not workload.errors
        assert await check_nothing_lost(workload) == workload.increments
    keys, times = len(workload.acknowledged), [round(pause, 2) for pause in pauses]
    print(f"{keys} keys and {workload.increments} increments acknowledged; pauses in seconds: {times}")
    assert max(pauses) < 3.0, pauses


async def test_all_nodes_killed_at_once_under_load(tmp_path: Path) -> None:
    """After a restart every acknowledged write is there."""
    async with ProcessCluster(tmp_path, machines=MACHINES) as cluster:
        total = 0
        for number in range(rounds(2)):
            async with Workload(cluster, name=f"round{number}") as workload:
                await workload.progress(1000)
                await asyncio.gather(*(node.kill() for node in cluster.nodes))
                await cluster.start()
                await workload.progress(100)
                await workload.stop()
                assert not workload.errors
                total = await check_nothing_lost(workload, counter_from=total)


async def test_rolling_restart_under_load(tmp_path: Path) -> None:
    """Nodes that are told to stop hand over first: no call that may be retried fails."""
    async with ProcessCluster(tmp_path, machines=MACHINES) as cluster, Workload(cluster) as workload:
        await workload.progress(300)
        for node in cluster.nodes:
            assert await node.stop() == 0, node.log_tail()
            await workload.progress(100)
            await node.start()
            await node.ready()
            await workload.progress(100)
        await workload.stop()
        assert not workload.errors
        assert await check_nothing_lost(workload) == workload.increments
