"""The server of HTTP/1 around any handler: what it reads, in which order it answers, and what it bounds."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from connect_kv.frontend.http import heads
from connect_kv.frontend.http.exchange import Crowded, Exchange, TooLarge
from connect_kv.frontend.http.limits import HttpLimits
from tests.gateway.conftest import serving
from tests.gateway.raw import connected, request

PLAIN = heads.constant(heads.TEXT)


async def echo(exchange: Exchange) -> None:
    """The body, behind the method and the path."""
    try:
        body = await exchange.body.whole()
    except TooLarge:
        exchange.respond(413, PLAIN, b"too large")
        return
    except Crowded:
        exchange.respond(429, PLAIN, b"crowded")
        return
    exchange.respond(200, PLAIN, b"%s %s %s" % (exchange.method.encode(), exchange.target, body))


async def lines(exchange: Exchange) -> None:
    """Three pieces."""
    exchange.begin(200, PLAIN)
    for piece in (b"one\n", b"two\n", b"three\n"):
        await exchange.send(piece)
    exchange.finish()


async def test_a_connection_serves_one_request_after_another() -> None:
    async with serving(echo) as (port, _), connected(port) as socket:
        for number in range(3):
            socket.send(request("POST", f"/{number}", b"x" * number))
            answer = await socket.answer()
            assert (answer.status, answer.text) == (200, f"POST /{number} {'x' * number}")
            assert "connection" not in answer.headers
            assert answer.headers["date"].endswith("GMT")


async def test_requests_sent_ahead_are_answered_in_order() -> None:
    async def slow_first(exchange: Exchange) -> None:
        if exchange.target == b"/0":
            await asyncio.sleep(0.05)
        await echo(exchange)

    async with serving(slow_first) as (port, _), connected(port) as socket:
        socket.send(b"".join(request("POST", f"/{number}", b"%d" % number) for number in range(300)))
        for number in range(300):
            assert (await socket.answer()).text == f"POST /{number} {number}"


async def test_a_body_in_chunks_with_extensions_and_trailers() -> None:
    async with serving(echo) as (port, _), connected(port) as socket:
        socket.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4;x=1\r\nwiki\r\n")
        socket.send("5\r\npedia\r\n0\r\nTrailer-One: 1\r\n\r\n")
        assert (await socket.answer()).text == "POST / wikipedia"
        socket.send(request("POST", "/next", b"1"))
        assert (await socket.answer()).text == "POST /next 1"


async def test_who_asks_whether_to_send_its_body_is_told_to() -> None:
    async with serving(echo) as (port, _), connected(port) as socket:
        socket.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert (await socket.head()).status == 100
        socket.send("hi")
        assert (await socket.answer()).text == "POST / hi"


async def test_http_1_0_is_answered_and_closed_unless_it_asks_otherwise() -> None:
    async with serving(echo) as (port, _):
        async with connected(port) as socket:
            socket.send("GET / HTTP/1.0\r\n\r\n")
            answer = await socket.answer()
            assert (answer.headers["connection"], answer.text) == ("close", "GET / ")
            assert await socket.closed()
        async with connected(port) as socket:
            for _ in range(2):
                socket.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                assert (await socket.answer()).headers["connection"] == "keep-alive"


async def test_pieces_are_chunks_or_for_http_1_0_what_comes_until_the_end() -> None:
    async with serving(lines) as (port, _):
        async with connected(port) as socket:
            for _ in range(2):
                socket.send(request("GET", "/"))
                assert (await socket.answer()).chunks == [b"one\n", b"two\n", b"three\n"]
        async with connected(port) as socket:
            socket.send("GET / HTTP/1.0\r\n\r\n")
            assert (await socket.answer()).text == "one\ntwo\nthree\n"


async def test_head_has_the_fields_and_no_body() -> None:
    async with serving(echo) as (port, _), connected(port) as socket:
        socket.send(request("HEAD", "/") + request("GET", "/after"))
        assert (await socket.answer("HEAD")).headers["content-length"] == "7"
        assert (await socket.answer()).text == "GET /after "


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nBad Name: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    ],
)
async def test_what_is_no_http_or_means_two_things_is_refused_and_the_connection_ends(sent: bytes) -> None:
    async with serving(echo) as (port, _), connected(port) as socket:
        socket.send(sent)
        answer = await socket.answer()
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert await socket.closed()


async def test_what_was_asked_before_rubbish_is_answered_first() -> None:
    async with serving(echo) as (port, _), connected(port) as socket:
        socket.send(request("GET", "/good") + b"rubbish\r\n\r\n")
        assert (await socket.answer()).text == "GET /good "
        assert (await socket.answer()).status == 400
        assert await socket.closed()


async def test_a_head_that_is_too_long_is_refused() -> None:
    async with serving(echo, HttpLimits(head=16 << 10)) as (port, _):
        for sent in (
            "GET / HTTP/1.1\r\nHost: a\r\nX: " + "y" * 40_000,
            "GET /" + "y" * 40_000,
            "GET / HTTP/1.1\r\n" + "X: y\r\n" * 10_000,
            "\r\n" * 20_000,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;" + "y" * 40_000,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + "X: y\r\n" * 10_000,
        ):
            async with connected(port) as socket:
                socket.send(sent)
                assert (await socket.answer()).status == 431, sent[:60]
                assert await socket.closed()


async def test_a_body_that_is_too_long_is_refused_however_it_comes() -> None:
    async with serving(echo, HttpLimits(body=100_000)) as (port, server):
        async with connected(port) as socket:
            socket.send(request("POST", "/", b"x" * 100_001))
            assert (await socket.answer()).status == 413
            socket.send(request("POST", "/", b"x"))
            assert (await socket.answer()).status == 200, "it was read to its end"
        async with connected(port) as socket:
            socket.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            with suppress(ConnectionError):
                for _ in range(20):
                    socket.send(b"1f40\r\n" + b"x" * 8000 + b"\r\n")
                    await socket.writer.drain()
            assert (await socket.answer()).status == 413
        async with connected(port) as socket:
            socket.send(request("POST", "/", b"x" * 100_000))
            assert (await socket.answer()).status == 200
        assert server.held == 0


async def test_bodies_of_all_together_are_bounded() -> None:
    async with serving(echo, HttpLimits(held=100_000)) as (port, server):
        async with connected(port) as first, connected(port) as second:
            head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 80000\r\n\r\n"
            first.send(head + "x" * 79_999)
            async with asyncio.timeout(60):
                while server.held < 79_999:  # noqa: ASYNC110  # nothing tells of it
                    await asyncio.sleep(0.005)
            second.send(head + "x" * 80_000)
            assert (await second.answer()).status == 429
            first.send("x")
            assert (await first.answer()).status == 200
        assert server.held == 0


async def test_a_client_that_leaves_is_noticed_and_what_it_sent_is_forgotten() -> None:
    left = asyncio.Event()

    async def waiting(exchange: Exchange) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    async with serving(waiting) as (port, server):
        async with connected(port) as socket:
            socket.send(request("POST", "/", b"x" * 1000))
            await asyncio.sleep(0.01)
        async with asyncio.timeout(60):
            await left.wait()
        assert server.held == 0


async def test_who_only_stops_sending_still_gets_the_answer() -> None:
    async def soon(exchange: Exchange) -> None:
        await asyncio.sleep(0.02)
        await echo(exchange)

    async with serving(soon) as (port, _), connected(port) as socket:
        socket.send(request("POST", "/", b"x"))
        socket.writer.write_eof()
        assert (await socket.answer()).text == "POST / x"


@pytest.mark.parametrize(
    ("sent", "status"),
    [("GET / HT", 408), ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab", 408), ("", None)],
)
async def test_who_is_too_slow_is_cut_off(sent: str, status: int | None) -> None:
    limits = HttpLimits(head_seconds=0.2, body_seconds=0.2, idle_seconds=0.2)
    async with serving(echo, limits) as (port, _), connected(port) as socket:
        socket.send(sent)
        if status is not None:
            assert (await socket.answer()).status == status
        assert await socket.closed()


async def test_a_connection_without_a_request_is_closed_after_a_while() -> None:
    async with serving(echo, HttpLimits(idle_seconds=0.2)) as (port, _), connected(port) as socket:
        socket.send(request("GET", "/"))
        assert (await socket.answer()).status == 200
        assert await socket.closed()


async def test_who_takes_nothing_waits_with_the_server_and_is_cut_off() -> None:
    sent = 0

    async def endless(exchange: Exchange) -> None:
        nonlocal sent
        exchange.begin(200, PLAIN)
        while True:
            await exchange.send(b"x" * 65536)
            sent += 1

    async with serving(endless, HttpLimits(unread_seconds=0.3)) as (port, server):
        async with connected(port) as socket:
            socket.reader._limit = 1  # type: ignore[attr-defined]  # the test's side reads nothing more
            socket.send(request("GET", "/"))
            async with asyncio.timeout(60):
                while server._connections or not sent:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        assert sent < 1000, "bounded by what the sockets hold"


async def test_one_connection_too_many_is_told() -> None:
    limited = serving(echo, HttpLimits(connections=2))
    async with limited as (port, _), connected(port), connected(port), connected(port) as third:
        assert (await third.answer()).status == 503
        assert await third.closed()


async def test_a_handler_that_fails_is_500_and_nothing_half_is_left() -> None:
    async def failing(exchange: Exchange) -> None:
        if exchange.target == b"/half":
            exchange.begin(200, PLAIN)
            await exchange.send(b"half")
        raise ValueError("a mistake")

    async with serving(failing) as (port, _):
        async with connected(port) as socket:
            socket.send(request("GET", "/"))
            assert (await socket.answer()).status == 500
            assert await socket.closed()
        async with connected(port) as socket:
            socket.send(request("GET", "/half"))
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await socket.answer()


async def test_an_upgrade_that_nobody_takes_is_served_as_http_1() -> None:
    async with serving(echo) as (port, _), connected(port) as socket:
        upgrade = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABk"}
        socket.send(request("GET", "/a", headers=upgrade) + request("GET", "/b"))
        assert (await socket.answer()).text == "GET /a "
        assert (await socket.answer()).text == "GET /b "
        socket.send(request("POST", "/c", b"body", headers=upgrade) + request("GET", "/d"))
        assert (await socket.answer()).text == "POST /c body"
        assert (await socket.answer()).text == "GET /d "


async def test_stopping_ends_what_is_open_after_what_is_under_way() -> None:
    begun = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        begun.set()
        await asyncio.sleep(0.05)
        await echo(exchange)

    async with serving(slow) as (port, server), connected(port) as socket, connected(port) as idle:
        socket.send(request("GET", "/"))
        await begun.wait()
        stopping = asyncio.create_task(server.stop(5.0))
        answer = await socket.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await idle.closed()
        await stopping


async def test_the_time_of_a_body_ends_with_the_body() -> None:
    """A call that takes long, such as a lock that waits, is not a client that sends slowly."""

    async def long(exchange: Exchange) -> None:
        body = await exchange.body.whole()
        await asyncio.sleep(0.5)
        exchange.respond(200, PLAIN, body)

    limits = HttpLimits(body_seconds=0.1, head_seconds=0.1)
    async with serving(long, limits) as (port, _), connected(port) as socket:
        socket.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n")
        await asyncio.sleep(0.02)
        socket.send("hi")
        assert (await socket.answer()).text == "hi"


async def test_a_stream_of_requests_may_pause_for_as_long_as_it_likes() -> None:
    async def stream(exchange: Exchange) -> None:
        exchange.begin(200, PLAIN)
        while (data := await exchange.body.read()) is not None:
            await exchange.send(data)
        exchange.finish()

    limits = HttpLimits(body_seconds=0.1, head_seconds=0.1)
    async with serving(stream, limits) as (port, _), connected(port) as socket:
        socket.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        assert (await socket.head()).status == 200
        assert await socket.chunk() == b"one"
        await asyncio.sleep(0.5)
        socket.send("3\r\ntwo\r\n0\r\n\r\n")
        assert await socket.chunk() == b"two"
        assert await socket.chunk() == b""
