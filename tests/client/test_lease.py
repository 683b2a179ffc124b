"""Leases keep themselves alive, on any member, and say when they are lost."""

from __future__ import annotations

import asyncio

from connect_kv.client.client import connect
from connect_kv.client.lease import Lease
from tests.client.fake_server import FakeCluster, FakeMember, every


async def renewals(cluster: FakeCluster, id: int, count: int) -> None:
    async with asyncio.timeout(60), cluster.changed:
        await cluster.changed.wait_for(lambda: cluster.renewals[id] >= count)


async def test_is_renewed_and_revoked_at_the_end(cluster: FakeCluster, endpoints: str) -> None:
    async with connect(endpoints) as client:
        async with client.lease(1) as lease:
            assert lease.id in cluster.leases
            await renewals(cluster, lease.id, 2)
            assert lease.alive
        assert not cluster.leases
        assert not lease.alive


async def test_is_renewed_through_another_member_when_streams_break(
    cluster: FakeCluster, members: list[FakeMember], endpoints: str
) -> None:
    for member in members:
        member.fault = every("renewal", 2)
    async with connect(endpoints) as client:
        lease = await client.lease(1)
        await renewals(cluster, lease.id, 3)
        assert lease.alive


async def test_is_renewed_through_another_member_when_one_is_silent(
    cluster: FakeCluster, members: list[FakeMember], endpoints: str
) -> None:
    async with connect(endpoints) as client:
        lease = await client.lease(2)
        members[0].freeze()
        await renewals(cluster, lease.id, 1)
        assert lease.alive
        members[0].thaw()


async def test_says_when_the_cluster_has_let_it_expire(cluster: FakeCluster, endpoints: str) -> None:
    async with connect(endpoints) as client:
        lease = await client.lease(1)
        cluster.leases.clear()
        async with asyncio.timeout(60):
            await lease.wait_lost()
        assert not lease.alive


async def test_says_when_nobody_renewed_it_in_time(
    cluster: FakeCluster, members: list[FakeMember], endpoints: str
) -> None:
    async with connect(endpoints) as client:
        lease = await client.lease(1)
        for member in members:
            await member.stop()
        async with asyncio.timeout(60):
            await lease.wait_lost()


async def test_many_leases_share_few_wakeups(cluster: FakeCluster, endpoints: str) -> None:
    async def one() -> Lease:
        return await client.lease(3)

    async with connect(endpoints) as client:
        leases = await asyncio.gather(*(one() for _ in range(500)))
        async with asyncio.timeout(60), cluster.changed:
            await cluster.changed.wait_for(lambda: len(cluster.renewals) == 500)
        assert all(lease.alive for lease in leases)
        assert set(cluster.renewals.values()) == {1}
