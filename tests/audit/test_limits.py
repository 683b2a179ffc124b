"""What is refused because it is too much is in the audit log: a line a second for each peer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from connect_kv.etcd_errors import Code
from connect_kv.http2.metadata import RESOURCE_EXHAUSTED
from connect_kv.rpc import auth_pb2
from connect_kv.rpc.kv_pb2 import PutRequest
from connect_kv.services.audit import Audit, Level
from connect_kv.services.limits import MOST_LINES
from tests.auth.test_user_quotas import WATCH, prepared, watching
from tests.gateway import http2, raw
from tests.services.cluster import Member, configs, running
from tests.services.conftest import streaming, until

TOO_MANY = "etcdserver: too many requests"


class Lines:
    """An audit log whose second is over when a test says so."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []
        self.flushes: list[Callable[[], None]] = []
        self.audit = Audit(
            self,
            level=Level.AUTH,
            node="n1",
            wall=lambda: 0,
            enabled=lambda: True,
            user_of=lambda caller: "",
            later=lambda seconds, call: self.flushes.append(call),
        )

    def write(self, line: bytes, *, important: bool) -> None:
        assert important
        self.found.append(json.loads(line))


def test_a_flood_from_one_peer_is_one_line() -> None:
    lines = Lines()
    for port in range(100_000):
        lines.audit.limited(f"10.0.0.7:{port % 60_000}", "KV.Put", Code.RESOURCE_EXHAUSTED, TOO_MANY)
    assert not lines.found
    (over,) = lines.flushes
    over()
    assert lines.found == [
        {
            "time": "1970-01-01T00:00:00.000000Z", "node": "n1", "user": "", "by": "", "from": "10.0.0.7",
            "call": "KV.Put", "code": "RESOURCE_EXHAUSTED", "reason": TOO_MANY, "times": 100_000,
        }
    ]  # fmt: skip
    lines.audit.limited("10.0.0.7:1", "KV.Put", Code.RESOURCE_EXHAUSTED, TOO_MANY)
    assert len(lines.flushes) == 2, "the next second"


def test_a_flood_from_everywhere_is_bounded_and_counted_whole() -> None:
    lines = Lines()
    for number in range(10_000):
        address = f"10.0.{number // 250}.{number % 250}:1"
        lines.audit.limited(address, "", Code.RESOURCE_EXHAUSTED, "too many connections")
    lines.audit.close()
    assert len(lines.found) == MOST_LINES + 1
    assert sum(one["times"] for one in lines.found) == 10_000
    assert lines.found[-1]["from"] == "others"
    lines.flushes[0]()
    assert len(lines.found) == MOST_LINES + 1, "once"


def of(path: Path) -> list[dict[str, Any]]:
    return [one for one in map(json.loads, path.read_text().splitlines()) if "times" in one]


async def told(path: Path, **fields: object) -> dict[str, Any]:
    """The first summary with these fields, once it is there."""

    def there() -> list[dict[str, Any]]:
        return [one for one in of(path) if fields.items() <= one.items()]

    await until(there)
    return there()[0]


async def test_every_limit_of_a_member_is_told_of(tmp_path: Path) -> None:
    (config,) = configs(tmp_path, 1)
    log = tmp_path / "audit.jsonl"
    limited = replace(
        config, audit_log=log, audit_level="auth", max_streams_per_user=1, max_watches_per_user=1,
        max_request_bytes=4096,
    )  # fmt: skip
    async with running([limited]) as (member,):
        tokens = await prepared(member)
        first = streaming(member.channel, WATCH, ("token", tokens["al"]))
        await first.write(watching(b"k"))
        await first.read()
        for _ in range(3):
            second = streaming(member.channel, WATCH, ("token", tokens["al"]))
            with pytest.raises(grpc.aio.AioRpcError, match="streams open"):
                await second.read()
        line = await told(log, call="Watch.Watch", user="al", by="token")
        assert (line["from"], line["times"], line["code"]) == ("127.0.0.1", 3, "RESOURCE_EXHAUSTED")
        assert "has 1 streams open" in line["reason"]

        await first.write(watching(b"k"))
        await first.read()
        assert "has 1 watches" in (await told(log, call="Watch.Watch", user="al", times=1))["reason"]

        for _ in range(2):  # those of a first round are slowed by nothing yet
            await wrong_logins(member, 20)
        line = await told(log, call="Auth.Authenticate", user="bo", by="password")
        assert "too many failed logins" in line["reason"]
        single = [one for one in map(json.loads, log.read_text().splitlines()) if one.get("user") == "bo"]
        assert len([one for one in single if "times" not in one]) < 30, "those that were looked at"

        put = PutRequest(key=b"k", value=b"v" * (1 << 20))
        path = "/etcdserverpb.KV/Put"
        puts: Any = member.channel.unary_unary(path)
        with pytest.raises(grpc.aio.AioRpcError, match="larger than max"):
            await puts(put.SerializeToString())
        assert "larger than max" in (await told(log, call="KV.Put", code="RESOURCE_EXHAUSTED"))["reason"]
        small = PutRequest(key=b"k", value=b"v" * 5000).SerializeToString()
        with pytest.raises(grpc.aio.AioRpcError, match="request is too large"):
            await puts(small, metadata=(("token", tokens["al"]),))
        await told(log, call="KV.Put", code="INVALID_ARGUMENT", user="al")


async def wrong_logins(member: Member, count: int) -> None:
    request = auth_pb2.AuthenticateRequest(name="bo", password="wrong").SerializeToString()
    call: Any = member.channel.unary_unary("/etcdserverpb.Auth/Authenticate")
    answers: list[Any] = await asyncio.gather(*(call(request) for _ in range(count)), return_exceptions=True)
    assert {one.code() for one in answers} <= {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }


async def test_what_the_gateway_refuses_unread_is_told_of(tmp_path: Path) -> None:
    (config,) = configs(tmp_path, 1)
    log = tmp_path / "audit.jsonl"
    async with running([replace(config, audit_log=log, max_request_bytes=4096)]) as (member,):
        port = member.server.services.client_port
        large = json.dumps({"key": "aw==", "value": "YmFy" * (1 << 18)})
        assert (await raw.call(port, "/v3/kv/put", large)).status == 429
        assert (await told(log, call="KV.Put"))["times"] == 1
        async with http2.connected(port) as connection:
            large = large.replace("value", "range_end")
            assert (await connection.call(port, "/v3/kv/deleterange", large)).status == 429
        await told(log, call="KV.DeleteRange")


async def test_connections_that_are_refused_are_told_of(tmp_path: Path) -> None:
    (config,) = configs(tmp_path, 1)
    log = tmp_path / "audit.jsonl"
    async with running([replace(config, audit_log=log, max_connections=3, max_handshakes=2)]) as (member,):
        port = member.server.services.client_port
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(6)]
        try:
            line = await told(log, call="", code=Code(RESOURCE_EXHAUSTED).name)
            assert line["from"] == "127.0.0.1"
            assert line["times"] >= 1
        finally:
            for _, writer in opened:
                writer.close()


async def test_a_member_with_too_many_calls_tells_of_those_it_refuses_unread(tmp_path: Path) -> None:
    (config,) = configs(tmp_path, 1)
    log = tmp_path / "audit.jsonl"
    async with running([replace(config, audit_log=log)]) as (member,):
        route = member.server.services.router.route("/etcdserverpb.KV/Put")
        assert route.overloaded is not None
        for number in range(500):
            assert route.overloaded(f"192.0.2.1:{number}").status.text == TOO_MANY
        line = await told(log, call="KV.Put")
        assert (line["from"], line["times"], line["reason"]) == ("192.0.2.1", 500, TOO_MANY)
