"""Members are added, promoted, updated and removed through any member, and never to the cluster's harm."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

import connect_kv
from connect_kv.client.client import Client
from connect_kv.config import InitialMember, ServerConfig
from connect_kv.errors import MemberRemoved, Refused
from connect_kv.rpc import cluster_pb2, kv_pb2
from tests.services.cluster import Member, agree, configs, running
from tests.services.conftest import until


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[list[Member]]:
    async with running(configs(tmp_path, 3)) as members:
        yield members


def follower(members: list[Member]) -> Member:
    return next(one for one in members if not one.server.node.is_leader)


def leader(members: list[Member]) -> Member:
    return next(one for one in members if one.server.node.is_leader)


def client_of(*members: Member) -> Client:
    return connect_kv.connect([one.server.client_address for one in members], session=False)


def joining(directory: Path, members: list[Member], name: str) -> ServerConfig:
    (config,) = configs(directory / name, 1)
    known = tuple(
        InitialMember(name=one.config.name, peer_address=one.config.peer_address) for one in members
    )
    own = InitialMember(name=name, peer_address=config.peer_address)
    return replace(config, name=name, initial_cluster=(*known, own), initial_cluster_state="existing")


def has_the_log(members: list[Member], learner: int) -> bool:
    """Whether the leader knows that the learner has all of it."""
    status = leader(members).server.node.status().raft
    return any(one.node_id == learner and one.match_index == status.last_index for one in status.followers)


async def test_a_learner_is_added_through_a_follower_and_promoted_once_it_has_the_log(
    three: list[Member], tmp_path: Path
) -> None:
    config = joining(tmp_path, three, "n4")
    async with client_of(follower(three)) as client:
        for number in range(50):
            await client.put(f"k{number}", "v")
        added = await client.cluster.add(config.peer_address, learner=True)
        assert (added.name, added.isLearner) == ("", True)
        assert list(added.peerURLs) == [f"http://{config.peer_address}"]
        with pytest.raises(Refused, match="in sync with leader") as refused:
            await client.cluster.promote(added.ID)
        assert refused.value.code == 9
        with pytest.raises(Refused, match="too many learner members"):
            await client.cluster.add("127.0.0.1:1", learner=True)
        joined = Member(config)
        await joined.start()
        try:
            await until(lambda: agree([*three, joined]))
            await until(lambda: has_the_log(three, added.ID))
            await client.cluster.promote(added.ID)
            found = {one.ID: one for one in await client.cluster.members()}
            assert not found[added.ID].isLearner
            assert found[added.ID].name == "n4"
            with pytest.raises(Refused, match=r"can only promote a learner member$"):
                await client.cluster.promote(added.ID)
            async with client_of(joined) as there:
                await there.cluster.remove(added.ID)
            assert isinstance(await joined.server.failed, MemberRemoved)
        finally:
            await joined.stop()
        assert len(await client.cluster.members()) == 3


async def test_the_leader_and_the_member_that_is_asked_can_be_removed(three: list[Member]) -> None:
    first = leader(three)
    own = first.server.node.identity.node_id
    async with client_of(first) as client:
        await client.cluster.remove(own)
    assert isinstance(await first.server.failed, MemberRemoved)
    left = [one for one in three if one is not first]
    await until(lambda: agree(left) and left[0].server.node.leader_id != own)
    async with client_of(*left) as client:
        await client.put("k", "v")
        assert own not in {one.ID for one in await client.cluster.members()}
        with pytest.raises(Refused, match="member not found") as refused:
            await client.cluster.remove(own)
        assert refused.value.code == 5


async def test_changes_that_could_stop_the_cluster_are_refused(three: list[Member]) -> None:
    ids = [one.server.node.identity.node_id for one in three]
    async with client_of(*three) as client:
        with pytest.raises(Refused, match="Peer URLs already exists"):
            await client.cluster.add(three[0].config.peer_address)
        for bad in (
            "http://127.0.0.1",
            "http://127.0.0.1:1/path",
            "ftp://127.0.0.1:1",
            "http://name:word@127.0.0.1:1",
            "http://127.0.0.1 :1",
            "http://127.0.0.1:70000",
        ):
            with pytest.raises(Refused, match="given member URLs are invalid") as refused:
                await client.cluster.add(bad)
            assert refused.value.code == 3
        with pytest.raises(Refused, match="member not found"):
            await client.cluster.update(12345, "127.0.0.1:1")
        with pytest.raises(Refused, match="Peer URLs already exists"):
            await client.cluster.update(ids[0], three[1].config.peer_address)
        with pytest.raises(Refused, match="can only promote a learner"):
            await client.cluster.promote(ids[0])
        # Two of three are left: a fourth that never starts, and one more down, and nothing could be written.
        stopped = follower(three)
        await stopped.server.stop()
        with pytest.raises(connect_kv.ConnectKvError, match="unhealthy cluster"):
            await client.cluster.add("127.0.0.1:1")
        with pytest.raises(connect_kv.ConnectKvError, match="unhealthy cluster"):
            await client.cluster.remove(
                next(one for one in ids if one != stopped.server.node.identity.node_id)
            )
        # But the one that is down may go.
        await client.cluster.remove(stopped.server.node.identity.node_id)
        await client.put("k", "v")


async def test_without_a_majority_changes_are_refused_soon(three: list[Member]) -> None:
    """And not only when the call's time is up."""
    stopped = [one for one in three if not one.server.node.is_leader]
    (left,) = [one for one in three if one not in stopped]
    for one in stopped:
        await one.server.stop()
    await until(lambda: left.server.node.leader_id is None)
    begun = asyncio.get_running_loop().time()
    request = cluster_pb2.MemberAddRequest(peerURLs=["http://127.0.0.1:1"])
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await left.call("/etcdserverpb.Cluster/MemberAdd", request, cluster_pb2.MemberAddResponse)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert str(refused.value.details()).startswith("etcdserver: unhealthy cluster: no leader: 1 of 3 voters")
    assert asyncio.get_running_loop().time() - begun < left.config.time_limit / 2


async def test_the_last_voter_stays(tmp_path: Path) -> None:
    async with running(configs(tmp_path, 1)) as (only,), client_of(only) as client:
        with pytest.raises(Refused, match="not enough started members"):
            await client.cluster.remove(only.server.node.identity.node_id)


async def test_a_further_voter_waits_for_one_that_was_added_to_start(three: list[Member]) -> None:
    async with client_of(*three) as client:
        await client.cluster.add("127.0.0.1:1")
        await client.cluster.add("127.0.0.1:2")
        with pytest.raises(connect_kv.ConnectKvError, match="not enough started"):
            await client.cluster.add("127.0.0.1:3")


async def test_a_learner_answers_only_what_needs_no_agreement(three: list[Member], tmp_path: Path) -> None:
    """Clients are sent to another member, as etcd's know it."""
    config = joining(tmp_path, three, "n4")
    async with client_of(*three) as client:
        await client.put("k", "v")
        await client.cluster.add(config.peer_address, learner=True)
        joined = Member(config)
        await joined.start()
        try:
            await until(lambda: joined.server.node.last_applied >= three[0].server.node.last_applied)
            async with client_of(joined) as there:
                assert (await there.status()).isLearner
                assert (await there.get("k", serializable=True)) is not None
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await joined.call(
                    "/etcdserverpb.KV/Range", kv_pb2.RangeRequest(key=b"k"), kv_pb2.RangeResponse
                )
            assert refused.value.details() == "etcdserver: rpc not supported for learner"
            assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            async with connect_kv.connect(
                [joined.server.client_address, three[0].server.client_address]
            ) as everybody:
                await everybody.put("k", "w")
        finally:
            await joined.stop()
