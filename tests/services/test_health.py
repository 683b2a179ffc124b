"""grpc.health.v1 tells the truth: about the member and about each service."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

import connect_kv
from connect_kv.frontend.http.probes import Health
from connect_kv.rpc.maintenance_pb2 import (
    CORRUPT,
    NOSPACE,
    AlarmRequest,
    AlarmResponse,
    AlarmType,
)
from connect_kv.services.executor import CommandExecutor
from tests.services.cluster import Member, configs, running
from tests.services.conftest import FakeNode, until
from tests.services.test_cluster_service import has_the_log, joining

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
PATH = "/grpc.health.v1.Health"
KV = "etcdserverpb.KV"
MAINTENANCE = "etcdserverpb.Maintenance"


async def check(member: Member, service: str) -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    return int((await member.call(f"{PATH}/Check", request, health_pb2.HealthCheckResponse)).status)


async def watch(member: Member, seen: list[int]) -> None:
    """Note every status of the whole member, until it ends the stream."""
    method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = member.channel.unary_stream(f"{PATH}/Watch")
    call = method(health_pb2.HealthCheckRequest().SerializeToString())
    async for answer in call:
        seen.append(health_pb2.HealthCheckResponse.FromString(answer).status)


async def alarm(member: Member, action: str, kind: AlarmType.ValueType) -> None:
    request = AlarmRequest(memberID=member.server.node.identity.node_id, alarm=kind)
    request.action = AlarmRequest.AlarmAction.Value(action)
    await member.call("/etcdserverpb.Maintenance/Alarm", request, AlarmResponse)


async def settled(member: Member, service: str, wanted: int) -> None:
    async with asyncio.timeout(60):
        while await check(member, service) != wanted:  # noqa: ASYNC110  # it can only be asked
            await asyncio.sleep(0.01)


async def test_a_member_without_a_leader_does_not_serve_and_says_how_it_is(tmp_path: Path) -> None:
    wanted = configs(tmp_path, 2)
    async with running(wanted) as members:
        # The leader stays: a follower that is left would lead for a moment first, and say so.
        one, other = sorted(members, key=lambda member: not member.server.node.is_leader)
        for service in ("", KV, "connect_kv.v1.Session", "v3lockpb.Lock", MAINTENANCE):
            await settled(one, service, SERVING)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await check(one, "no.such.Service")
        assert (raised.value.code(), raised.value.details()) == (
            grpc.StatusCode.NOT_FOUND,
            "unknown service",
        )
        seen: list[int] = []
        watching = asyncio.create_task(watch(one, seen))
        await until(lambda: seen == [SERVING])
        await other.server.node.stop()
        await until(lambda: seen == [SERVING, NOT_SERVING])
        assert await check(one, "") == await check(one, KV) == NOT_SERVING
        assert await check(one, MAINTENANCE) == SERVING
        listed = await one.call(f"{PATH}/List", health_pb2.HealthListRequest(), health_pb2.HealthListResponse)
        assert listed.statuses[KV].status == NOT_SERVING
        watching.cancel()


async def test_a_learner_is_asked_in_vain_as_in_etcd(tmp_path: Path) -> None:
    """Whoever balances load takes it for what it is: not to be used."""
    async with running(configs(tmp_path, 3)) as members:
        config = joining(tmp_path, members, "n4")
        async with connect_kv.connect(members[0].server.client_address, session=False) as client:
            added = await client.cluster.add(config.peer_address, learner=True)
            learner = Member(config)
            await learner.start()
            try:
                await until(lambda: has_the_log(members, added.ID))
                for service in ("", KV, MAINTENANCE):
                    with pytest.raises(grpc.aio.AioRpcError) as raised:
                        await check(learner, service)
                    assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
                    assert raised.value.details() == "etcdserver: rpc not supported for learner"
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await watch(learner, [])
                assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
                await client.cluster.promote(added.ID)
                await until(lambda: not learner.server.node.membership.learners)
                for service in ("", KV):
                    await settled(learner, service, SERVING)
            finally:
                await learner.stop()


async def test_alarms_stop_it_only_where_data_is_doubtful(tmp_path: Path) -> None:
    async with running(configs(tmp_path, 1)) as (only,):
        await settled(only, KV, SERVING)
        await alarm(only, "ACTIVATE", NOSPACE)
        assert await check(only, KV) == SERVING
        await alarm(only, "ACTIVATE", CORRUPT)
        assert await check(only, KV) == NOT_SERVING
        await alarm(only, "DEACTIVATE", CORRUPT)
        assert await check(only, KV) == SERVING


async def test_who_watches_hears_that_the_member_stops(tmp_path: Path) -> None:
    seen: list[int] = []
    async with running(configs(tmp_path, 1)) as (only,):
        await settled(only, "", SERVING)
        watching = asyncio.create_task(watch(only, seen))
        await until(lambda: seen == [SERVING])
        await only.server.services.stop()
        await watching
    assert seen == [SERVING, NOT_SERVING]


async def test_a_member_serves_once_it_has_what_was_committed_when_it_started() -> None:
    class Slow(FakeNode):
        """Its first read barriers end without a leader, the next waits until it has caught up."""

        caught_up = asyncio.Event()

        async def read_barrier(self) -> int:
            await super().read_barrier()
            await self.caught_up.wait()
            return 7

    node = Slow()
    node.failures = [connect_kv.errors.NoLeader(), connect_kv.errors.OutcomeUnknown()]
    executor = CommandExecutor(node, cluster_id=1, member_id=1, revision=lambda: 1)
    health = Health(executor, alarms=frozenset, is_learner=lambda: False)
    running = asyncio.create_task(health.run())
    await until(lambda: node.barriers)
    assert not health.serving(KV)
    node.caught_up.set()
    await running
    assert health.serving(KV)
