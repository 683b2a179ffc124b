"""A lone member adds another: answered at once, and what waits then is told for whom."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc

from connect_kv.config import InitialMember, ServerConfig
from connect_kv.rpc import cluster_pb2, kv_pb2
from connect_kv.testing.ports import free_ports
from tests.doors import GRPC_SERVER
from tests.services.cluster import Member, configs, running
from tests.services.conftest import until
from tests.services.test_lagging import probe
from tests.services.test_outage import refused, told

CLUSTER = "/etcdserverpb.Cluster"


async def add(member: Member, address: str, *, learner: bool = False) -> cluster_pb2.MemberAddResponse:
    request = cluster_pb2.MemberAddRequest(peerURLs=[f"http://{address}"], isLearner=learner)
    return await member.call(f"{CLUSTER}/MemberAdd", request, cluster_pb2.MemberAddResponse)


async def test_a_voter_is_added_to_one_member_at_once_and_then_waited_for(tmp_path: Path) -> None:
    (wanted,) = configs(tmp_path, 1)
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    async with running([wanted]) as (first,):
        first.server.services.executor.time_limit = 2.0
        begun = asyncio.get_running_loop().time()
        added = await add(first, address)
        assert asyncio.get_running_loop().time() - begun < 1.0
        assert [(one.ID == added.member.ID, one.name) for one in added.members if not one.name] == [
            (True, "")
        ]
        listed = await first.call(
            f"{CLUSTER}/MemberList", cluster_pb2.MemberListRequest(), cluster_pb2.MemberListResponse
        )
        assert sorted(one.name for one in listed.members) == ["", "n1"]

        why = f"1 of 2 voters answers, 2 needed; {address} has never been seen"
        put = kv_pb2.PutRequest(key=b"k", value=b"v")
        code, text = await refused(first.call("/etcdserverpb.KV/Put", put, kv_pb2.PutResponse))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert why in text
        await until(lambda: first.server.node.leader_id is None)
        assert f"no leader: {why}" in await told(first)
        status, body = await probe(first, "/readyz")
        assert status == 503
        assert why in body
        # As etcd: nothing can be changed before the second has started, not even back.
        code, text = await refused(add(first, "127.0.0.1:1"))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert text == "etcdserver: re-configuration failed due to not enough started members"
        code, text = await refused(add(first, "127.0.0.1:1", learner=True))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert text == f"etcdserver: unhealthy cluster: no leader: {why}"
        remove = cluster_pb2.MemberRemoveRequest(ID=added.member.ID)
        call = first.call(f"{CLUSTER}/MemberRemove", remove, cluster_pb2.MemberRemoveResponse)
        assert await refused(call) == (code, text)

        second = Member(
            ServerConfig(
                name="n2",
                data_dir=tmp_path / "n2",
                listen_client="127.0.0.1:0",
                listen_peer=address,
                listen_http="127.0.0.1:0",
                grpc_server=GRPC_SERVER,
                initial_cluster=(
                    InitialMember(name="n1", peer_address=wanted.listen_peer),
                    InitialMember(name="n2", peer_address=address),
                ),
                initial_cluster_state="existing",
                heartbeat_ms=40,
                election_ms=400,
                tick_ms=20,
            )
        )
        await second.start()
        try:
            await first.call("/etcdserverpb.KV/Put", put, kv_pb2.PutResponse)
            await until(lambda: len(second.server.host.cluster.members) == 2)
            assert await told(second) == []
        finally:
            await second.stop()
