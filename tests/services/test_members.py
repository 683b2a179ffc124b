"""One member and three, end to end: what a client of the etcd API sees, by path and bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from connect_kv.errors import RefusedToStart, StorageInUse
from connect_kv.framework.replicated import Replicated, command, query
from connect_kv.frontend.grpc.reflection import REFLECTION_NAMES
from connect_kv.rpc import (
    cluster_pb2,
    command_pb2,
    kv_pb2,
    lease_pb2,
    machine_pb2,
    maintenance_pb2,
    session_pb2,
    watch_pb2,
)
from connect_kv.server.composition import KvServer
from connect_kv.statemachine.hosted import ReplicatedMachine
from tests.services.cluster import Member, agree, configs, running
from tests.services.conftest import StreamCall, listed, next_of, streaming, until

KV = "/etcdserverpb.KV"


class Counter(Replicated):
    def __init__(self) -> None:
        self.total = 0

    @command
    def increment(self, by: int = 1) -> int:
        if by < 0:
            raise ValueError("only upwards")
        self.total += by
        return self.total

    @query
    def value(self) -> int:
        return self.total


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Member]:
    async with running(configs(tmp_path, 1), [{"counter": ReplicatedMachine(Counter())}]) as (member,):
        yield member


async def put(member: Member, key: bytes, value: bytes, lease: int = 0) -> kv_pb2.PutResponse:
    request = kv_pb2.PutRequest(key=key, value=value, lease=lease)
    return await member.call(f"{KV}/Put", request, kv_pb2.PutResponse)


async def get(member: Member, key: bytes, **options: object) -> kv_pb2.RangeResponse:
    request = kv_pb2.RangeRequest(key=key, **options)  # type: ignore[arg-type]
    return await member.call(f"{KV}/Range", request, kv_pb2.RangeResponse)


async def test_put_range_delete_and_txn(one: Member) -> None:
    first = await put(one, b"a", b"1")
    assert first.header.cluster_id
    assert first.header.member_id == one.server.node.identity.node_id
    assert first.header.raft_term >= 1
    assert first.header.revision == 2
    found = await get(one, b"a")
    assert [(pair.key, pair.value, pair.version) for pair in found.kvs] == [(b"a", b"1", 1)]
    assert (found.count, found.header.revision, found.header.member_id) == (1, 2, first.header.member_id)
    txn = kv_pb2.TxnRequest(
        compare=[kv_pb2.Compare(key=b"a", target=kv_pb2.Compare.VALUE, value=b"1")],
        success=[
            kv_pb2.RequestOp(request_put=kv_pb2.PutRequest(key=b"b", value=b"2")),
            kv_pb2.RequestOp(request_range=kv_pb2.RangeRequest(key=b"b")),
        ],
    )
    answer = await one.call(f"{KV}/Txn", txn, kv_pb2.TxnResponse)
    assert answer.succeeded
    assert answer.header.revision == 3
    assert answer.responses[1].response_range.kvs[0].value == b"2"
    reading = kv_pb2.TxnRequest(success=[kv_pb2.RequestOp(request_range=kv_pb2.RangeRequest(key=b"a"))])
    answer = await one.call(f"{KV}/Txn", reading, kv_pb2.TxnResponse)
    assert answer.header.revision == 3
    assert answer.header.member_id
    gone = await one.call(
        f"{KV}/DeleteRange", kv_pb2.DeleteRangeRequest(key=b"a", range_end=b"z"), kv_pb2.DeleteRangeResponse
    )
    assert (gone.deleted, gone.header.revision) == (2, 4)
    compaction = kv_pb2.CompactionRequest(revision=3, physical=True)
    assert (await one.call(f"{KV}/Compact", compaction, kv_pb2.CompactionResponse)).header.revision == 4
    with pytest.raises(grpc.aio.AioRpcError, match="required revision has been compacted"):
        await get(one, b"a", revision=2)


async def test_a_large_range_can_be_streamed(one: Member) -> None:
    for number in range(5):
        await put(one, b"k%d" % number, b"v" * 300_000)
    request = kv_pb2.RangeRequest(key=b"k", range_end=b"l").SerializeToString()
    answers = await listed(one.channel, f"{KV}/RangeStream", request, kv_pb2.RangeStreamResponse)
    chunks = [answer.range_response for answer in answers]
    assert len(chunks) > 1
    assert sum(len(chunk.kvs) for chunk in chunks) == 5
    assert chunks[-1].count == 5
    assert chunks[-1].header.member_id
    whole = await get(one, b"k", range_end=b"l")
    assert [pair.key for chunk in chunks for pair in chunk.kvs] == [pair.key for pair in whole.kvs]


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (kv_pb2.PutRequest(), "etcdserver: key is not provided"),
        (kv_pb2.PutRequest(key=b"k", value=b"x" * 1_600_000), "etcdserver: request is too large"),
        (kv_pb2.PutRequest(key=b"k", ignore_value=True), "etcdserver: key not found"),
    ],
)
async def test_a_bad_request_is_refused_with_etcds_text(
    one: Member, request_: kv_pb2.PutRequest, text: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await one.call(f"{KV}/Put", request_, kv_pb2.PutResponse)
    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, text)


async def test_watch_sees_history_and_what_comes(one: Member) -> None:
    await put(one, b"w1", b"1")
    call = streaming(one.channel, "/etcdserverpb.Watch/Watch")
    create = watch_pb2.WatchCreateRequest(key=b"w", range_end=b"x", start_revision=2)
    await call.write(watch_pb2.WatchRequest(create_request=create).SerializeToString())
    await call.done_writing()  # a client that only listens from now on
    created = await next_of(call, watch_pb2.WatchResponse)
    assert created.created
    assert created.header.cluster_id
    old = await next_of(call, watch_pb2.WatchResponse)
    assert [event.kv.key for event in old.events] == [b"w1"]
    await put(one, b"w2", b"2")
    new = await next_of(call, watch_pb2.WatchResponse)
    assert [(event.kv.key, event.kv.mod_revision) for event in new.events] == [(b"w2", 3)]
    call.cancel()


async def test_leases_are_granted_kept_alive_and_revoked(one: Member) -> None:
    lease = "/etcdserverpb.Lease"
    granted = await one.call(
        f"{lease}/LeaseGrant", lease_pb2.LeaseGrantRequest(TTL=60), lease_pb2.LeaseGrantResponse
    )
    assert granted.ID > 0
    assert granted.TTL == 60
    await put(one, b"leased", b"", lease=granted.ID)
    call = streaming(one.channel, f"{lease}/LeaseKeepAlive")
    for asked in (granted.ID, 12345, granted.ID):
        await call.write(lease_pb2.LeaseKeepAliveRequest(ID=asked).SerializeToString())
    answers = [await next_of(call, lease_pb2.LeaseKeepAliveResponse) for _ in range(3)]
    assert [(answer.ID, answer.TTL) for answer in answers] == [(granted.ID, 60), (12345, 0), (granted.ID, 60)]
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK
    ttl = await one.call(
        f"{lease}/LeaseTimeToLive",
        lease_pb2.LeaseTimeToLiveRequest(ID=granted.ID, keys=True),
        lease_pb2.LeaseTimeToLiveResponse,
    )
    assert 58 <= ttl.TTL <= 60
    assert (ttl.grantedTTL, list(ttl.keys)) == (60, [b"leased"])
    unknown = await one.call(
        f"{lease}/LeaseTimeToLive", lease_pb2.LeaseTimeToLiveRequest(ID=9), lease_pb2.LeaseTimeToLiveResponse
    )
    assert unknown.TTL == -1
    await one.call(
        f"{lease}/LeaseRevoke", lease_pb2.LeaseRevokeRequest(ID=granted.ID), lease_pb2.LeaseRevokeResponse
    )
    assert not (await get(one, b"leased")).kvs
    left = await one.call(
        f"{lease}/LeaseLeases", lease_pb2.LeaseLeasesRequest(), lease_pb2.LeaseLeasesResponse
    )
    assert not left.leases


async def call_machine(member: Member, method: str, arguments: str, machine: str = "counter") -> str:
    request = machine_pb2.MachineCallRequest(machine=machine, method=method, json=arguments)
    path = "/connect_kv.v1.Machine/Call"
    return (await member.call(path, request, machine_pb2.MachineCallResponse)).json


async def test_a_machine_is_called_with_json(one: Member) -> None:
    assert await call_machine(one, "increment", '{"by": 5}') == "5"
    assert await call_machine(one, "increment", "") == "6"
    assert await call_machine(one, "value", "{}") == "6"
    described = await one.call(
        "/connect_kv.v1.Machine/Describe",
        machine_pb2.MachineDescribeRequest(),
        machine_pb2.MachineDescribeResponse,
    )
    assert [method.name for method in described.machines[0].methods] == ["increment", "value"]


@pytest.mark.parametrize(
    ("machine", "method", "arguments", "code"),
    [
        ("missing", "value", "{}", grpc.StatusCode.NOT_FOUND),
        ("counter", "missing", "{}", grpc.StatusCode.NOT_FOUND),
        ("counter", "increment", '{"by": "five"}', grpc.StatusCode.INVALID_ARGUMENT),
        ("counter", "increment", "{", grpc.StatusCode.INVALID_ARGUMENT),
        ("counter", "increment", '{"by": -1}', grpc.StatusCode.ABORTED),
    ],
)
async def test_a_call_that_cannot_be_is_told(
    one: Member, machine: str, method: str, arguments: str, code: grpc.StatusCode
) -> None:
    await call_machine(one, "increment", "{}")  # so that it is founded
    before = one.server.node.last_applied
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call_machine(one, method, arguments, machine)
    assert raised.value.code() is code
    if code is grpc.StatusCode.ABORTED:
        assert raised.value.details() == "ValueError: only upwards"
        assert ("connect-kv-error-type", "ValueError") in tuple(raised.value.trailing_metadata() or ())
    else:
        assert one.server.node.last_applied == before


async def test_status_members_and_health(one: Member) -> None:
    path = "/etcdserverpb.Maintenance/Status"
    status = await one.call(path, maintenance_pb2.StatusRequest(), maintenance_pb2.StatusResponse)
    assert status.version == "3.6.0"
    assert status.leader == status.header.member_id
    assert status.raftAppliedIndex
    assert status.dbSize
    listed = "/etcdserverpb.Cluster/MemberList"
    request = cluster_pb2.MemberListRequest(linearizable=True)
    (member,) = (await one.call(listed, request, cluster_pb2.MemberListResponse)).members
    assert (member.name, list(member.clientURLs)) == ("n1", [f"http://{one.server.client_address}"])
    health = await one.call(
        "/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(), health_pb2.HealthCheckResponse
    )
    assert health.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("name", REFLECTION_NAMES)
async def test_reflection_answers_under_both_of_its_names(one: Member, name: str) -> None:
    asking = streaming(one.channel, f"/{name}/ServerReflectionInfo")

    async def ask(**request: str) -> reflection_pb2.ServerReflectionResponse:
        await asking.write(reflection_pb2.ServerReflectionRequest(**request).SerializeToString())
        return await next_of(asking, reflection_pb2.ServerReflectionResponse)

    told = await ask(list_services="")
    listed = {service.name for service in told.list_services_response.service}
    assert {"etcdserverpb.KV", "connect_kv.v1.KV", "v3lockpb.Lock", *REFLECTION_NAMES} <= listed
    for service in ("etcdserverpb.KV", "connect_kv.v1.KV", "v3electionpb.Election", "connect_kv.v1.Session"):
        found = await ask(file_containing_symbol=service)
        (text, *_) = found.file_descriptor_response.file_descriptor_proto
        file = descriptor_pb2.FileDescriptorProto.FromString(text)
        assert service in {f"{file.package}.{one.name}" for one in file.service}
    assert (await ask(file_containing_symbol="no.such.Thing")).error_response.error_code == 5
    asking.cancel()


async def test_the_space_alarm_refuses_puts_until_it_is_ended(one: Member) -> None:
    raised = maintenance_pb2.AlarmMember(memberID=7, alarm=maintenance_pb2.NOSPACE)

    async def send(action: str) -> list[maintenance_pb2.AlarmMember]:
        request = maintenance_pb2.AlarmRequest(memberID=7, alarm=maintenance_pb2.NOSPACE)
        request.action = maintenance_pb2.AlarmRequest.AlarmAction.Value(action)
        path = "/etcdserverpb.Maintenance/Alarm"
        answer = await one.call(path, request, maintenance_pb2.AlarmResponse)
        assert answer.header.revision
        return list(answer.alarms)

    assert await send("GET") == []
    assert await send("ACTIVATE") == [raised]
    assert await send("GET") == [raised]
    with pytest.raises(grpc.aio.AioRpcError, match="etcdserver: mvcc: database space exceeded"):
        await put(one, b"a", b"1")
    assert await send("DEACTIVATE") == [raised]
    await put(one, b"a", b"1")


class SessionClient:
    """The session door by hand."""

    def __init__(self, member: Member) -> None:
        self._call: StreamCall = member.channel.stream_stream(
            "/connect_kv.v1.Session/Open",
            request_serializer=session_pb2.SessionRequests.SerializeToString,
            response_deserializer=session_pb2.SessionReplies.FromString,
        )()
        self.id = 0

    async def open(self, session: int = 0) -> None:
        await self._call.write(session_pb2.SessionRequests(session=session))
        first = await self._call.read()
        assert isinstance(first, session_pb2.SessionReplies), await self._call.details()
        assert first.window
        self.id = first.session

    async def send(self, *commands: command_pb2.Command, floor: int = 1) -> dict[int, command_pb2.Result]:
        await self._call.write(session_pb2.SessionRequests(session=self.id, floor=floor, commands=commands))
        results: dict[int, command_pb2.Result] = {}
        while len(results) < len(commands):
            replies = await self._call.read()
            assert isinstance(replies, session_pb2.SessionReplies), await self._call.details()
            results |= {result.number: result for result in replies.results}
        return results

    def close(self) -> None:
        self._call.cancel()

    async def status(self) -> tuple[grpc.StatusCode, str]:
        return await self._call.code(), await self._call.details()


def increment(number: int) -> command_pb2.Command:
    call = command_pb2.MachineCall(machine="counter", method="increment", arguments=b"\x80")
    return command_pb2.Command(number=number, machine_call=call)


async def test_a_session_carries_commands_and_reads_together(one: Member) -> None:
    session = SessionClient(one)
    await session.open()
    results = await session.send(
        command_pb2.Command(number=1, put=kv_pb2.PutRequest(key=b"s", value=b"1")),
        increment(2),
        command_pb2.Command(number=3, put=kv_pb2.PutRequest()),
        command_pb2.Command(
            number=4, machine_query=command_pb2.MachineCall(machine="counter", method="value")
        ),
        command_pb2.Command(number=5, session_open=command_pb2.SessionOpen()),
        command_pb2.Command(number=6, range=kv_pb2.RangeRequest(key=b"s", serializable=True)),
    )
    assert results[1].put.header.revision == 2
    assert results[2].machine_call.value == b"\x01"
    assert results[3].failure.message == "etcdserver: key is not provided"
    assert results[4].HasField("failure"), "msgpack arguments are required"
    assert results[5].failure.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert results[6].HasField("range")
    read = command_pb2.Command(number=7, range=kv_pb2.RangeRequest(key=b"s"))
    assert (await session.send(read))[7].range.kvs[0].value == b"1"
    session.close()


async def test_a_resumed_session_runs_nothing_twice(one: Member) -> None:
    session = SessionClient(one)
    await session.open()
    assert (await session.send(increment(1), increment(2)))[2].machine_call.value == b"\x02"
    session.close()
    again = SessionClient(one)
    await again.open(session.id)
    results = await again.send(increment(1), increment(2), increment(3))
    assert [results[number].machine_call.value for number in (1, 2, 3)] == [b"\x01", b"\x02", b"\x03"]
    again.close()


async def test_an_unknown_session_is_told_that_it_expired(one: Member) -> None:
    session = SessionClient(one)
    with pytest.raises(grpc.aio.AioRpcError):
        await session.open(999)
    code, text = await session.status()
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "session 999 has expired" in text


async def test_state_survives_a_restart(tmp_path: Path) -> None:
    (config,) = configs(tmp_path, 1)
    async with running([config], [{"counter": ReplicatedMachine(Counter())}]) as (member,):
        await put(member, b"kept", b"1")
        await call_machine(member, "increment", '{"by": 3}')
    async with running([config], [{"counter": ReplicatedMachine(Counter())}]) as (member,):
        assert (await get(member, b"kept")).kvs[0].value == b"1"
        assert await call_machine(member, "value", "") == "3"


async def test_a_directory_in_use_and_a_port_in_use_are_refused(one: Member, tmp_path: Path) -> None:
    with pytest.raises(StorageInUse):
        await KvServer(one.config).start()
    (other,) = configs(tmp_path / "other", 1)
    taken = replace(other, listen_client=one.server.client_address)
    with pytest.raises(RefusedToStart, match=one.server.client_address):
        await KvServer(taken).start()


async def test_three_members_serve_each_request_alike(tmp_path: Path) -> None:
    machines = [{"counter": ReplicatedMachine(Counter())} for _ in range(3)]
    # These calls are made once: an election for want of processor time would leave one of unknown outcome.
    wanted = [replace(one, heartbeat_ms=100, election_ms=2000) for one in configs(tmp_path, 3)]
    async with running(wanted, machines) as members:
        for number, member in enumerate(members):
            await put(member, b"key%d" % number, b"%d" % number)
            await call_machine(member, "increment", "")
        for member in members:
            found = await get(member, b"key", range_end=b"kez")
            assert [pair.value for pair in found.kvs] == [b"0", b"1", b"2"]
            assert found.header.member_id == member.server.node.identity.node_id
            assert await call_machine(member, "value", "") == "3"
        await asyncio.gather(*(put(members[n % 3], b"many%d" % n, b"") for n in range(60)))
        assert (await get(members[0], b"many", range_end=b"manz", count_only=True)).count == 60


async def test_writes_resume_when_the_leader_leaves(tmp_path: Path) -> None:
    """It hands over before it stops, so the others go on at once."""
    wanted = configs(tmp_path, 3)
    async with running(wanted) as members:
        await put(members[0], b"a", b"1")
        leader = next(member for member in members if member.server.node.is_leader)
        rest = [member for member in members if member is not leader]
        stopping = asyncio.create_task(leader.server.stop())
        for number in range(20):
            await put(rest[number % 2], b"b%d" % number, b"")
        await stopping
        await until(lambda: agree(rest))
        again = Member(leader.config)
        await again.start()
        try:
            found = await get(again, b"b", range_end=b"c", count_only=True)
            assert found.count == 20
        finally:
            await again.stop()
