"""No right is judged by what is old: a member that is behind others judges again behind its read barrier."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from connect_kv.frontend.grpc.router import RpcFailed
from connect_kv.rpc import auth_pb2 as auth
from connect_kv.rpc import cluster_pb2, election_pb2, kv_pb2, lease_pb2, maintenance_pb2
from connect_kv.rpc.command_pb2 import Command
from connect_kv.rpc.kv_pb2 import PutRequest, RangeRequest, TxnRequest
from connect_kv.rpc.lease_pb2 import LeaseGrantRequest, LeaseRevokeRequest
from connect_kv.rpc.session_pb2 import SessionReplies, SessionRequests
from connect_kv.storage.memory import MemoryDisk
from connect_kv.storage.overlay import Overlay
from tests.audit.test_audit import Wire
from tests.auth.test_access import enable
from tests.services.batches import Failed, calls, together
from tests.services.cluster import Member, configs, running
from tests.services.conftest import next_of, streaming

CERTIFICATE = (":certificate-name", "al")


def changes(tmp_path: Path) -> Overlay:
    return Overlay(MemoryDisk(random.Random(1)).open(tmp_path / "beside"))


async def prepared(member: Member, *, root: bool = False) -> None:
    """A user al with everything on keys, or everything at all."""
    grant = auth.AuthRoleGrantPermissionRequest(name="r")
    grant.perm.key, grant.perm.range_end = b"\x00", b"\x00"
    grant.perm.permType = auth.Permission.READWRITE
    requests: list[tuple[str, Any]] = [
        ("UserAdd", auth.AuthUserAddRequest(name="al", password="pw")),
        ("RoleAdd", auth.AuthRoleAddRequest(name="r")),
        ("RoleGrantPermission", grant),
        ("UserGrantRole", auth.AuthUserGrantRoleRequest(user="al", role="root" if root else "r")),
    ]
    for name, request in requests:
        await member.call(f"/etcdserverpb.Auth/{name}", request, auth.AuthRoleAddResponse)
    await enable(member)


def lagging(member: Member, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the cluster knows already, this member learns behind its next barrier: that there is no al."""
    executor, table, overlay = member.server.services.executor, member.server.host.auth, changes(tmp_path)

    def learn() -> None:
        if "al" in table.users:
            table.apply(auth.AuthChange(user_delete=auth.AuthUserDeleteRequest(name="al")), 99, overlay)

    barrier, begin = executor.barrier, executor.begin_barrier

    def late() -> Awaitable[int]:
        async def wait() -> int:
            index = await barrier()
            learn()
            return index

        return wait()

    def late_together(count: int, done: Callable[[int], object], failed: Any) -> None:
        def learned(index: int) -> None:
            learn()
            done(index)

        begin(count, learned, failed)

    monkeypatch.setattr(executor, "barrier", late)
    monkeypatch.setattr(executor, "begin_barrier", late_together)


READS: list[tuple[str, Message]] = [
    ("KV.Range", RangeRequest(key=b"k")),
    ("KV.Txn", TxnRequest(success=[kv_pb2.RequestOp(request_range=RangeRequest(key=b"k"))])),
    ("Election.Leader", election_pb2.LeaderRequest(name=b"k")),
    ("Lease.LeaseTimeToLive", lease_pb2.LeaseTimeToLiveRequest(ID=1)),
    ("Lease.LeaseLeases", lease_pb2.LeaseLeasesRequest()),
    ("Cluster.MemberList", cluster_pb2.MemberListRequest(linearizable=True)),
    ("Maintenance.Alarm", maintenance_pb2.AlarmRequest()),
    ("Auth.UserGet", auth.AuthUserGetRequest(name="al")),
    ("Auth.UserList", auth.AuthUserListRequest()),
    ("Auth.RoleGet", auth.AuthRoleGetRequest(role="r")),
    ("Auth.RoleList", auth.AuthRoleListRequest()),
    ("Auth.AuthStatus", auth.AuthStatusRequest()),
    ("Cluster.MemberRemove", cluster_pb2.MemberRemoveRequest(ID=5)),
]


@pytest.mark.parametrize(("name", "request_"), READS, ids=[name for name, _ in READS])
async def test_a_read_is_judged_by_what_is_behind_its_barrier(
    name: str, request_: Message, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (config,) = configs(tmp_path, 1)
    async with running([config]) as (member,):
        await prepared(member, root=True)
        lagging(member, monkeypatch, tmp_path)
        route = member.server.services.router.route(f"/connect_kv.v1.{name.replace('.', '/')}")
        with pytest.raises(RpcFailed) as failed:
            await route.unary(request_.SerializeToString(), (CERTIFICATE,))
        assert failed.value.status.text in (
            "etcdserver: permission denied",
            "etcdserver: user name not found",
        )


async def test_gets_that_come_together_and_those_of_a_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (config,) = configs(tmp_path, 1)
    async with running([config]) as (member,):
        await prepared(member)
        router = member.server.services.router
        with monkeypatch.context() as patch:
            lagging(member, patch, tmp_path)
            (outcome,) = await together(
                router.route("/connect_kv.v1.KV/Range"), calls([RangeRequest(key=b"k")], (CERTIFICATE,))
            )
            assert outcome == Failed(7, "etcdserver: permission denied")
        readd = auth.AuthChange(user_add=auth.AuthUserAddRequest(name="al"))
        member.server.host.auth.apply(readd, 99, changes(tmp_path))
        give = auth.AuthChange(user_grant_role=auth.AuthUserGrantRoleRequest(user="al", role="r"))
        member.server.host.auth.apply(give, 99, changes(tmp_path))
        lagging(member, monkeypatch, tmp_path)
        commands = [
            Command(number=1, range=RangeRequest(key=b"k")),
            Command(number=2, range=RangeRequest(key=b"k", limit=3)),
        ]
        wire = Wire(SessionRequests(ttl=60), SessionRequests(commands=commands), metadata=(CERTIFICATE,))
        await router.route("/connect_kv.v1.Session/Open").stream(wire)
        results = [one for data in wire.answers for one in SessionReplies.FromString(data).results]
        assert [one.failure.message for one in results] == ["etcdserver: permission denied"] * 2


async def test_an_observe_ends_with_the_right_it_stands_on(tmp_path: Path) -> None:
    (config,) = configs(tmp_path, 1)
    async with running([config]) as (member,):
        await prepared(member)
        login = auth.AuthenticateRequest(name="al", password="pw")
        token = (await member.call("/etcdserverpb.Auth/Authenticate", login, auth.AuthenticateResponse)).token
        root = auth.AuthenticateRequest(name="root", password="pw")
        own = (await member.call("/etcdserverpb.Auth/Authenticate", root, auth.AuthenticateResponse)).token
        observe = streaming(member.channel, "/v3electionpb.Election/Observe", ("token", token))
        await observe.write(election_pb2.LeaderRequest(name=b"e").SerializeToString())
        put: Any = member.channel.unary_unary("/etcdserverpb.KV/Put")
        await put(PutRequest(key=b"e/1", value=b"first").SerializeToString(), metadata=(("token", own),))
        first = await next_of(observe, election_pb2.LeaderResponse)
        assert first.kv.value == b"first"
        delete: Any = member.channel.unary_unary("/etcdserverpb.Auth/UserDelete")
        request = auth.AuthUserDeleteRequest(name="al").SerializeToString()
        await delete(request, metadata=(("token", own),))
        await put(PutRequest(key=b"e/1", value=b"secret").SerializeToString(), metadata=(("token", own),))
        assert not await observe.read(), "it has ended, and did not say what came after"
        assert (await observe.code()).name == "OK"


async def test_what_hangs_on_a_lease_is_judged_where_it_is_applied(tmp_path: Path) -> None:
    """Between judging and applying somebody else may attach a key: no generation of the rights tells."""
    (config,) = configs(tmp_path, 1)
    async with running([config]) as (member,):
        await prepared(member)
        router, access = member.server.services.router, member.server.services.authentication.access
        al, root = (CERTIFICATE,), ((":certificate-name", "root"),)
        narrow = auth.AuthRoleRevokePermissionRequest(role="r", key=b"\x00", range_end=b"\x00")
        grant = auth.AuthRoleGrantPermissionRequest(name="r")
        grant.perm.key, grant.perm.permType = b"own", auth.Permission.READWRITE
        for name, request in (
            ("Auth/RoleRevokePermission", narrow),
            ("Auth/RoleGrantPermission", grant),
            ("Lease/LeaseGrant", LeaseGrantRequest(ID=7, TTL=600)),
        ):
            route = router.route(f"/connect_kv.v1.{name}")
            await route.unary(request.SerializeToString(), root)
        judged = access._table.generation
        mark = Command(user="al", judged=judged).SerializeToString()
        secret = PutRequest(key=b"secret", value=b"s", lease=7)
        await router.route("/connect_kv.v1.KV/Put").unary(secret.SerializeToString(), root)
        # As judged before that put: then nothing hung on the lease.
        executor = member.server.services.executor
        txn = TxnRequest()
        txn.success.add().request_put.CopyFrom(PutRequest(key=b"own", lease=7))
        from connect_kv.errors import Refused
        from connect_kv.services.executor import field_number

        for kind, message in (
            ("lease_revoke", LeaseRevokeRequest(ID=7)),
            ("put", PutRequest(key=b"own", lease=7)),
            ("txn", txn),
        ):
            with pytest.raises(Refused, match="permission denied"):
                await executor.execute(field_number(kind), message.SerializeToString(), mark)
        held = await router.route("/connect_kv.v1.KV/Range").unary(
            RangeRequest(key=b"secret").SerializeToString(), root
        )
        assert kv_pb2.RangeResponse.FromString(held).count == 1
        put = PutRequest(key=b"own", value=b"v").SerializeToString()
        await router.route("/connect_kv.v1.KV/Put").unary(put, al)


async def test_a_command_that_was_carried_out_is_not_refused_when_it_is_sent_again(tmp_path: Path) -> None:
    """The stream broke before its answer came, and the right is gone: "refused" would mean: it was not."""
    (config,) = configs(tmp_path, 1)
    async with running([config]) as (member,):
        await prepared(member)
        router = member.server.services.router
        first = Command(number=1, put=PutRequest(key=b"k", value=b"once"))
        wire = Wire(SessionRequests(ttl=60), SessionRequests(commands=[first]), metadata=(CERTIFICATE,))
        await router.route("/connect_kv.v1.Session/Open").stream(wire)
        opened, done = (SessionReplies.FromString(one) for one in wire.answers)
        narrow = auth.AuthRoleRevokePermissionRequest(role="r", key=b"\x00", range_end=b"\x00")
        await router.route("/connect_kv.v1.Auth/RoleRevokePermission").unary(
            narrow.SerializeToString(), ((":certificate-name", "root"),)
        )
        new = Command(number=2, put=PutRequest(key=b"k", value=b"more"))
        read = Command(number=3, range=RangeRequest(key=b"k"))
        again = SessionRequests(session=opened.session, commands=[first, new, read])
        wire = Wire(again, metadata=(CERTIFICATE,))
        await router.route("/connect_kv.v1.Session/Open").stream(wire)
        results = {
            one.number: one for data in wire.answers for one in SessionReplies.FromString(data).results
        }
        assert results[1] == done.results[0]
        for number in (2, 3):
            assert results[number].failure.message == "etcdserver: permission denied"
