"""No method of any service does anything for a caller it has not asked about."""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from connect_kv.frontend.grpc.services import SERVICES
from connect_kv.rpc import auth_pb2
from connect_kv.rpc.kv_pb2 import CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest
from tests.services.cluster import Member, configs, running

FOR_ANYBODY = {"Auth.Authenticate"}
"""What needs no user."""
FILLED: dict[str, Any] = {
    "KV.Range": RangeRequest(key=b"k"),
    "KV.RangeStream": RangeRequest(key=b"k"),
    "KV.Put": PutRequest(key=b"k"),
    "KV.DeleteRange": DeleteRangeRequest(key=b"k"),
    "KV.Compact": CompactionRequest(revision=1),
}
"""Requests that are refused for something else where they are empty."""
FILLED["KV.Txn"] = TxnRequest()
FILLED["KV.Txn"].success.add().request_range.key = b"k"
REFUSALS = ("user name is empty", "key is not provided", "must be provided")
"""The second and third: what is wrong with a request by itself is told first, as in etcd."""
STREAMS = {"Watch.Watch", "Session.Open", "Lease.LeaseKeepAlive"}


def methods() -> Iterator[tuple[str, MethodDescriptor]]:
    for service in SERVICES:
        for method in service.methods:
            yield f"{service.name}.{method.name}", method


async def enable(member: Member) -> None:
    calls: list[tuple[str, Any, Any]] = [
        ("UserAdd", auth_pb2.AuthUserAddRequest(name="root", password="pw"), auth_pb2.AuthUserAddResponse),
        (
            "UserGrantRole",
            auth_pb2.AuthUserGrantRoleRequest(user="root", role="root"),
            auth_pb2.AuthUserGrantRoleResponse,
        ),
        ("AuthEnable", auth_pb2.AuthEnableRequest(), auth_pb2.AuthEnableResponse),
    ]
    for name, request, answer in calls:
        await member.call(f"/etcdserverpb.Auth/{name}", request, answer)


async def test_without_a_token_every_method_of_every_service_refuses(tmp_path: Path) -> None:
    (config,) = configs(tmp_path, 1)
    async with running([config]) as (member,):
        await enable(member)
        for name, method in methods():
            if name in FOR_ANYBODY or name in STREAMS:
                continue
            request = FILLED.get(name) or GetMessageClass(method.input_type)()
            path = f"/{method.containing_service.full_name}/{method.name}"
            call: Any = member.channel.stream_stream(path)
            stream = call(timeout=10)
            answer: Any = None
            with suppress(grpc.aio.AioRpcError):
                await stream.write(request.SerializeToString())
                await stream.done_writing()
                answer = await stream.read()
            code, text = await stream.code(), await stream.details()
            silent = answer is grpc.aio.EOF and name == "Election.Observe"
            assert silent or any(why in text for why in REFUSALS), (
                name,
                code,
                text,
            )


def test_every_service_that_takes_requests_was_given_access() -> None:
    """A new service cannot forget to ask: it has nobody to ask otherwise."""
    import connect_kv.server.services as composition

    source = inspect.getsource(composition)
    table = source[source.index("self.servicers") :]
    for service in SERVICES:
        assert f'"{service.name}"' in table


async def test_a_right_that_was_taken_away_is_gone_for_what_is_in_the_log_behind_it(tmp_path: Path) -> None:
    """Judged when it came, and once more where it is applied: see `auth.judgement`."""
    from connect_kv.auth.judgement import judge
    from connect_kv.auth.table import AuthTable
    from connect_kv.rpc.command_pb2 import Command
    from connect_kv.storage.memory import MemoryDisk
    from connect_kv.storage.overlay import Overlay

    table = AuthTable()
    overlay = Overlay(MemoryDisk(random.Random(1)).open(tmp_path / "state"))

    def change(**kwargs: Any) -> None:
        table.apply(auth_pb2.AuthChange(**kwargs), 1, overlay)

    change(user_add=auth_pb2.AuthUserAddRequest(name="root", hashedPassword="x"))
    change(user_grant_role=auth_pb2.AuthUserGrantRoleRequest(user="root", role="root"))
    change(user_add=auth_pb2.AuthUserAddRequest(name="al", hashedPassword="x"))
    change(role_add=auth_pb2.AuthRoleAddRequest(name="r"))
    granted = auth_pb2.Permission(permType=auth_pb2.Permission.WRITE, key=b"k")
    change(role_grant_permission=auth_pb2.AuthRoleGrantPermissionRequest(name="r", perm=granted))
    change(user_grant_role=auth_pb2.AuthUserGrantRoleRequest(user="al", role="r"))
    command = Command(put=PutRequest(key=b"k", value=b"v"))
    before_enabling = table.generation
    assert not table.judge_again(before_enabling)
    change(enable=auth_pb2.AuthEnableRequest())
    assert table.judge_again(before_enabling), "it was not asked who it is"
    assert judge(table, command, "put", "", overlay) is not None
    assert judge(table, command, "put", "al", overlay) is None
    judged = table.generation
    assert not table.judge_again(judged)
    change(role_revoke_permission=auth_pb2.AuthRoleRevokePermissionRequest(role="r", key=b"k"))
    assert table.judge_again(judged)
    refused = judge(table, command, "put", "al", overlay)
    assert refused is not None
    assert refused.message == "etcdserver: permission denied"
    again = AuthTable()
    again.load(overlay)
    assert (again.generation, again.revision, again.enabled) == (table.generation, table.revision, True)


@pytest.mark.parametrize("name", sorted(FOR_ANYBODY))
def test_what_is_for_anybody_exists(name: str) -> None:
    assert name in dict(methods())


def test_a_signature_is_looked_at_once_and_its_end_every_time() -> None:
    """A JSON Web Token comes with every call of a client."""
    import jwt

    from connect_kv.auth.table import AuthTable
    from connect_kv.auth.tokens import MOST_REMEMBERED, JwtTokens
    from connect_kv.errors import Refused

    now, secret = [1000.0], "a secret of thirty-two bytes or so"
    tokens: Any = JwtTokens(
        AuthTable(), lambda: now[0], method="HS256", verify_key=secret, sign_key=secret, ttl=60
    )
    token = tokens.finish("al", 7, "")
    assert tokens.identify(token) is tokens.identify(token)
    assert (tokens.identify(token).name, tokens.identify(token).revision) == ("al", 7)
    now[0] += 59
    tokens.identify(token)
    now[0] += 1
    with pytest.raises(Refused, match="invalid auth token"):
        tokens.identify(token)
    for wrong in (token[:-2] + "xx", token + "x", ""):
        with pytest.raises(Refused):
            tokens.identify(wrong)
    for number in range(MOST_REMEMBERED + 10):
        tokens.identify(jwt.encode({"username": str(number)}, secret, algorithm="HS256"))
    assert len(tokens._good) <= MOST_REMEMBERED
    for end in (10**400, float("nan")):
        claims = {"username": "al", "revision": 7, "exp": end}
        tokens.identify(jwt.encode(claims, secret, algorithm="HS256"))
