"""Wall clocks that step, and restarts of everything: no lease and no session ends for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos import faulty_machine
from connect_kv.client.client import Client
from connect_kv.testing.processes import NodeProcess, ProcessCluster, until

HOUR = 3600.0
TTL = 600
WEEK = 7 * 24 * HOUR


def set_ahead(node: NodeProcess, seconds: float) -> None:
    """What its wall clock shows from now on, beside the real time."""
    Path(node.environment[faulty_machine.CLOCK]).write_text(f"{seconds!r}")


def steppable(cluster: ProcessCluster, directory: Path) -> ProcessCluster:
    for node in cluster.nodes:
        node.program = "chaos.faulty_machine"
        node.environment = {faulty_machine.CLOCK: str(directory / f"{node.name}.clock")}
    return cluster


async def restart(cluster: ProcessCluster) -> None:
    for node in cluster.nodes:
        await node.kill()
    await cluster.start()


async def an_expiry(client: Client) -> None:
    """Wait until the leader has ended a lease: it has looked at all of them."""
    lease, _ = await client.grant_lease(2)
    await client.put("brief", "", lease=lease)

    async def gone() -> bool:
        return await client.get("brief") is None

    await until(gone, 30, "a lease of 2 s to end")


@pytest.mark.parametrize("step", [HOUR, -HOUR, WEEK])
async def test_a_step_and_a_restart_end_no_lease_and_no_session(tmp_path: Path, step: float) -> None:
    async with steppable(ProcessCluster(tmp_path, 1), tmp_path) as cluster:
        (node,) = cluster.nodes
        async with cluster.client() as client:
            lease, _ = await client.grant_lease(TTL)
            await client.put("held", "", lease=lease)
            set_ahead(node, step)
            await client.put("other", "")
            await restart(cluster)
            await an_expiry(client)
            assert await client.get("held") is not None
            assert await remaining(client, lease) > TTL - 60
            await client.put("other", "again")


async def test_one_member_of_three_is_an_hour_ahead(tmp_path: Path) -> None:
    """It leads, another leads, all are killed: whoever leads then ends nothing."""
    async with steppable(ProcessCluster(tmp_path, 3), tmp_path) as cluster:
        ahead = cluster.nodes[0]
        set_ahead(ahead, HOUR)
        async with cluster.client() as client:
            lease, _ = await client.grant_lease(TTL)
            await client.put("held", "", lease=lease)
            for node in (ahead, *cluster.nodes[1:]):
                await lead(cluster, client, node)
                await client.put("led", node.name)
            await restart(cluster)
            await an_expiry(client)
            assert await client.get("held") is not None
            assert await remaining(client, lease) > TTL - 60


async def lead(cluster: ProcessCluster, client: Client, node: NodeProcess) -> None:
    leader = await cluster.leader()
    if leader is node:
        return
    ids = {member.name: member.ID for member in await client.cluster.members()}
    await client.maintenance.move_leader(leader.client_address, ids[node.name])

    async def moved() -> bool:
        return await cluster.leader() is node

    await until(moved, 10, f"{node.name} to lead")


async def remaining(client: Client, lease: int) -> int:
    return (await client.lease_time_to_live(lease)).TTL
