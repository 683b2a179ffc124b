"""The audit log says who did what, and was refused what; and never a secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from connect_kv.frontend.grpc.router import CERTIFICATE_NAME, PEER_ADDRESS, Metadata, RpcFailed
from connect_kv.frontend.grpc.services import SERVICES
from connect_kv.rpc import auth_pb2
from connect_kv.rpc.command_pb2 import Command
from connect_kv.rpc.kv_pb2 import PutRequest, RangeRequest, TxnRequest
from connect_kv.rpc.session_pb2 import SessionReplies, SessionRequests
from connect_kv.services.audit import MOST_ITEMS, SHOWN, shown
from tests.auth.test_access import FILLED, FOR_ANYBODY, enable, methods
from tests.services.batches import calls, together
from tests.services.cluster import Member, configs, running

SECRET = "s3cr3t"
FROM = (PEER_ADDRESS, "10.0.0.9:99")


class Wire:
    """A stream that asks once."""

    def __init__(self, *requests: Message, metadata: Metadata = (FROM,)) -> None:
        self.metadata = metadata
        self._requests = list(requests)
        self.answers: list[bytes] = []

    async def read(self) -> bytes | None:
        return self._requests.pop(0).SerializeToString() if self._requests else None

    async def write(self, message: bytes) -> None:
        self.answers.append(message)
        if b"cancel" in message or b"rpc error" in message:
            raise RpcFailedByTest


class RpcFailedByTest(Exception):
    """Enough was seen."""


async def call(member: Member, name: str, request: Message, *metadata: tuple[str, str]) -> bytes:
    route = member.server.services.router.route(f"/connect_kv.v1.{name.replace('.', '/')}")
    return await route.unary(request.SerializeToString(), (FROM, *metadata))


async def login(member: Member, name: str, password: str) -> str:
    request = auth_pb2.AuthenticateRequest(name=name, password=password)
    return auth_pb2.AuthenticateResponse.FromString(await call(member, "Auth.Authenticate", request)).token


class Log:
    """The file, read from where it was read last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0

    def more(self, member: Member) -> list[dict[str, Any]]:
        """Lines that came since."""
        audit: Any = member.server
        file = audit._audit
        file.flush()
        text = self._path.read_text()[self._read :]
        self._read += len(text)
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "audit.jsonl")


def audited(tmp_path: Path, level: str) -> Any:
    (config,) = configs(tmp_path, 1)
    return replace(config, audit_log=tmp_path / "audit.jsonl", audit_level=level)


async def test_logins_and_changes_say_who_what_from_where_and_how_it_ended(tmp_path: Path, log: Log) -> None:
    async with running([audited(tmp_path, "auth")]) as (member,):
        await enable(member)
        assert [one["call"] for one in log.more(member)] == [
            "Auth.UserAdd",
            "Auth.UserGrantRole",
            "Auth.AuthEnable",
        ]
        with pytest.raises(RpcFailed):
            await login(member, "root", SECRET)
        token = await login(member, "root", "pw")
        wrong, right = log.more(member)
        assert (wrong["user"], wrong["by"], wrong["from"]) == ("root", "password", "10.0.0.9:99")
        assert (wrong["code"], wrong["node"], wrong["call"]) == (
            "INVALID_ARGUMENT",
            "n1",
            "Auth.Authenticate",
        )
        assert right["code"] == "OK"
        add = auth_pb2.AuthUserAddRequest(name="al", password=SECRET)
        await call(member, "Auth.UserAdd", add, ("token", token))
        (line,) = log.more(member)
        assert (line["user"], line["by"], line["what"]) == ("root", "token", {"name": "al"})
        get = auth_pb2.AuthUserGetRequest(name="al")
        await call(member, "Auth.UserGet", get, ("token", token))
        await call(member, "KV.Put", PutRequest(key=b"k", value=SECRET.encode()), ("token", token))
        assert not log.more(member), "that changes nothing of the kind"
        with pytest.raises(RpcFailed):
            await call(member, "KV.Put", PutRequest(key=b"k"), ("token", token + "0"))
        (line,) = log.more(member)
        assert (line["user"], line["code"], line["what"]) == ("", "UNAUTHENTICATED", {"key": "k"})
        with pytest.raises(RpcFailed):
            await call(member, "KV.Range", RangeRequest(key=b"k"), (CERTIFICATE_NAME, "eve"))
        (line,) = log.more(member)
        assert (line["user"], line["by"], line["reason"]) == (
            "eve",
            "certificate",
            "etcdserver: permission denied",
        )
    assert SECRET not in (tmp_path / "audit.jsonl").read_text()
    assert token not in (tmp_path / "audit.jsonl").read_text()


@pytest.mark.parametrize(
    ("level", "seen"), [("auth", []), ("writes", ["KV.Put"]), ("reads", ["KV.Put", "KV.Range"])]
)
async def test_levels(tmp_path: Path, log: Log, level: str, seen: list[str]) -> None:
    async with running([audited(tmp_path, level)]) as (member,):
        await call(member, "KV.Put", PutRequest(key=b"k", value=SECRET.encode(), lease=0))
        await call(member, "KV.Range", RangeRequest(key=b"k"))
        found = log.more(member)
        assert [one["call"] for one in found] == seen
        assert all(one["unchecked"] for one in found), "nobody was asked who it was"


async def test_every_refusal_of_every_method_is_written_down(tmp_path: Path, log: Log) -> None:
    """Also those that no error tells of, such as an Observe that ends at once."""
    async with running([audited(tmp_path, "auth")]) as (member,):
        await enable(member)
        log.more(member)
        for name, method in methods():
            if name in FOR_ANYBODY or name in ("Lease.LeaseKeepAlive", "Session.Open", "Watch.Watch"):
                continue
            request = FILLED.get(name) or _filled(method.input_type)
            route = member.server.services.router.route(f"/connect_kv.v1.{name.replace('.', '/')}")
            try:
                if method.server_streaming:
                    await route.stream(Wire(request))
                else:
                    await route.unary(request.SerializeToString(), (FROM,))
            except RpcFailed:
                pass
            lines = [one for one in log.more(member) if one["call"] == name]
            assert any(one.get("reason") == "etcdserver: user name is empty" for one in lines), (name, lines)


def _filled(kind: Descriptor) -> Message:
    """Enough in it that it is not refused for something else."""
    message = GetMessageClass(kind)()
    for field in kind.fields:
        if field.name == "leader":
            getattr(message, field.name).SetInParent()
        elif field.name in ("key", "name") and field.type == field.TYPE_BYTES:
            setattr(message, field.name, b"k")
        elif field.name == "peerURLs":
            getattr(message, field.name).append("http://127.0.0.1:1")
        elif field.name == "perm":
            getattr(message, field.name).key = b"k"
    return message


async def test_refusals_within_sessions_and_what_they_carried_out(tmp_path: Path, log: Log) -> None:
    async with running([audited(tmp_path, "writes")]) as (member,):
        await enable(member)
        token = await login(member, "root", "pw")
        for request in (
            auth_pb2.AuthUserAddRequest(name="al", password="pw"),
            auth_pb2.AuthRoleAddRequest(name="r"),
            auth_pb2.AuthUserGrantRoleRequest(user="al", role="r"),
        ):
            name = type(request).__name__.removeprefix("Auth").removesuffix("Request")
            await call(member, f"Auth.{name}", request, ("token", token))
        grant = auth_pb2.AuthRoleGrantPermissionRequest(name="r")
        grant.perm.key, grant.perm.permType = b"k", auth_pb2.Permission.READWRITE
        await call(member, "Auth.RoleGrantPermission", grant, ("token", token))
        own = await login(member, "al", "pw")
        log.more(member)
        commands = [
            Command(number=1, put=PutRequest(key=b"k", value=SECRET.encode())),
            Command(number=2, put=PutRequest(key=b"other", value=SECRET.encode())),
            Command(number=3, range=RangeRequest(key=b"other")),
        ]
        wire = Wire(
            SessionRequests(ttl=60), SessionRequests(commands=commands), metadata=(FROM, ("token", own))
        )
        await member.server.services.router.route("/connect_kv.v1.Session/Open").stream(wire)
        replies = [SessionReplies.FromString(one) for one in wire.answers]
        assert sum(len(one.results) for one in replies) == 3
        lines = {(one["call"], one["what"]["key"]): one for one in log.more(member)}
        assert set(lines) == {("Session.put", "k"), ("Session.put", "other"), ("Session.range", "other")}
        assert lines["Session.put", "k"]["code"] == "OK"
        assert lines["Session.put", "other"]["code"] == "PERMISSION_DENIED"
        assert {one["user"] for one in lines.values()} == {"al"}


async def test_calls_that_come_together_are_written_down_one_by_one(tmp_path: Path, log: Log) -> None:
    async with running([audited(tmp_path, "writes")]) as (member,):
        await enable(member)
        token = await login(member, "root", "pw")
        log.more(member)
        router = member.server.services.router
        requests = [PutRequest(key=b"k%d" % number, value=SECRET.encode()) for number in range(3)]
        good = calls(requests, (FROM, ("token", token)))
        await together(router.route("/connect_kv.v1.KV/Put"), [*good, *calls(requests[:1], (FROM,))])
        found = sorted((one["what"]["key"], one["user"], one["code"]) for one in log.more(member))
        assert found == [
            ("k0", "", "INVALID_ARGUMENT"),
            *((f"k{number}", "root", "OK") for number in range(3)),
        ]
        reads = calls([RangeRequest(key=b"k")], (FROM,))
        await together(router.route("/connect_kv.v1.KV/Range"), reads)
        (line,) = log.more(member)
        assert (line["call"], line["reason"]) == ("KV.Range", "etcdserver: user name is empty")


async def test_a_watch_that_is_refused(tmp_path: Path, log: Log) -> None:
    from connect_kv.rpc.watch_pb2 import WatchRequest

    async with running([audited(tmp_path, "auth")]) as (member,):
        await enable(member)
        log.more(member)
        request = WatchRequest()
        request.create_request.key = b"k"
        with pytest.raises(RpcFailed):
            await member.server.services.router.route("/etcdserverpb.Watch/Watch").stream(Wire(request))
        line = next(one for one in log.more(member) if "what" in one)
        assert (line["call"], line["what"]["key"], line["code"]) == ("Watch.Watch", "k", "INVALID_ARGUMENT")


def _messages() -> Iterator[Descriptor]:
    seen, waiting = set[str](), [method.input_type for service in SERVICES for method in service.methods]
    while waiting:
        kind = waiting.pop()
        if kind.full_name not in seen:
            seen.add(kind.full_name)
            yield kind
            waiting += [field.message_type for field in kind.fields if field.message_type is not None]


KINDS = sorted(_messages(), key=lambda kind: kind.full_name)


def test_the_fields_that_are_shown_are_none_that_may_hold_a_secret() -> None:
    secret = {"password", "hashedPassword", "token", "value", "note", "json", "msgpack", "arguments", "blob"}
    assert not SHOWN & secret


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_is_not_named_is_not_shown(kind: Descriptor) -> None:
    """Every field of every request, filled: only named ones come out."""
    message = GetMessageClass(kind)()
    for field in kind.fields:
        if field.name in SHOWN or field.message_type is not None:
            continue
        value: Any = None
        if field.type == field.TYPE_STRING:
            value = SECRET
        elif field.type == field.TYPE_BYTES:
            value = SECRET.encode()
        if value is not None:
            getattr(message, field.name).append(value) if field.is_repeated else setattr(
                message, field.name, value
            )
    assert SECRET not in json.dumps(shown(message))


def test_what_is_shown_is_bounded() -> None:
    request = TxnRequest()
    for _ in range(1000):
        request.success.add().request_put.key = b"k" * 10_000
        request.compare.add().key = b"\xff" * 10_000
    text = json.dumps(shown(request))
    assert len(text) < 2 * (MOST_ITEMS + 1) * 1400
    assert "and 968 more" in text
    deep = TxnRequest()
    inner = deep
    for _ in range(50):
        inner = inner.success.add().request_txn
    inner.success.add().request_put.key = b"k"
    assert len(json.dumps(shown(deep))) < 1000
