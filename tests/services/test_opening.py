"""A member serves clients once the cluster knows its name and address, not before."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from connect_kv.errors import NoLeader, Overloaded
from connect_kv.rpc import cluster_pb2, kv_pb2, maintenance_pb2
from connect_kv.services import opening as openings
from connect_kv.services.caller import Caller
from connect_kv.services.opening import Opening
from tests.services.cluster import Member, agree, configs, running
from tests.services.conftest import serving, unary, until
from tests.services.test_joining import joining

LIST = "/etcdserverpb.Cluster/MemberList"


class Answers:
    """Whatever is asked."""

    async def Put(self, request: kv_pb2.PutRequest, caller: Caller) -> kv_pb2.PutResponse:
        return kv_pb2.PutResponse()

    async def Status(
        self, request: maintenance_pb2.StatusRequest, caller: Caller
    ) -> maintenance_pb2.StatusResponse:
        return maintenance_pb2.StatusResponse()


async def test_calls_wait_until_it_is_open_but_status_does_not() -> None:
    opening = Opening()
    async with serving({"KV": Answers(), "Maintenance": Answers()}, opening=opening) as (
        channel,
        _,
        _metrics,
    ):
        put = asyncio.ensure_future(unary(channel, "/etcdserverpb.KV/Put")(b""))
        await unary(channel, "/etcdserverpb.Maintenance/Status")(b"")
        assert not put.done()
        opening.open()
        await put


async def test_who_waits_too_long_is_told_why() -> None:
    opening = Opening(time_limit=0.01, why=lambda: "2 of 3 voters needed")
    async with serving({"KV": Answers()}, opening=opening) as (channel, _, _metrics):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await unary(channel, "/etcdserverpb.KV/Put")(b"")
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert refused.value.details() == "etcdserver: no leader: 2 of 3 voters needed"


async def test_who_waits_hears_that_the_member_stops() -> None:
    opening = Opening()
    async with serving({"KV": Answers()}, opening=opening) as (channel, _, metrics):
        put = asyncio.ensure_future(unary(channel, "/etcdserverpb.KV/Put")(b""))
        await until(lambda: b"grpc_server_started_total{" in metrics.text())
        opening.stop()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await put
    assert refused.value.details() == "etcdserver: server stopped"


async def test_no_more_than_so_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openings, "MOST_WAITING", 2)
    opening = Opening()
    waiting = [asyncio.ensure_future(opening.wait()) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await opening.wait()
    opening.open()
    await asyncio.gather(*waiting)
    late = Opening(time_limit=0)
    for _ in range(3):
        with pytest.raises(NoLeader):
            await late.wait()


async def listed(member: Member) -> cluster_pb2.MemberListResponse:
    return await member.call(LIST, cluster_pb2.MemberListRequest(), cluster_pb2.MemberListResponse)


def own(member: Member, answer: cluster_pb2.MemberListResponse) -> cluster_pb2.Member:
    id = member.server.node.identity.node_id
    return next(one for one in answer.members if id == one.ID)


async def test_members_of_a_new_cluster_never_list_themselves_without_an_address(tmp_path: Path) -> None:
    """Clients take their endpoints from there."""
    members = [Member(config) for config in configs(tmp_path, 3)]
    asked: list[asyncio.Task[cluster_pb2.MemberListResponse]] = []
    try:
        for member in members:
            await member.start()
            asked.append(asyncio.create_task(listed(member)))
        for member, answer in zip(members, await asyncio.gather(*asked), strict=True):
            assert own(member, answer).name == member.config.name
            assert list(own(member, answer).clientURLs) == [f"http://{member.server.client_address}"]
    finally:
        await asyncio.gather(*(member.stop() for member in members))


async def test_nor_does_one_that_joins(tmp_path: Path) -> None:
    (first,) = configs(tmp_path / "first", 1)
    (other,) = configs(tmp_path / "other", 1)
    async with running([first]) as (founder,):
        added = cluster_pb2.MemberAddRequest(peerURLs=[f"http://{other.peer_address}"])
        await founder.call("/etcdserverpb.Cluster/MemberAdd", added, cluster_pb2.MemberAddResponse)
        joined = Member(joining(other, first))
        await joined.start()
        try:
            answer = own(joined, await listed(joined))
            assert answer.name == "n2"
            assert list(answer.clientURLs) == [f"http://{joined.server.client_address}"]
            await until(lambda: agree([founder, joined]))
        finally:
            await joined.stop()


async def test_a_member_that_is_known_serves_again_without_a_majority(tmp_path: Path) -> None:
    wanted = configs(tmp_path, 2)
    async with running(wanted) as members:
        ports = [member.server.client_address for member in members]
    again = Member(replace(wanted[0], listen_client=ports[0]))
    await again.start()
    try:
        read = kv_pb2.RangeRequest(key=b"k", serializable=True)
        await again.call("/etcdserverpb.KV/Range", read, kv_pb2.RangeResponse)
        assert own(again, await listed(again)).name == "n1"
    finally:
        await again.stop()
