"""Where etcd 3.6 answers otherwise than 3.5: as docs/api.md says row by row."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from connect_kv.kv.validation import check_txn
from connect_kv.rpc import cluster_pb2, kv_pb2, lease_pb2, maintenance_pb2, watch_pb2
from tests.services.cluster import Member, configs, running
from tests.services.conftest import listed, next_of, streaming, unary

MAINTENANCE = "/etcdserverpb.Maintenance"


@pytest.fixture
async def only(tmp_path: Path) -> AsyncIterator[Member]:
    async with running(configs(tmp_path, 1)) as (member,):
        yield member


async def put(member: Member, key: bytes = b"k", value: bytes = b"v") -> int:
    request = kv_pb2.PutRequest(key=key, value=value)
    return (await member.call("/etcdserverpb.KV/Put", request, kv_pb2.PutResponse)).header.revision


async def hash_kv(member: Member, revision: int) -> maintenance_pb2.HashKVResponse:
    request = maintenance_pb2.HashKVRequest(revision=revision)
    return await member.call(f"{MAINTENANCE}/HashKV", request, maintenance_pb2.HashKVResponse)


async def test_status_tells_what_is_new_in_3_6(only: Member) -> None:
    alarm = maintenance_pb2.AlarmRequest(
        action=maintenance_pb2.AlarmRequest.ACTIVATE, memberID=5, alarm=maintenance_pb2.NOSPACE
    )
    await only.call(f"{MAINTENANCE}/Alarm", alarm, maintenance_pb2.AlarmResponse)
    path = f"{MAINTENANCE}/Status"
    status = await only.call(path, maintenance_pb2.StatusRequest(), maintenance_pb2.StatusResponse)
    assert (status.version, status.storageVersion) == ("3.6.0", "3.6.0")
    assert status.dbSizeQuota == 2 << 30, "the default is filled in"
    assert status.HasField("downgradeInfo")
    assert status.downgradeInfo == maintenance_pb2.DowngradeInfo()
    assert list(status.errors) == ["memberID:5 alarm:NOSPACE"]


async def test_hash_kv_tells_the_revision_asked_for(only: Member) -> None:
    for _ in range(5):
        last = await put(only)
    current = await hash_kv(only, 0)
    assert (current.hash_revision, current.compact_revision) == (last, -1)
    for revision in (-1, -(2**63)):
        negative = await hash_kv(only, revision)
        assert (negative.hash, negative.hash_revision) == (current.hash, revision)
    assert (await hash_kv(only, 3)).hash_revision == 3
    compact = kv_pb2.CompactionRequest(revision=4, physical=True)
    await only.call("/etcdserverpb.KV/Compact", compact, kv_pb2.CompactionResponse)
    at = await hash_kv(only, 4)
    assert (at.hash_revision, at.compact_revision) == (4, 4), "the hash is of what the compaction left"
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await hash_kv(only, 3)
    assert raised.value.code() is grpc.StatusCode.OUT_OF_RANGE


async def test_every_message_of_a_snapshot_has_the_storage_version(only: Member) -> None:
    await put(only, value=bytes(200_000))
    path = f"{MAINTENANCE}/Snapshot"
    parts = await listed(only.channel, path, b"", maintenance_pb2.SnapshotResponse)
    assert {part.version for part in parts} == {"3.6.0"}
    assert (parts[-1].remaining_bytes, len(parts[-1].blob)) == (0, 32)


@pytest.mark.parametrize("field", ["sort_order", "sort_target"])
async def test_an_unknown_sort_is_refused_in_a_transaction_too(field: str) -> None:
    number: Any = 7
    read = kv_pb2.RangeRequest(key=b"k", **{field: number})
    nested = kv_pb2.TxnRequest(failure=[kv_pb2.RequestOp(request_range=read)])
    for request in (nested, kv_pb2.TxnRequest(success=[kv_pb2.RequestOp(request_txn=nested)])):
        with pytest.raises(Exception, match="etcdserver: invalid sort option"):
            check_txn(request)


async def test_a_bad_token_is_ignored_while_authentication_is_off(only: Member) -> None:
    for name in ("token", "authorization"):
        await unary(only.channel, "/etcdserverpb.KV/Put")(
            kv_pb2.PutRequest(key=b"k").SerializeToString(), metadata=((name, "Bearer nonsense"),)
        )
    call = streaming(only.channel, "/etcdserverpb.Watch/Watch", ("token", "nonsense"))
    create = watch_pb2.WatchRequest(create_request=watch_pb2.WatchCreateRequest(key=b"k"))
    await call.write(create.SerializeToString())
    assert (await next_of(call, watch_pb2.WatchResponse)).created


async def test_keys_without_values_keep_their_lease_as_in_3_6(only: Member) -> None:
    grant = lease_pb2.LeaseGrantRequest(TTL=100)
    lease = await only.call("/etcdserverpb.Lease/LeaseGrant", grant, lease_pb2.LeaseGrantResponse)
    request = kv_pb2.PutRequest(key=b"k", value=b"v", lease=lease.ID)
    await only.call("/etcdserverpb.KV/Put", request, kv_pb2.PutResponse)
    read = kv_pb2.RangeRequest(key=b"k", keys_only=True)
    (found,) = (await only.call("/etcdserverpb.KV/Range", read, kv_pb2.RangeResponse)).kvs
    assert (found.value, found.lease) == (b"", lease.ID)


async def test_membership_calls_that_change_nothing_are_answered(only: Member) -> None:
    """Right after one another: in etcd 3.5 the second could hang."""
    update = cluster_pb2.MemberUpdateRequest(
        ID=only.server.node.identity.node_id, peerURLs=[f"http://{only.config.peer_address}"]
    )
    for _ in range(3):
        answer = await only.call(
            "/etcdserverpb.Cluster/MemberUpdate", update, cluster_pb2.MemberUpdateResponse
        )
        assert len(answer.members) == 1


async def test_compressed_requests_are_taken(only: Member) -> None:
    request = kv_pb2.PutRequest(key=b"k", value=bytes(100_000)).SerializeToString()
    call: Any = only.channel.unary_unary("/etcdserverpb.KV/Put")
    await call(request, compression=grpc.Compression.Gzip)
    read = kv_pb2.RangeRequest(key=b"k")
    (found,) = (await only.call("/etcdserverpb.KV/Range", read, kv_pb2.RangeResponse)).kvs
    assert found.value == bytes(100_000)
