"""One user cannot take what all share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from connect_kv.errors import Refused
from connect_kv.rpc import auth_pb2
from connect_kv.rpc.session_pb2 import SessionReplies, SessionRequests
from connect_kv.rpc.watch_pb2 import WatchRequest, WatchResponse
from connect_kv.services.user_quotas import UserLimits, UserQuotas
from tests.auth.test_access import enable
from tests.services.cluster import Member, configs, running
from tests.services.conftest import next_of, streaming, until

WATCH, SESSION = "/etcdserverpb.Watch/Watch", "/connect_kv.v1.Session/Open"


async def prepared(member: Member) -> dict[str, str]:
    """Tokens of root, and of two users who may do everything to keys."""
    tokens = {}
    for name in ("al", "bo"):
        await member.call(
            "/etcdserverpb.Auth/UserAdd",
            auth_pb2.AuthUserAddRequest(name=name, password="pw"),
            auth_pb2.AuthUserAddResponse,
        )
    grant = auth_pb2.AuthRoleGrantPermissionRequest(name="r")
    grant.perm.key, grant.perm.range_end = b"\x00", b"\x00"
    grant.perm.permType = auth_pb2.Permission.READWRITE
    calls: list[tuple[str, Any]] = [
        ("RoleAdd", auth_pb2.AuthRoleAddRequest(name="r")),
        ("RoleGrantPermission", grant),
        ("UserGrantRole", auth_pb2.AuthUserGrantRoleRequest(user="al", role="r")),
        ("UserGrantRole", auth_pb2.AuthUserGrantRoleRequest(user="bo", role="r")),
    ]
    for name, request in calls:
        await member.call(f"/etcdserverpb.Auth/{name}", request, auth_pb2.AuthRoleAddResponse)
    await enable(member)
    for name in ("root", "al", "bo"):
        answer = await member.call(
            "/etcdserverpb.Auth/Authenticate",
            auth_pb2.AuthenticateRequest(name=name, password="pw"),
            auth_pb2.AuthenticateResponse,
        )
        tokens[name] = answer.token
    return tokens


def watching(key: bytes) -> bytes:
    request = WatchRequest()
    request.create_request.key = key
    return request.SerializeToString()


async def test_watches_of_one_user(tmp_path: Path) -> None:
    (config,) = configs(tmp_path, 1)
    async with running([replace(config, max_watches_per_user=2)]) as (member,):
        tokens = await prepared(member)
        stream = streaming(member.channel, WATCH, ("token", tokens["al"]))
        answers = []
        for _ in range(3):
            await stream.write(watching(b"k"))
            answers.append(await next_of(stream, WatchResponse))
        assert [one.canceled for one in answers] == [False, False, True]
        assert answers[2].cancel_reason == (
            "rpc error: code = ResourceExhausted desc = "
            "connect-kv: user 'al' has 2 watches on this member, and may have no more"
        )
        for name in ("bo", "root"):
            other = streaming(member.channel, WATCH, ("token", tokens[name]))
            for _ in range(2 if name == "bo" else 5):
                await other.write(watching(b"k"))
                assert not (await next_of(other, WatchResponse)).canceled
        cancel = WatchRequest()
        cancel.cancel_request.watch_id = answers[0].watch_id
        await stream.write(cancel.SerializeToString())
        assert (await next_of(stream, WatchResponse)).canceled
        await stream.write(watching(b"k"))
        assert not (await next_of(stream, WatchResponse)).canceled, "there is room again"
        stream.cancel()
        hub: Any = member.server.services.servicers["Watch"]
        await until(lambda: "al" not in hub._hub.owned)
        assert 'user_limit_refusals_total{limit="watches"} 1.0' in member.server.metrics.text().decode()


async def test_streams_of_one_user(tmp_path: Path) -> None:
    (config,) = configs(tmp_path, 1)
    async with running([replace(config, max_streams_per_user=1)]) as (member,):
        tokens = await prepared(member)
        first = streaming(member.channel, WATCH, ("token", tokens["al"]))
        await first.write(watching(b"k"))
        await next_of(first, WatchResponse)
        second = streaming(member.channel, WATCH, ("token", tokens["al"]))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await second.read()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused.value.details() == (
            "connect-kv: user 'al' has 1 streams open on this member, and may have no more"
        )
        first.cancel()
        user_quotas: Any = member.server.services.user_quotas
        await until(lambda: not user_quotas._streams)
        again = streaming(member.channel, WATCH, ("token", tokens["al"]))
        await again.write(watching(b"k"))
        await next_of(again, WatchResponse)
        again.cancel()


async def test_sessions_of_one_user(tmp_path: Path) -> None:
    (config,) = configs(tmp_path, 1)
    async with running([replace(config, max_sessions_per_user=2)]) as (member,):
        tokens = await prepared(member)

        async def opened(name: str) -> Any:
            stream = streaming(member.channel, SESSION, ("token", tokens[name]))
            await stream.write(SessionRequests(ttl=60).SerializeToString())
            answer = await next_of(stream, SessionReplies)
            await stream.done_writing()
            return answer

        for _ in range(2):
            assert (await opened("al")).session
        with pytest.raises(grpc.aio.AioRpcError, match="user 'al' has 2 sessions open, and may have no more"):
            await opened("al")
        assert (await opened("bo")).session
    async with running([config]) as (member,):
        assert member.server.host.sessions.owned("al") == 2, "counted from what is stored, too"


def test_nobody_is_limited_where_nobody_is_told_apart() -> None:
    user_quotas = UserQuotas(UserLimits(streams=1, watches=1, sessions=1))
    user_quotas.watch("", 5)
    user_quotas.session("", 5)
    with user_quotas.stream(""), user_quotas.stream(""):
        pass
    with user_quotas.stream("al"), pytest.raises(Refused), user_quotas.stream("al"):
        pass
    with user_quotas.stream("al"):
        assert user_quotas.refused["streams"] == 1
