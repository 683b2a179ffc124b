"""A user with few rights walks through everything there is to call, by gRPC and by the gateway.

al may read and write below ``k``, and ask the machine ``counter``. Every method of every service is in the
list: a new one fails here until somebody says what such a user gets of it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message

from connect_kv import Client, Replicated, command, query
from connect_kv.client.auth import QUERY
from connect_kv.frontend.grpc.services import SERVICES
from connect_kv.rpc import auth_pb2 as auth
from connect_kv.rpc import cluster_pb2 as cluster
from connect_kv.rpc import dashboard_pb2 as dashboard
from connect_kv.rpc import election_pb2 as election
from connect_kv.rpc import kv_pb2 as kv
from connect_kv.rpc import lease_pb2 as lease
from connect_kv.rpc import lock_pb2 as lock
from connect_kv.rpc import machine_pb2 as machine
from connect_kv.rpc import maintenance_pb2 as maintenance
from connect_kv.rpc.command_pb2 import Command
from connect_kv.rpc.session_pb2 import SessionReplies, SessionRequests
from connect_kv.rpc.watch_pb2 import WatchCreateRequest, WatchRequest, WatchResponse
from connect_kv.server.composition import KvServer
from connect_kv.statemachine.hosted import ReplicatedMachine
from tests.auth.conftest import PASSWORDS, guarded
from tests.gateway import raw

DENIED = "permission denied"
ACTIVATE, DEACTIVATE = maintenance.AlarmRequest.ACTIVATE, maintenance.AlarmRequest.DEACTIVATE
RETIRE = machine.MachineDecideRequest.RETIRE
MINE, THEIRS = 71, 72
"""Leases: on the first hangs a key of al's, on the second one that is not, too."""
ALL = b"\x00"


class Counter(Replicated):
    def __init__(self) -> None:
        self.total = 0

    @command
    def increment(self) -> int:
        self.total += 1
        return self.total

    @query
    def value(self) -> int:
        return self.total


@dataclass(frozen=True)
class Step:
    """One request, and what comes of it."""

    call: str
    request: Message
    refused: str = ""
    """The text; empty: served."""


def get(key: bytes, end: bytes = b"", **more: Any) -> kv.RangeRequest:
    return kv.RangeRequest(key=key, range_end=end, **more)


def reading(key: bytes) -> kv.RequestOp:
    return kv.RequestOp(request_range=get(key))


def writing(key: bytes, **more: Any) -> kv.RequestOp:
    return kv.RequestOp(request_put=kv.PutRequest(key=key, value=b"v", **more))


def within(*operations: kv.RequestOp) -> kv.RequestOp:
    """On a branch that is not taken, of a transaction within another."""
    return kv.RequestOp(request_txn=kv.TxnRequest(failure=operations))


def compared(key: bytes) -> kv.Compare:
    return kv.Compare(key=key, target=kv.Compare.VERSION, result=kv.Compare.GREATER, version=0)


def watching(key: bytes, end: bytes = b"") -> WatchRequest:
    return WatchRequest(create_request=WatchCreateRequest(key=key, range_end=end))


def called(name: str, method: str) -> machine.MachineCallRequest:
    return machine.MachineCallRequest(machine=name, method=method, json="{}")


def leader_of(name: bytes) -> election.LeaderRequest:
    return election.LeaderRequest(name=name)


def led(name: bytes) -> election.LeaderKey:
    return election.LeaderKey(name=name, key=name + b"/1", rev=1, lease=1)


KEYS = [
    Step("KV.Range", get(b"k/1")),
    Step("KV.Range", get(b"k", b"l")),
    Step("KV.Range", get(b"other"), DENIED),
    Step("KV.Range", get(b"other", serializable=True), DENIED),
    Step("KV.Range", get(b"k", b"m"), DENIED),
    Step("KV.Range", get(ALL, ALL, count_only=True), DENIED),
    Step("KV.Range", get(ALL, ALL, keys_only=True, limit=1), DENIED),
    Step("KV.RangeStream", get(b"k", b"l")),
    Step("KV.RangeStream", get(ALL, ALL), DENIED),
    Step("KV.Put", kv.PutRequest(key=b"k/2", value=b"v", prev_kv=True)),
    Step("KV.Put", kv.PutRequest(key=b"other", value=b"v"), DENIED),
    Step("KV.Put", kv.PutRequest(key=b"k/2", lease=THEIRS), DENIED),
    Step("KV.DeleteRange", kv.DeleteRangeRequest(key=b"k/2")),
    Step("KV.DeleteRange", kv.DeleteRangeRequest(key=b"k", range_end=b"m"), DENIED),
    Step("KV.DeleteRange", kv.DeleteRangeRequest(key=b"k", range_end=ALL), DENIED),
    Step("KV.Txn", kv.TxnRequest(compare=[compared(b"k/1")], success=[reading(b"k/1"), writing(b"k/3")])),
    Step("KV.Txn", kv.TxnRequest(compare=[compared(b"other")]), DENIED),
    Step("KV.Txn", kv.TxnRequest(success=[reading(b"k/1")], failure=[reading(b"other")]), DENIED),
    Step("KV.Txn", kv.TxnRequest(success=[within(within(reading(b"other")))]), DENIED),
    Step("KV.Txn", kv.TxnRequest(success=[within(writing(b"other"))]), DENIED),
    Step("KV.Txn", kv.TxnRequest(success=[within(writing(b"k/3", lease=THEIRS))]), DENIED),
    Step("KV.Compact", kv.CompactionRequest(revision=1), DENIED),
    Step("Watch.Watch", watching(b"k/1")),
    Step("Watch.Watch", watching(b"other"), DENIED),
    Step("Watch.Watch", watching(b"k", b"m"), DENIED),
    Step("Watch.Watch", watching(ALL, ALL), DENIED),
]
LEASES = [
    Step("Lease.LeaseGrant", lease.LeaseGrantRequest(TTL=60)),
    Step("Lease.LeaseKeepAlive", lease.LeaseKeepAliveRequest(ID=MINE)),
    Step("Lease.LeaseKeepAlive", lease.LeaseKeepAliveRequest(ID=THEIRS), DENIED),
    Step("Lease.LeaseTimeToLive", lease.LeaseTimeToLiveRequest(ID=THEIRS)),
    Step("Lease.LeaseTimeToLive", lease.LeaseTimeToLiveRequest(ID=MINE, keys=True)),
    Step("Lease.LeaseTimeToLive", lease.LeaseTimeToLiveRequest(ID=THEIRS, keys=True), DENIED),
    Step("Lease.LeaseLeases", lease.LeaseLeasesRequest(), DENIED),
    Step("Lease.LeaseRevoke", lease.LeaseRevokeRequest(ID=THEIRS), DENIED),
    Step("Lease.LeaseRevoke", lease.LeaseRevokeRequest(ID=MINE)),
]
LOCKS = [
    Step("Lock.Lock", lock.LockRequest(name=b"k/lock")),
    Step("Lock.Lock", lock.LockRequest(name=b"other"), DENIED),
    Step("Lock.Unlock", lock.UnlockRequest(key=b"k/lock/1")),
    Step("Lock.Unlock", lock.UnlockRequest(key=b"other/1"), DENIED),
    Step("Election.Campaign", election.CampaignRequest(name=b"k/e", value=b"me")),
    Step("Election.Campaign", election.CampaignRequest(name=b"other", value=b"me"), DENIED),
    Step("Election.Leader", leader_of(b"k/e")),
    Step("Election.Leader", leader_of(b"other"), DENIED),
    Step("Election.Observe", leader_of(b"k/e")),
    # As in etcd it ends without a word; it shows nothing.
    Step("Election.Observe", leader_of(b"other"), "nothing"),
    Step("Election.Proclaim", election.ProclaimRequest(leader=led(b"other"), value=b"v"), DENIED),
    Step("Election.Resign", election.ResignRequest(leader=led(b"other")), DENIED),
]
MACHINES = [
    Step("Machine.Call", called("counter", "value")),
    Step("Machine.Call", called("counter", "increment"), DENIED),
    Step("Machine.Call", called("hidden", "value"), DENIED),
    Step("Machine.Describe", machine.MachineDescribeRequest()),
    Step("Machine.Status", machine.MachineStatusRequest()),
    Step("Machine.Decide", machine.MachineDecideRequest(machine="counter", decision=RETIRE), DENIED),
]
OPERATORS = [
    Step("Cluster.MemberList", cluster.MemberListRequest()),
    Step("Cluster.MemberAdd", cluster.MemberAddRequest(peerURLs=["http://127.0.0.1:1"]), DENIED),
    Step("Cluster.MemberRemove", cluster.MemberRemoveRequest(ID=1), DENIED),
    Step("Cluster.MemberUpdate", cluster.MemberUpdateRequest(ID=1, peerURLs=["http://127.0.0.1:1"]), DENIED),
    Step("Cluster.MemberPromote", cluster.MemberPromoteRequest(ID=1), DENIED),
    Step("Maintenance.Status", maintenance.StatusRequest()),
    Step("Maintenance.Alarm", maintenance.AlarmRequest()),
    Step("Maintenance.Alarm", maintenance.AlarmRequest(action=ACTIVATE, alarm=maintenance.NOSPACE), DENIED),
    Step("Maintenance.Alarm", maintenance.AlarmRequest(action=DEACTIVATE, alarm=maintenance.NOSPACE), DENIED),
    Step("Maintenance.Defragment", maintenance.DefragmentRequest(), DENIED),
    Step("Maintenance.Hash", maintenance.HashRequest(), DENIED),
    Step("Maintenance.HashKV", maintenance.HashKVRequest(), DENIED),
    Step("Maintenance.Snapshot", maintenance.SnapshotRequest(), DENIED),
    Step("Maintenance.MoveLeader", maintenance.MoveLeaderRequest(targetID=1), DENIED),
    Step("Maintenance.Downgrade", maintenance.DowngradeRequest(), DENIED),
]
USERS = [
    Step("Auth.Authenticate", auth.AuthenticateRequest(name="al", password=PASSWORDS["al"])),
    Step("Auth.AuthStatus", auth.AuthStatusRequest(), DENIED),
    Step("Auth.AuthEnable", auth.AuthEnableRequest(), DENIED),
    Step("Auth.AuthDisable", auth.AuthDisableRequest(), DENIED),
    Step("Auth.UserGet", auth.AuthUserGetRequest(name="al")),
    Step("Auth.UserGet", auth.AuthUserGetRequest(name="root"), DENIED),
    Step("Auth.UserGet", auth.AuthUserGetRequest(name="there is none"), DENIED),
    Step("Auth.UserList", auth.AuthUserListRequest(), DENIED),
    Step("Auth.UserAdd", auth.AuthUserAddRequest(name="eve", password="pw"), DENIED),
    Step("Auth.UserDelete", auth.AuthUserDeleteRequest(name="al"), DENIED),
    Step("Auth.UserChangePassword", auth.AuthUserChangePasswordRequest(name="al", password="pw"), DENIED),
    Step("Auth.UserGrantRole", auth.AuthUserGrantRoleRequest(user="al", role="root"), DENIED),
    Step("Auth.UserRevokeRole", auth.AuthUserRevokeRoleRequest(name="al", role="k"), DENIED),
    Step("Auth.RoleGet", auth.AuthRoleGetRequest(role="k")),
    Step("Auth.RoleGet", auth.AuthRoleGetRequest(role="root"), DENIED),
    Step("Auth.RoleGet", auth.AuthRoleGetRequest(role="there is none"), DENIED),
    Step("Auth.RoleList", auth.AuthRoleListRequest(), DENIED),
    Step("Auth.RoleAdd", auth.AuthRoleAddRequest(name="r"), DENIED),
    Step("Auth.RoleDelete", auth.AuthRoleDeleteRequest(role="k"), DENIED),
    Step(
        "Auth.RoleGrantPermission",
        auth.AuthRoleGrantPermissionRequest(name="k", perm=auth.Permission(key=b"other")),
        DENIED,
    ),
    Step("Auth.RoleRevokePermission", auth.AuthRoleRevokePermissionRequest(role="k", key=b"k"), DENIED),
]
DASHBOARD = [
    Step("Dashboard.Overview", dashboard.OverviewRequest()),
    Step("Dashboard.History", dashboard.HistoryRequest()),
    Step("Dashboard.Leases", dashboard.LeasesRequest()),
    Step("Dashboard.Queues", dashboard.QueuesRequest()),
    Step("Dashboard.Query", called("counter", "value")),
    Step("Dashboard.Query", called("counter", "increment"), "a command, not a query"),
    Step("Dashboard.Query", called("hidden", "value"), DENIED),
]
"""What of leases and queues is told: `test_of_leases_and_locks_a_user_sees_what_is_theirs`."""
SESSIONS = [Step("Session.Open", SessionRequests(ttl=60))]
WALK = [*KEYS, *LEASES, *LOCKS, *MACHINES, *OPERATORS, *USERS, *DASHBOARD, *SESSIONS]


def test_every_method_is_walked_through() -> None:
    """But those that ask how this member is, which are for everybody."""
    there = {f"{service.name}.{method.name}" for service in SERVICES for method in service.methods}
    assert {step.call for step in WALK} == there


@asynccontextmanager
async def prepared(tmp_path: Path) -> AsyncIterator[tuple[KvServer, Client, str]]:
    """With root's client, and al's token."""
    machines = {name: ReplicatedMachine(Counter()) for name in ("counter", "hidden")}
    async with guarded(tmp_path, machines) as (server, root):
        await root.auth.grant_machine("k", QUERY, "counter")
        await root.put("other", "secret")
        for number in (MINE, THEIRS):
            await root.grant_lease(600, id=number)
        for number, key in ((MINE, "k/1"), (THEIRS, "other"), (THEIRS, "k/0")):
            await root.put(key, "secret" if key == "other" else "v", lease=number)
        async with grpc.aio.insecure_channel(server.client_address) as channel:
            call: Any = channel.unary_unary("/etcdserverpb.Auth/Authenticate")
            answer = await call(
                auth.AuthenticateRequest(name="al", password=PASSWORDS["al"]).SerializeToString()
            )
            yield server, root, auth.AuthenticateResponse.FromString(answer).token


def path_of(name: str) -> str:
    service, _, method = name.partition(".")
    return f"/connect_kv.v1.{service}/{method}"


async def by_grpc(channel: grpc.aio.Channel, token: str, step: Step) -> str:
    """The text of the refusal; empty if there is none."""
    call: Any = channel.stream_stream(path_of(step.call))
    stream = call(metadata=(("token", token),), timeout=20)
    try:
        await stream.write(step.request.SerializeToString())
        if step.call not in ("Watch.Watch", "Session.Open"):
            await stream.done_writing()
        answer = await stream.read()
    except grpc.aio.AioRpcError as refused:
        return str(refused.details())
    except asyncio.InvalidStateError:
        return str(await stream.details())
    if answer is grpc.aio.EOF:
        return str(await stream.details()) or "nothing"
    stream.cancel()
    if step.call == "Watch.Watch":
        return WatchResponse.FromString(answer).cancel_reason
    return ""


async def by_gateway(port: int, token: str, step: Step) -> str:
    path = path_of(step.call).replace("connect_kv.v1.", "connect_kv/v1/").lower()
    body = MessageToJson(step.request, preserving_proto_field_name=True)
    async with raw.connected(port) as socket:
        asked = await socket.ask("POST", path, body.encode(), {"Authorization": token}, port)
        head = await asked.head()
        if "content-length" in head.headers:
            text = (await asked.reader.readexactly(int(head.headers["content-length"]))).decode()
        else:
            text = (await asked.chunk()).decode()
    if not text:
        return "nothing"
    told = json.loads(text)
    if "error" in told:
        return str(told["error"]["message"] if isinstance(told["error"], dict) else told["error"])
    return str(told.get("result", {}).get("cancel_reason", ""))


@pytest.mark.parametrize("way", ["grpc", "gateway"])
async def test_a_user_with_few_rights(tmp_path: Path, way: str) -> None:
    async with prepared(tmp_path) as (server, root, token):
        before = await root.get("other")
        users = await root.auth.users()
        async with grpc.aio.insecure_channel(server.client_address) as channel:
            found = []
            for step in WALK:
                if way == "grpc":
                    text = await by_grpc(channel, token, step)
                else:
                    text = await by_gateway(server.services.client_port, token, step)
                right = step.refused in text if step.refused else not text
                # What an election of nobody says is no refusal of a right.
                served = not step.refused and DENIED not in text and step.call.startswith("Election.")
                if not (right or served):
                    found.append((step.call, str(step.request).replace("\n", " "), step.refused, text))
            assert not found
        assert await root.get("other") == before, "nothing happened to what is not al's"
        assert await root.auth.users() == users


async def test_within_a_session_it_is_the_same(tmp_path: Path) -> None:
    """And no command but those of clients is taken, whoever sends it."""
    async with prepared(tmp_path) as (server, root, token):
        users = await root.auth.users()
        allowed: list[dict[str, Any]] = [
            {"put": kv.PutRequest(key=b"k/5", value=b"v")},
            {"range": get(b"k/1")},
            {"txn": kv.TxnRequest(success=[reading(b"k/1")])},
            {"delete_range": kv.DeleteRangeRequest(key=b"k/5")},
            {"machine_query": {"machine": "counter", "method": "value", "arguments": b"\x80"}},
        ]
        refused: list[dict[str, Any]] = [
            {"put": kv.PutRequest(key=b"other", value=b"v")},
            {"put": kv.PutRequest(key=b"k/5", lease=THEIRS)},
            {"range": get(b"other")},
            {"range": get(ALL, ALL, serializable=True)},
            {"txn": kv.TxnRequest(failure=[within(writing(b"other"))])},
            {"delete_range": kv.DeleteRangeRequest(key=ALL, range_end=ALL)},
            {"compact": kv.CompactionRequest(revision=1)},
            {"lease_revoke": lease.LeaseRevokeRequest(ID=THEIRS)},
            {"lease_renew": {"ids": [THEIRS]}},
            {"lease_time_to_live": lease.LeaseTimeToLiveRequest(ID=THEIRS, keys=True)},
            {"lease_leases": lease.LeaseLeasesRequest()},
            {"machine_call": {"machine": "counter", "method": "increment", "arguments": b"\x80"}},
            {"machine_query": {"machine": "hidden", "method": "value", "arguments": b"\x80"}},
            {"lease_expire": {"items": [{"id": THEIRS}]}},
            {"alarm": maintenance.AlarmRequest(action=ACTIVATE, alarm=maintenance.NOSPACE)},
            {"member_publish": {}},
            {"machine_change": {}},
            {"auth": auth.AuthChange(user_add=auth.AuthUserAddRequest(name="eve"))},
            {"auth": auth.AuthChange(disable=auth.AuthDisableRequest())},
            {"session_open": {}},
            {"session_batch": {}},
        ]
        async with grpc.aio.insecure_channel(server.client_address) as channel:
            for asked, wanted in [(one, False) for one in allowed] + [(one, True) for one in refused]:
                assert await in_session(channel, token, Command(number=1, **asked)) is wanted, asked
        assert (await root.get("other")).value == b"secret"  # type: ignore[union-attr]
        assert await root.auth.users() == users
        assert (await root.auth.status())[0]
        assert not await root.maintenance.alarms()


async def in_session(channel: grpc.aio.Channel, token: str, command: Command) -> bool:
    """Whether a command is refused, alone in a session of its own."""
    call: Any = channel.stream_stream(path_of("Session.Open"))
    stream = call(metadata=(("token", token),), timeout=20)
    try:
        await stream.write(SessionRequests(ttl=60).SerializeToString())
        opened = SessionReplies.FromString(await stream.read())
        assert opened.session
        await stream.write(SessionRequests(commands=[command]).SerializeToString())
        answer = await stream.read()
        if answer is grpc.aio.EOF:
            return await stream.code() is not grpc.StatusCode.OK
        (result,) = SessionReplies.FromString(answer).results
        return result.HasField("failure")
    except grpc.aio.AioRpcError:
        return True
    finally:
        stream.cancel()


async def test_a_session_of_somebody_else_is_not_theirs_to_use(tmp_path: Path) -> None:
    async with prepared(tmp_path) as (server, root, token):
        await root.put("mine", "v")
        session = root_session(server)
        async with grpc.aio.insecure_channel(server.client_address) as channel:
            call: Any = channel.stream_stream(path_of("Session.Open"))
            stream = call(metadata=(("token", token),), timeout=20)
            await stream.write(SessionRequests(session=session, ttl=60).SerializeToString())
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stream.read()
            assert refused.value.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND)


def root_session(server: KvServer) -> int:
    """The one that root's client has opened."""
    table: Any = server.host.sessions
    return int(next(iter(table._sessions)))


async def test_of_leases_and_locks_a_user_sees_what_is_theirs(tmp_path: Path) -> None:
    """That there are others, and not what hangs on them."""
    async with prepared(tmp_path) as (server, root, token):
        await root.put(f"k/lock/{MINE:x}", "", lease=MINE)
        await root.put(f"other/{THEIRS:x}", "", lease=THEIRS)
        async with grpc.aio.insecure_channel(server.client_address) as channel:

            async def ask(name: str, request: Message) -> bytes:
                call: Any = channel.unary_unary(path_of(f"Dashboard.{name}"))
                answer: bytes = await call(request.SerializeToString(), metadata=(("token", token),))
                return answer

            leases = dashboard.LeasesResponse.FromString(await ask("Leases", dashboard.LeasesRequest()))
            found = {one.ID: (list(one.keys), one.count) for one in leases.leases}
            assert found == {MINE: ([b"k/1", b"k/lock/47"], 2), THEIRS: ([], 3)}
            queues = dashboard.QueuesResponse.FromString(await ask("Queues", dashboard.QueuesRequest()))
            assert [one.name for one in queues.queues] == [b"k/lock"]
