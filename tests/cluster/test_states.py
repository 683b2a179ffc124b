"""What was lost with a restart, or ended members: after kill -9 each answers as an object never stored."""

from __future__ import annotations

from pathlib import Path

import pytest

import connect_kv
from connect_kv.testing.real import RealCluster
from tests.cluster.states import Everything

pytestmark = pytest.mark.cluster

CALLS = 400
STORED_EVERY = 60


async def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    plain = Everything()
    making = RealCluster(tmp_path, machines={"state": "tests.cluster.states:Everything"})
    for node in making.nodes:
        node.environment["CONNECT_KV_SNAPSHOT_COUNT"] = str(STORED_EVERY)
    async with making as cluster, cluster.client() as client:
        state = client.machine("state", Everything)
        for number in range(CALLS):
            assert await state.within(30, Everything.step, number) == plain.step(number)
            if number % 100 == 70:
                leader = await cluster.leader()
                await cluster.crash(leader)  # kill -9
                await cluster.restart(leader)
            if number == 250:
                with pytest.raises(connect_kv.CommandFailed, match=r"rows\[0\] cannot be stored: generator"):
                    await state.within(30, Everything.keep)
        for node in cluster.nodes:
            await cluster.crash(node)
        for node in cluster.nodes:
            await cluster.restart(node)
        for node in cluster.nodes:
            await node.ready()
            async with connect_kv.connect(node.client_address) as alone:
                each = alone.machine("state", Everything)
                for _ in range(2):
                    assert await each.within(30, Everything.told) == plain.told()
                    assert await each.within(30, Everything.total) == plain.calls + plain.grown.size
        assert await state.within(30, Everything.step, CALLS) == plain.step(CALLS)
