"""A cluster that cannot commit says why: in Status, to probes, and to each call whose time ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from connect_kv.rpc import cluster_pb2, kv_pb2, maintenance_pb2
from tests.services.cluster import Member, configs, running
from tests.services.conftest import until
from tests.services.test_lagging import probe

WHY = "1 of 3 voters answers, 2 needed; n2, n3 refuse connections"


async def told(member: Member) -> list[str]:
    answer = await member.call(
        "/etcdserverpb.Maintenance/Status", maintenance_pb2.StatusRequest(), maintenance_pb2.StatusResponse
    )
    return list(answer.errors)


async def refused(call: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call  # type: ignore[misc]
    return raised.value.code(), raised.value.details() or ""


async def test_the_last_of_three_says_who_is_missing(tmp_path: Path) -> None:
    async with running(configs(tmp_path, 3)) as members:
        last, *others = members
        assert await told(last) == []
        await asyncio.gather(*(one.server.stop() for one in others))
        last.server.services.executor.time_limit = 1.0
        try:
            await until(lambda: last.server.services.executor.why() == f"no leader: {WHY}")
        except TimeoutError:
            pytest.fail(last.server.services.executor.why())
        assert await told(last) == ["etcdserver: no leader", f"no leader: {WHY}"]

        put = last.call("/etcdserverpb.KV/Put", kv_pb2.PutRequest(key=b"k"), kv_pb2.PutResponse)
        unavailable = (grpc.StatusCode.UNAVAILABLE, f"etcdserver: no leader: {WHY}")
        assert await refused(put) == unavailable
        get = last.call("/etcdserverpb.KV/Range", kv_pb2.RangeRequest(key=b"k"), kv_pb2.RangeResponse)
        assert await refused(get) == unavailable
        add = cluster_pb2.MemberAddRequest(peerURLs=["http://127.0.0.1:1"])
        change = last.call("/etcdserverpb.Cluster/MemberAdd", add, cluster_pb2.MemberAddResponse)
        code, text = await refused(change)
        assert (code, text) == (
            grpc.StatusCode.UNAVAILABLE,
            f"etcdserver: unhealthy cluster: no leader: {WHY}",
        )

        status, body = await probe(last, "/readyz")
        assert status == 503
        assert WHY in body
