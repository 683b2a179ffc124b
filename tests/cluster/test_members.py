"""Machines come and go while the cluster works."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import connect_kv
from connect_kv.client.client import Client
from connect_kv.testing.processes import NodeProcess, ProcessCluster, until
from tests.cluster.conftest import scaled
from tests.cluster.workload import PATIENCE, Workload, check_nothing_lost

MACHINES = {"counter": "tests.cluster.machines:Counter"}
ELECTION_SECONDS = 1.0
REMOVED = 2
"""Exit status of a node that must not be started again as it is."""


async def replace(cluster: ProcessCluster, client: Client, old: NodeProcess, new: NodeProcess) -> None:
    """As an operator does it: add a learner, start it, promote it once it has caught up, remove the old."""
    added = await client.cluster.add(new.peer_address, learner=True, timeout=PATIENCE)
    await cluster.start_joining(new)

    async def promoted() -> bool:
        assert new.running, new.log_tail()
        try:
            await client.cluster.promote(added.ID)
        except connect_kv.Refused as refused:
            if "in sync with leader" not in refused.message:
                raise
            return False
        return True

    await until(promoted, 30, f"{new.name} to catch up")
    (leaving,) = (one for one in await client.cluster.members() if one.name == old.name)
    await client.cluster.remove(leaving.ID, timeout=PATIENCE)
    assert await old.wait() == REMOVED, old.log_tail()
    assert "was removed from" in old.log_tail()
    cluster.nodes.remove(old)


async def test_all_three_machines_are_replaced_under_load(tmp_path: Path) -> None:
    """Nothing acknowledged is lost, and service is never away for more than two election timeouts."""
    async with (
        ProcessCluster(tmp_path, machines=MACHINES, spares=3) as cluster,
        Workload(cluster, int(scaled(10, 50))) as workload,
        connect_kv.connect(cluster.endpoints, session=False) as client,
    ):
        await workload.progress(200)
        for old, new in list(zip(cluster.nodes, cluster.spares, strict=True)):
            await replace(cluster, client, old, new)
            await workload.progress(100)
        await workload.stop()
        assert not workload.errors
        assert await check_nothing_lost(workload) == workload.increments
        members = await client.cluster.members()
        assert {one.name for one in members} == {"n4", "n5", "n6"}
        assert not any(one.isLearner for one in members)
    pause = max(later - earlier for earlier, later in pairwise(workload.acknowledgements))
    print(f"{len(workload.acknowledgements)} calls acknowledged; longest pause {pause:.2f} s")
    assert pause <= 2 * ELECTION_SECONDS


async def test_a_replaced_member_cannot_come_back(tmp_path: Path) -> None:
    """It is told why, also when it was away while it was removed."""
    async with (
        ProcessCluster(tmp_path) as cluster,
        connect_kv.connect(cluster.endpoints, session=False) as client,
    ):
        away = cluster.nodes[2]
        await away.kill()
        (member,) = (one for one in await client.cluster.members() if one.name == away.name)
        await client.cluster.remove(member.ID, timeout=PATIENCE)
        await away.start()
        assert await away.wait() == REMOVED
        assert "removed" in away.log_tail()
        await client.put("still", "works")
