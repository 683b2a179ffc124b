"""A listener with TLS: handshakes that come, fail, or are given up for others."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from connect_kv.certificates import presented
from connect_kv.http2.channel import Channel
from connect_kv.http2.limits import Limits
from connect_kv.http2.listener import Http2Server
from tests.http2.conftest import Service, client_context, server_context, until
from tests.http2.peer import Peer


async def test_tls_with_alpn_and_a_clients_certificate(
    service: Service, certificates: Path, http1: Callable[[], asyncio.Protocol]
) -> None:
    server = service.server(http1=http1)
    port = await server.listen("127.0.0.1", 0, server_context(certificates))
    context = client_context(certificates, "h2", client=True)
    async with await Channel.connect("127.0.0.1", port, context) as channel:
        assert await channel.unary("/t.T/Echo", b"x" * 200_000) == b"x" * 200_000
    certificate = service.batches[0][0].peer.certificate
    assert certificate is not None
    assert presented(certificate).common_name == "client"
    async with await Channel.connect("127.0.0.1", port, client_context(certificates, "h2")) as channel:
        await channel.unary("/t.T/Echo", b"")
    assert service.batches[1][0].peer.certificate is None
    for protocols in (["http/1.1"], []):
        tls = client_context(certificates, *protocols)
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"https://127.0.0.1:{port}/version", ssl=tls) as answer,
        ):
            assert (await answer.json())["path"] == "/version"
    async with await Channel.connect("127.0.0.1", port, client_context(certificates)) as channel:
        assert await channel.unary("/t.T/Echo", b"no alpn") == b"no alpn"
    await server.stop(1)


async def test_a_tls_handshake_that_does_not_come_is_given_up(service: Service, certificates: Path) -> None:
    server = service.server(Limits(handshake=0.2))
    port = await server.listen("127.0.0.1", 0, server_context(certificates))
    peer = await Peer.connect(port, greet=False)
    assert await peer.rest() == []
    await peer.close()
    await server.stop(0)


@pytest.mark.parametrize("secured", [False, True])
async def test_who_only_connects_makes_room_for_others(secured: bool, certificates: Path) -> None:
    """The oldest of those that have not shown who they are is closed for the next; who goes on is served."""
    service = Service()
    server = Http2Server({"/t.T/Echo": service.echo}, limits=Limits(arrivals=5, handshake=60))
    port = await server.listen("127.0.0.1", 0, server_context(certificates) if secured else None)
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
    await until(lambda: len(server.arrivals) == 5)
    peers = []
    for _ in range(3):
        peer = await Peer.connect(port, client_context(certificates, "h2") if secured else None)
        peer.writer.write(peer.call(body=b"hello"))
        await peer.answer()
        peers.append(peer)
    counted = server.arrivals.turned_away, len(server.arrivals)
    async with asyncio.timeout(10):
        with suppress(ConnectionError):
            await silent[0][0].read()
    for _, writer in silent:
        writer.close()
    for peer in peers:
        peer.writer.close()
    await server.stop(1)
    assert counted == (1, 4), "those that go on are not among them"
    assert not len(server.arrivals)


async def test_who_stops_within_its_first_record_costs_no_handshake_and_may_go_on(certificates: Path) -> None:
    server = Http2Server({"/t.T/Echo": Service().echo}, limits=Limits(handshake=60))
    port = await server.listen("127.0.0.1", 0, server_context(certificates))
    first = hello()
    opened = []
    for size in (0, 3, 6, len(first) - 1):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(first[:size])
        opened.append((reader, writer, size))
    await until(lambda: len(server.arrivals) == 4)
    peer = await Peer.connect(port, client_context(certificates, "h2"))
    peer.writer.write(peer.call(body=b"hello"))
    await peer.answer()
    handshakes: Any = server._handshakes
    assert not handshakes._tasks, "nothing is made for them yet"
    for reader, writer, size in opened:
        writer.write(first[size:])
        async with asyncio.timeout(10):
            assert await reader.readexactly(1) == b"\x16", "a handshake's record"
        writer.close()
    peer.writer.close()
    await server.stop(1)
    assert not len(server.arrivals)


def hello() -> bytes:
    """What a client of TLS sends first."""
    sent = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent).do_handshake()
    return sent.read()


async def test_a_handshake_that_fails_is_a_line_with_its_reason(
    certificates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = Http2Server({}, limits=Limits())
    port = await server.listen("127.0.0.1", 0, server_context(certificates))
    for _ in range(3):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        with suppress(ConnectionError):
            await reader.read()
        writer.close()
    await server.stop(0)
    lines = [one for one in caplog.records if one.getMessage() == "a handshake failed"]
    assert len(lines) == 1, "one a minute for a host"
    assert "HTTP" in str(vars(lines[0])["reason"])
    assert str(vars(lines[0])["peer"]).startswith("127.0.0.1:")
