"""The fixture for clusters of real processes: its faults do what they say."""

from __future__ import annotations

import pytest

import connect_kv
from connect_kv.errors import ConnectKvError
from connect_kv.testing.plugin import MakeRealCluster
from connect_kv.testing.processes import NodeProcess, leads, until
from connect_kv.testing.real import RealCluster
from tests.cluster.machines import Counter

pytestmark = pytest.mark.cluster


async def test_a_leader_that_is_cut_off_loses_the_lead_and_catches_up(real_cluster: MakeRealCluster) -> None:
    async with real_cluster({"counter": "tests.cluster.machines:Counter"}) as cluster:
        before = await cluster.leader()
        cluster.isolate(before)
        async with cluster.client() as client:
            counter = client.machine("counter", Counter)
            assert await counter.within(30, Counter.increment, by=2) == 2
        await until(lambda: follows(before), 30, "the one that is cut off to give up the lead")
        async with connect_kv.connect(before.client_address, session=False) as alone:
            with pytest.raises(ConnectKvError):
                await alone.get("greeting", timeout=1)
        cluster.heal()
        async with connect_kv.connect(before.client_address) as healed:
            assert await healed.machine("counter", Counter).within(30, Counter.value) == 2


async def test_members_crash_and_sleep(real_cluster: MakeRealCluster) -> None:
    async with real_cluster() as cluster, cluster.client() as client:
        await client.put("greeting", "hello")
        await cluster.crash("n1")
        assert not cluster.node("n1").running
        cluster.pause("n2")
        assert await serves(cluster, "n3") is False
        cluster.resume("n2")
        await client.put("greeting", "hello again", timeout=30)
        await cluster.restart("n1")
        await cluster.node("n1").ready()
        found = await until(lambda: client.get("greeting"), 30, "an answer")
        assert found.value == b"hello again"


async def follows(node: NodeProcess) -> bool:
    return not await leads(node)


async def serves(cluster: RealCluster, member: str) -> bool:
    async with connect_kv.connect(cluster.node(member).client_address, session=False) as client:
        try:
            await client.get("greeting", timeout=1)
        except ConnectKvError:
            return False
        return True
