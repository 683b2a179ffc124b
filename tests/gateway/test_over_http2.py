"""The gateway over HTTP/2, on TLS and in the clear, beside calls of gRPC on the same connections."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from connect_kv.authority import make_authority, make_client, make_node
from connect_kv.frontend.http.connection import Handler
from connect_kv.frontend.http.exchange import Crowded, Exchange, TooLarge
from connect_kv.frontend.http.limits import HttpLimits
from connect_kv.frontend.http.over_http2 import Http2Requests
from connect_kv.frontend.http.server import HttpServer
from connect_kv.http2.limits import Limits
from connect_kv.http2.listener import Http2Server
from connect_kv.rpc.kv_pb2 import RangeRequest, RangeResponse
from tests.etcd import skip_loudly
from tests.gateway import http2
from tests.gateway.conftest import member
from tests.gateway.replay import CASES, Replay
from tests.gateway.test_cases import OTHERWISE
from tests.http2.conftest import until

EVERY = 1 if os.environ.get("CONNECT_KV_FULL") else 3
"""All of them are replayed over HTTP/1 in any case."""
NODE = Path(__file__).parent / "http2_program.js"
PROTOCOL_ERROR, CANCEL = 1, 8


@pytest.mark.parametrize("case", CASES["cases"][::EVERY], ids=lambda case: case["name"])
async def test_the_recorded_answers_are_those_over_http2_too(case: dict[str, Any], tmp_path: Path) -> None:
    differences = await Replay(tmp_path, http2.connected).run(case)
    if case["name"] in OTHERWISE:
        assert differences
    else:
        assert not differences, "\n".join(differences)


# Clients that others wrote.


async def program(*words: str, stdin: bytes = b"") -> tuple[int, bytes]:
    running = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(30):
            out, _ = await running.communicate(stdin)
    finally:
        if running.returncode is None:
            running.kill()
    assert running.returncode is not None
    return running.returncode, out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    where = tmp_path / "certs"
    make_authority(where)
    make_node(where, "n1", ["127.0.0.1"])
    make_client(where, "alice")
    return where


@pytest.mark.parametrize("secure", [True, False], ids=["tls", "clear"])
async def test_curl_speaks_http2_with_the_gateway(tmp_path: Path, folder: Path, secure: bool) -> None:
    if shutil.which("curl") is None or b"HTTP2" not in (await program("curl", "--version"))[1]:
        skip_loudly("curl with HTTP/2")
    files = {"cert_file": folder / "n1.pem", "key_file": folder / "n1.key"} if secure else {}
    async with member(tmp_path, **files) as server:
        how = ("--http2", "--cacert", str(folder / "ca.pem")) if secure else ("--http2-prior-knowledge",)
        url = f"{'https' if secure else 'http'}://127.0.0.1:{server.services.client_port}"

        async def curl(path: str, body: bytes | None = None, *more: str) -> tuple[int, str, str]:
            data = () if body is None else ("--data-binary", "@-")
            told = ("-w", "\n%{http_version} %{http_code}")
            code, out = await program("curl", "-sS", *how, *more, *told, *data, url + path, stdin=body or b"")
            text, _, last = out.decode().rpartition("\n")
            version, status = last.split()
            assert version == "2"
            return code, status, text

        code, status, text = await curl("/v3/kv/put", b'{"key": "Zm9v", "value": "YmFy"}')
        assert (code, status) == (0, "200")
        assert json.loads(text)["header"]["revision"] == "2"
        big = b'{"key": "YmFy", "value": "%b"}' % (b"YmFy" * 300_000)  # beyond the window of a stream
        assert (await curl("/v3/kv/put", big))[:2] == (0, "200")
        code, status, text = await curl("/v3/kv/range", b'{"key": "YmFy"}')
        assert json.loads(text)["kvs"][0]["value"] == "YmFy" * 300_000
        assert (await curl("/health"))[1:] == ("200", '{"health":"true","reason":""}')
        assert (await curl("/v3/nowhere", b""))[1] == "404"
        # A watch goes on until curl has had enough; the lines that came are whole.
        code, status, text = await curl(
            "/v3/watch", b'{"create_request": {"key": "Zm9v", "start_revision": 2}}', "-N", "-m", "2"
        )
        assert (code, status) == (28, "200")
        created, events = map(json.loads, text.splitlines()[:2])
        assert created["result"]["created"]
        assert events["result"]["events"][0]["kv"]["value"] == "YmFy"


@pytest.mark.parametrize("secure", [True, False], ids=["tls", "clear"])
async def test_nodes_http2_reads_a_watch_line_by_line(tmp_path: Path, folder: Path, secure: bool) -> None:
    if shutil.which("node") is None:
        skip_loudly("Node.js")
    files = {"cert_file": folder / "n1.pem", "key_file": folder / "n1.key"} if secure else {}
    async with member(tmp_path, **files) as server:
        url = f"{'https' if secure else 'http'}://127.0.0.1:{server.services.client_port}"
        code, out = await program("node", str(NODE), url, str(folder / "ca.pem"))
        assert (code, out.decode().splitlines()[-1]) == (0, "100 puts, 100 events, in order"), out.decode()


# On one connection.


async def test_calls_of_grpc_and_requests_of_json_share_a_connection(port: int) -> None:
    async with http2.connected(port) as connection:
        await connection.call(port, "/v3/kv/put", '{"key": "aw==", "value": "MQ=="}')
        grpc = {"content-type": "application/grpc", "te": "trailers"}
        message = RangeRequest(key=b"k").SerializeToString()
        framed = b"\0" + len(message).to_bytes(4, "big") + message
        asked = [
            await connection.ask("POST", "/etcdserverpb.KV/Range", framed, grpc, port)
            if number % 2
            else await connection.ask("POST", "/v3/kv/range", b'{"key": "aw=="}', {}, port)
            for number in range(100)
        ]
        for number, one in enumerate(asked):
            answer = await one.head()
            data = await one.chunk()
            if number % 2:
                assert answer.headers["content-type"] == "application/grpc"
                assert RangeResponse.FromString(data[5:]).kvs[0].value == b"1"
            else:
                assert json.loads(data)["kvs"][0]["value"] == "MQ=="


async def test_a_watch_ends_when_its_client_gives_it_up_and_the_others_go_on(port: int) -> None:
    async with http2.connected(port) as connection:
        watch = b'{"create_request": {"key": "aw=="}}'
        first, second = [await connection.ask("POST", "/v3/watch", watch, {}, port) for _ in range(2)]
        for one in (first, second):
            await one.head()
            assert json.loads(await one.chunk())["result"]["created"]
        connection.core.reset_stream(first.number, CANCEL)
        connection.flush()
        for value in ("MQ==", "Mg=="):
            await connection.call(port, "/v3/kv/put", json.dumps({"key": "aw==", "value": value}))
            line = json.loads(await second.chunk())
            assert line["result"]["events"][0]["kv"]["value"] == value
        assert first.events.empty()


async def test_a_client_that_takes_little_at_a_time_gets_all_of_a_large_answer(port: int) -> None:
    async with http2.connected(port, window=1000) as connection:
        value = "YmFy" * 50_000
        await connection.call(port, "/v3/kv/put", json.dumps({"key": "aw==", "value": value}))
        answer = await connection.call(port, "/v3/kv/range", '{"key": "aw=="}')
        assert json.loads(answer.body)["kvs"][0]["value"] == value
        assert max(map(len, answer.chunks)) <= 1000


async def test_a_certificate_that_is_not_let_in_is_told_so(tmp_path: Path, folder: Path) -> None:
    files = {"cert_file": folder / "n1.pem", "key_file": folder / "n1.key"}
    options = {**files, "trusted_ca_file": folder / "ca.pem", "client_cert_allowed_cn": "bob"}
    async with member(tmp_path, **options) as server:
        shown = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        shown.load_cert_chain(folder / "alice.pem", folder / "alice.key")
        shown.set_alpn_protocols(["h2"])
        port = server.services.client_port
        async with http2.connected(port, tls=shown) as connection:
            answer = await connection.call(port, "/v3/kv/range", '{"key": "aw=="}')
    assert answer.status == 403
    assert "allowed" in answer.text


# What a client may use.


@asynccontextmanager
async def answering(handler: Handler, limits: HttpLimits) -> AsyncIterator[tuple[int, HttpServer]]:
    """A port whose requests go to that handler."""
    shared = HttpServer(limits)
    requests = Http2Requests(shared, handler, lambda exchange: None, secure=False)
    server = Http2Server({}, limits=Limits(stream_window=1 << 16, held=1 << 20), requests=requests.begin)
    port = await server.listen("127.0.0.1", 0)
    try:
        yield port, shared
    finally:
        await asyncio.gather(server.stop(0.1), shared.stop(0.1))


async def echo(exchange: Exchange) -> None:
    exchange.respond(200, b"", await exchange.body.whole())


async def test_a_body_that_is_not_what_its_length_says_is_no_request() -> None:
    async with answering(echo, HttpLimits()) as (port, _), http2.connected(port) as connection:
        asked = await connection.ask("POST", "/", b"12345", {"content-length": "6"}, port)
        with pytest.raises(ConnectionError):
            await asked.answer()
        assert asked.reset == PROTOCOL_ERROR
        assert (await connection.call(port, "/", "12345", content_length="5")).text == "12345"


async def test_who_asks_whether_to_send_a_body_is_told_to() -> None:
    async with answering(echo, HttpLimits()) as (port, _), http2.connected(port) as connection:
        asked = connection.begin("POST", "/", {"expect": "100-continue"}, "t", ended=False)
        async with asyncio.timeout(60):
            told = await asked.events.get()
        assert dict(told.headers)[b":status"] == b"100"
        await connection.send(asked, b"body")
        assert (await asked.answer()).body == b"body"


async def test_a_body_beyond_the_limit_is_refused_while_it_comes() -> None:
    async def take(exchange: Exchange) -> None:
        try:
            await exchange.body.whole()
        except (TooLarge, Crowded) as error:
            exchange.respond(413, b"", type(error).__name__.encode())
        else:
            exchange.respond(200, b"")

    async with answering(take, HttpLimits(body=200_000)) as (port, _), http2.connected(port) as connection:
        large = await connection.ask("POST", "/", b"x" * 1_000_000, {}, port)
        answer = await large.answer()
        assert (answer.status, answer.body) == (413, b"TooLarge")
        # Together they may hold a megabyte; whoever adds to it then is refused, and the room is free again.
        many = [connection.begin("POST", "/", {}, "t", ended=False) for _ in range(6)]
        for one in many:
            await connection.send(one, b"x" * 190_000, ended=False)
        await until(lambda: any(one.events.qsize() for one in many))
        refused = next(one for one in many if one.events.qsize())
        assert (await refused.answer()).body == b"Crowded"
        for one in many:
            if one is not refused:
                connection.core.reset_stream(one.number, CANCEL)
        connection.flush()
        assert (await connection.call(port, "/", "x" * 190_000)).status == 200


async def test_a_body_that_does_not_come_in_time_is_given_up() -> None:
    limits = HttpLimits(body_seconds=0.2)
    async with answering(echo, limits) as (port, _), http2.connected(port) as connection:
        asked = connection.begin("POST", "/", {}, "t", ended=False)
        await connection.send(asked, b"12", ended=False)
        answer = await asked.answer()
        assert answer.status == 408
        assert (await connection.call(port, "/", "12345")).text == "12345"


async def test_an_answer_that_nobody_takes_is_given_up() -> None:
    async def pieces(exchange: Exchange) -> None:
        exchange.begin(200, b"")
        for _ in range(100):
            await exchange.send(b"x" * 10_000)
        exchange.finish()

    limits = HttpLimits(unread_seconds=0.2)
    async with answering(pieces, limits) as (port, shared), http2.connected(port, window=100) as connection:
        asked = await connection.ask("POST", "/", b"", {}, port)
        await asked.head()
        await until(lambda: asked.reset is not None)
        assert asked.reset == CANCEL
        assert not shared._connections


async def test_one_request_more_than_there_may_be_is_told_so() -> None:
    released = asyncio.Event()

    async def wait(exchange: Exchange) -> None:
        await released.wait()
        exchange.respond(200, b"")

    async with answering(wait, HttpLimits(connections=3)) as (port, _), http2.connected(port) as connection:
        asked = [await connection.ask("POST", "/", b"", {}, port) for _ in range(4)]
        assert (await asked[3].answer()).status == 503
        released.set()
        assert [(await one.answer()).status for one in asked[:3]] == [200, 200, 200]


async def test_a_handler_that_fails_fails_its_request_alone() -> None:
    async def fail(exchange: Exchange) -> None:
        if exchange.target == b"/late":
            exchange.begin(200, b"")
        if exchange.target != b"/fine":
            raise RuntimeError("a bug")
        exchange.respond(200, b"", b"fine")

    async with answering(fail, HttpLimits()) as (port, _), http2.connected(port) as connection:
        assert (await connection.call(port, "/early")).status == 500
        late = await connection.ask("POST", "/late", b"", {}, port)
        with pytest.raises(ConnectionError):
            await late.answer()
        assert late.reset == 2  # INTERNAL_ERROR: no answer without an end looks like a whole one
        assert (await connection.call(port, "/fine")).text == "fine"


async def test_fields_beyond_the_limit_and_requests_that_are_none() -> None:
    async with answering(echo, HttpLimits()) as (port, _), http2.connected(port) as connection:
        large = await connection.call(port, "/", x="y" * (81 << 10))
        assert large.status == 431
        asked = connection.begin("POST", "/", {}, "t", ended=True)
        assert (await asked.answer()).status == 200
        options = await (await connection.ask("HEAD", "/", b"", {}, port)).answer("HEAD")
        assert (options.status, options.body) == (200, b"")
