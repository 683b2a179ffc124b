"""What the recorded cases do not have: long streams, WebSocket, our own services, limits, the document."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from google.protobuf.descriptor import Descriptor

from connect_kv import Replicated, command
from connect_kv.frontend.http.openapi import document
from connect_kv.frontend.http.paths import targets
from connect_kv.json_mapping.decoding import decode
from connect_kv.server.composition import KvServer
from connect_kv.server.machines import hosted
from tests.gateway.conftest import member
from tests.gateway.raw import Answer, Socket, call, connected, request


def b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


async def line(socket: Socket) -> Any:
    async with asyncio.timeout(60):
        return json.loads(await socket.chunk())


def said(answer: Answer) -> tuple[int, Any]:
    return answer.status, json.loads(answer.text)


async def test_a_stream_takes_messages_while_it_answers(port: int) -> None:
    async with connected(port) as socket:
        socket.send("POST /v3/watch HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number, key in enumerate("ab"):
            text = f'{{"create_request":{{"key":"{b64(key)}"}}}}'
            for part in (text[:9], text[9:]):  # pieces end anywhere
                socket.send(f"{len(part):x}\r\n{part}\r\n")
            if not number:
                assert (await socket.head()).status == 200
            assert (await line(socket))["result"].get("watch_id", "0") == str(number)
        await call(port, "/v3/kv/put", f'{{"key":"{b64("b")}"}}')
        assert (await line(socket))["result"]["events"][0]["kv"]["key"] == b64("b")


async def test_a_later_message_that_cannot_be_read_is_the_last_line(port: int) -> None:
    async with connected(port) as socket:
        body = b'{"create_request":{"key":"YQ=="}}{"create_request":5}'
        socket.send(request("POST", "/v3/watch", body))
        assert (await socket.head()).status == 200
        found = [await line(socket)]
        if "error" not in found[0]:  # the answer to the first may be written or not
            found.append(await line(socket))
        assert found[-1]["error"]["code"] == 3
        assert await socket.chunk() == b""


async def test_closing_the_connection_ends_the_call(server: KvServer, port: int) -> None:
    lease = json.loads((await call(port, "/v3/lease/grant", '{"TTL":60,"ID":7}')).text)["ID"]
    await call(port, "/v3/lock/lock", f'{{"name":"{b64("m")}","lease":"{lease}"}}')
    async with connected(port) as socket:
        socket.send(request("POST", "/v3/lock/lock", f'{{"name":"{b64("m")}"}}'.encode()))
        await until_keys(port, 2)
    await until_keys(port, 1)


async def until_keys(port: int, wanted: int) -> None:
    """Each look is a call, so nothing spins."""
    async with asyncio.timeout(60):
        while json.loads((await call(port, "/v3/kv/range", RANGE_ALL)).text).get("count") != str(wanted):
            pass


RANGE_ALL = '{"key":"AA==","range_end":"AA=="}'


async def test_a_watch_that_reads_nothing_slows_nobody(server: KvServer, port: int) -> None:
    async with connected(port) as socket:
        socket.reader._limit = 1  # type: ignore[attr-defined]  # the test's side reads nothing more
        socket.send(request("POST", "/v3/watch", b'{"create_request":{"key":"AA==","range_end":"AA=="}}'))
        value = b64(bytes(200_000))
        for number in range(40):
            answer = await call(port, "/v3/kv/put", f'{{"key":"{b64(str(number))}","value":"{value}"}}')
            assert answer.status == 200


async def test_a_stream_ends_with_a_reason_when_the_server_stops(tmp_path: Path) -> None:
    async with member(tmp_path) as server, connected(server.services.client_port) as socket:
        socket.send(request("POST", "/v3/watch", b'{"create_request":{"key":"YQ=="}}'))
        await socket.head()
        await line(socket)
        stopping = asyncio.create_task(server.services.stop())
        assert (await line(socket))["error"] == {"code": 14, "message": "etcdserver: server stopped"}
        await stopping


async def test_websocket_has_a_message_for_each_request_and_each_answer(port: int) -> None:
    url = f"http://127.0.0.1:{port}/v3/watch"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        await socket.send_str(f'{{"create_request":{{"key":"{b64("a")}"}}}}')
        assert (await socket.receive_json())["result"]["created"] is True
        await socket.send_str(f'{{"create_request":{{"key":"{b64("b")}"}}}}')
        assert (await socket.receive_json())["result"]["watch_id"] == "1"
        await call(port, "/v3/kv/put", f'{{"key":"{b64("b")}"}}')
        assert (await socket.receive_json())["result"]["events"][0]["kv"]["key"] == b64("b")
        await socket.ping()
        await socket.send_str("{")
        assert (await socket.receive_json())["error"] == {"code": 3, "message": "unexpected EOF"}
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE


async def test_websocket_of_a_stream_that_ends_is_closed(port: int) -> None:
    url = f"http://127.0.0.1:{port}/v3/maintenance/snapshot"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        await socket.send_str("{}")
        kinds = []
        while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
            kinds.append(set(json.loads(message.data)["result"]))
        assert any("blob" in one for one in kinds)
        assert message.type is aiohttp.WSMsgType.CLOSE


async def test_websocket_with_a_token_as_second_protocol(port: int) -> None:
    for path, body in (
        ("user/add", '{"name":"root","password":"pw"}'),
        ("user/grant", '{"user":"root","role":"root"}'),
        ("enable", "{}"),
    ):
        assert (await call(port, f"/v3/auth/{path}", body)).status == 200
    login = await call(port, "/v3/auth/authenticate", '{"name":"root","password":"pw"}')
    token = json.loads(login.text)["token"]
    url = f"http://127.0.0.1:{port}/v3/watch"
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(url, protocols=["Bearer", token]) as socket:
            assert socket.protocol == "Bearer"
            await socket.send_str('{"create_request":{"key":"YQ=="}}')
            assert "canceled" not in (await socket.receive_json())["result"]
        async with session.ws_connect(url, headers={"Authorization": token}) as socket:
            await socket.send_str('{"create_request":{"key":"YQ=="}}')
            assert "user name is empty" in (await socket.receive_json())["result"]["cancel_reason"]


async def test_a_websocket_that_is_broken_or_for_no_stream_is_refused(port: int) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    async with connected(port) as socket:
        socket.send(request("GET", "/v3/watch", headers=upgrade))
        assert (await socket.answer()).status == 400
    async with connected(port) as socket:
        socket.send(request("GET", "/v3/kv/put", headers=upgrade | {"Sec-WebSocket-Key": b64(bytes(16))}))
        assert (await socket.answer()).status == 501
    async with connected(port) as socket:
        socket.send(request("GET", "/v3/watch", headers=upgrade | {"Sec-WebSocket-Key": b64(bytes(16))}))
        assert (await socket.head()).status == 101
        socket.send(b"\x81\x05hello")  # without the mask that a client must use
        assert (await socket.reader.read())[:1] == b"\x88"


class Counter(Replicated):
    """Counts."""

    def __init__(self) -> None:
        self.total = 0

    @command
    def increment(self, by: int = 1) -> int:
        """Add, and give the sum."""
        self.total += by
        return self.total


async def test_replicated_classes_are_called(tmp_path: Path) -> None:
    from connect_kv.config import ServerConfig

    config = ServerConfig(
        name="n1", data_dir=tmp_path / "n1", listen_client="127.0.0.1:0", listen_peer="127.0.0.1:0",
        listen_http="",
    )  # fmt: skip
    server = KvServer(config, {"counter": hosted(Counter(), "the test")})
    await server.start()
    try:
        await server.services.opening.wait()
        port = server.services.client_port
        body = json.dumps({"machine": "counter", "method": "increment", "json": '{"by": 5}'})
        answer = await call(port, "/connect_kv/v1/machine/call", body)
        assert (answer.status, json.loads(answer.text)["json"]) == (200, "5")
        body = json.dumps({"machine": "counter", "method": "nothing", "json": "{}"})
        assert (await call(port, "/connect_kv/v1/machine/call", body)).status == 404
        described = json.loads((await call(port, "/connect_kv/v1/machine/describe")).text)
        assert described["machines"][0]["methods"][0]["name"] == "increment"
    finally:
        await server.stop()


async def test_the_document_names_every_path_and_every_message(port: int) -> None:
    url = f"http://127.0.0.1:{port}/openapi.json"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        found = await answer.json()
    assert set(found["paths"]) == set(targets())
    schemas = found["components"]["schemas"]
    text = json.dumps(found)
    for name in schemas:
        assert f'"#/components/schemas/{name}"' in text, f"{name} is used by nothing"
    assert schemas["KeyValue"]["properties"]["mod_revision"] == {"type": "string", "format": "int64"}
    assert schemas["RangeRequest"]["properties"]["sort_order"]["enum"] == ["NONE", "ASCEND", "DESCEND"]
    operations = [path["post"]["operationId"] for path in document("1")["paths"].values()]
    assert len(set(operations)) == len(operations)


@pytest.mark.parametrize(
    ("sent", "status"),
    [("1n", 504), ("5S", 200), ("x", 400), ("5", 400), ("-1S", 400), ("9" * 30 + "S", 400)],
)
async def test_the_time_of_a_call(port: int, sent: str, status: int) -> None:
    answer = await call(port, "/v3/kv/range", RANGE_ALL, Grpc_Timeout=sent)
    assert answer.status == status


async def test_a_call_that_waits_ends_with_its_time(port: int) -> None:
    name = f'{{"name":"{b64("m")}"}}'
    await call(port, "/v3/lock/lock", name)
    answer = await call(port, "/v3/lock/lock", name, Grpc_Timeout="50m")
    assert said(answer) == (
        504,
        {"error": "context deadline exceeded", "code": 4, "message": "context deadline exceeded"},
    )


async def test_nobody_gives_itself_a_certificate_or_an_address(port: int) -> None:
    """Fields that a server adds for the router begin with a colon, which no header's name can have."""
    async with connected(port) as socket:
        socket.send(
            b"POST /v3/kv/range HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n"
            b"Grpc-Metadata-:certificate-name: root\r\n\r\n{}"
        )
        assert (await socket.answer()).status == 400


async def test_only_hosts_on_the_list_are_answered(tmp_path: Path) -> None:
    async with member(tmp_path, host_whitelist="a.example,b.example") as server:
        port = server.services.client_port
        for host, status in (
            ("a.example", 200),
            ("b.example:80", 200),
            ("127.0.0.1", 421),
            ("A.example", 421),
        ):
            async with connected(port) as socket:
                socket.send(request("GET", "/health", headers={"Host": host}))
                answer = await socket.answer()
                assert answer.status == status
        assert answer.text.startswith("\netcd received your request, but the Host header was unrecognized.")
        assert "access-control-allow-origin" not in answer.headers


async def test_the_port_for_http_has_no_gateway_where_clients_must_show_more() -> None:
    from connect_kv.config import ServerConfig
    from connect_kv.server.tls import gateway_on_http_port

    tls = {"cert_file": Path("a"), "key_file": Path("b")}
    ca = {**tls, "trusted_ca_file": Path("c")}
    for options, has in (
        ({}, True), (tls, True), ({**tls, "http_tls": "off"}, False), (ca, False),
        ({**ca, "http_tls": "mutual"}, True), ({**ca, "http_tls": "off"}, False),
    ):  # fmt: skip
        assert gateway_on_http_port(ServerConfig(**options)) is has, options


async def test_an_answer_of_many_keys_comes_in_pieces_and_whole(port: int) -> None:
    for start in range(0, 2000, 100):
        puts = [
            {"request_put": {"key": b64(f"{number:05}"), "value": b64("x" * 50)}}
            for number in range(start, start + 100)
        ]
        assert (await call(port, "/v3/kv/txn", json.dumps({"success": puts}))).status == 200
    answer = await call(port, "/v3/kv/range", RANGE_ALL)
    assert len(answer.chunks) > 1
    assert [one["key"] for one in json.loads(answer.text)["kvs"]] == [b64(f"{n:05}") for n in range(2000)]


async def test_calls_sent_ahead_are_answered_in_order_good_ones_and_bad_ones(port: int) -> None:
    """Those that need no task and those that do, on one connection."""
    sent, wanted = [], []
    for number in range(200):
        match number % 5:
            case 0:
                sent.append(request("POST", "/v3/kv/put", f'{{"key":"{b64(str(number))}"}}'.encode()))
                wanted.append(200)
            case 1:
                sent.append(request("POST", "/v3/kv/put", b'{"key":'))
                wanted.append(400)
            case 2:
                sent.append(request("GET", "/version"))
                wanted.append(200)
            case 3:
                sent.append(request("POST", "/v3/kv/range", b'{"key":"YQ=="}', {"Grpc-Timeout": "1n"}))
                wanted.append(504)
            case _:
                head = b"POST /v3/kv/range HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                sent.append(head + b'7\r\n{"key":\r\n7\r\n"YQ=="}\r\n0\r\n\r\n')
                wanted.append(200)
    async with connected(port) as socket:
        socket.send(b"".join(sent))
        assert [(await socket.answer()).status for _ in wanted] == wanted


async def test_a_fault_of_ours_in_one_request_is_not_that_of_others(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from connect_kv.frontend.http import together

    def faulty(kind: Descriptor, text: str) -> tuple[bytes, int]:
        if "ZmF1bHR5" in text:
            raise RuntimeError("a mistake")
        return decode(kind, text)

    monkeypatch.setattr(together, "decode", faulty)
    bodies = [b'{"key":"YQ=="}', b'{"key":"ZmF1bHR5"}', b'{"key":"Yg=="}']
    async with connected(port) as socket:
        socket.send(b"".join(request("POST", "/v3/kv/range", body) for body in bodies))
        assert [(await socket.answer()).status for _ in bodies] == [200, 500, 200]


async def test_clients_that_leave_before_their_answer_leave_nothing(server: KvServer, port: int) -> None:
    for _ in range(30):
        async with connected(port) as socket:
            socket.send(request("POST", "/v3/kv/put", b'{"key":"YQ==","value":"YQ=="}'))
            socket.send(b"POST /v3/kv/put HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
    assert (await call(port, "/v3/kv/put", '{"key":"YQ=="}')).status == 200
    serving = server.services._http._serving
    assert serving is not None
    async with asyncio.timeout(60):
        while serving.server._connections:  # noqa: ASYNC110  # they are closed by the other side
            await asyncio.sleep(0.01)
    assert serving.server.held == 0


async def test_a_body_over_the_limit_is_refused_where_no_task_waits_for_it(port: int) -> None:
    async with connected(port) as socket:
        socket.send(b"POST /v3/kv/put HTTP/1.1\r\nHost: a\r\nContent-Length: 30000000\r\n\r\n")
        socket.send(bytes(20 << 20))
        answer = await socket.answer()
    assert said(answer)[1]["code"] == 8
    assert answer.headers["connection"] == "close"
