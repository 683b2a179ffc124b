"""Limits of a listener: connections, calls, clients that do not read; faults that end one connection."""

from __future__ import annotations

import asyncio

import pytest

from connect_kv.http2.channel import Channel
from connect_kv.http2.frames import (
    DATA,
    GOAWAY,
    PREFACE,
    WINDOW_UPDATE,
    frame,
    settings,
)
from connect_kv.http2.limits import Limits
from connect_kv.http2.listener import Http2Server
from connect_kv.http2.metadata import StatusError
from tests.http2.conftest import Service, until
from tests.http2.peer import Peer


async def test_one_connection_too_many_is_told_so(service: Service) -> None:
    server = service.server(Limits(connections=2))
    port = await server.listen("127.0.0.1", 0)
    peers = [await Peer.connect(port) for _ in range(2)]
    await until(lambda: len(server.sockets) == 2)
    third = await Peer.connect(port)
    goodbye = (await third.rest())[-1]
    assert goodbye.payload[8:] == b"too many connections"
    await third.close()
    await peers[0].close()
    await until(lambda: len(server.sockets) == 1)
    async with await Channel.connect("127.0.0.1", port) as channel:
        assert await channel.unary("/t.T/Echo", b"x") == b"x"
    for peer in peers:
        await peer.close()
    await server.stop(0)


async def test_above_so_many_unanswered_calls_nothing_more_is_read(service: Service) -> None:
    server = service.server(Limits(unanswered=100))
    port = await server.listen("127.0.0.1", 0)
    service.hold.set()
    first, second = await Peer.connect(port), await Peer.connect(port)
    watch = await Channel.connect("127.0.0.1", port)
    streams = [watch.stream("/t.T/Both") for _ in range(200)]
    await streams[-1].write(b"open")
    assert await streams[-1].read() == b"open"
    assert not server.full  # streams are no unanswered calls
    first.writer.write(b"".join(first.call() for _ in range(150)))
    await until(lambda: server.full)
    assert server.unanswered >= 101
    came = len(service.held)
    second.writer.write(second.call())
    with pytest.raises(StatusError, match="Deadline"):
        await watch.unary("/t.T/Echo", b"", 0.1)
    assert len(service.held) == came
    service.hold.clear()
    for call in service.held:
        call.reply(b"")
    server.flush_soon()
    await second.until(DATA)
    await until(lambda: not server.full and server.unanswered == 0)
    for peer in (first, second):
        await peer.close()
    await watch.close()
    await server.stop(0)


async def test_who_does_not_read_is_not_read_from_and_costs_no_memory(
    server: Http2Server, service: Service
) -> None:
    port = await server.listen("127.0.0.1", 0)
    peer = await Peer.connect(port, greet=False)
    peer.writer.write(PREFACE + settings({4: 0x7FFFFFFF}) + frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\0\0"))
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    peer.writer.write(peer.call("/t.T/Endless"))
    await until(lambda: server.sockets)
    (socket,) = server.sockets
    await until(lambda: socket._core is not None and socket._core.paused)
    core = socket._core
    assert core is not None
    assert core.waiting < 3000
    # Asked without end, and never read. It would be answered at once, if it were read.
    asked = peer.call(body=b"v" * 10_000) * 1
    async with asyncio.timeout(10):
        while not peer.writer.transport.get_write_buffer_size():
            peer.writer.write(asked)
            asked = peer.call(body=b"v" * 10_000)
            await asyncio.sleep(0)
    assert sum(map(len, core.out)) < 4 << 20
    async with await Channel.connect("127.0.0.1", port) as channel:
        assert await channel.unary("/t.T/Echo", b"others") == b"others"
    peer.writer.transport.abort()
    await until(lambda: service.cancelled == 1)


async def test_who_sends_an_octet_at_a_time_is_given_the_time_of_a_greeting(service: Service) -> None:
    server = service.server(Limits(handshake=0.2))
    port = await server.listen("127.0.0.1", 0)
    peer = await Peer.connect(port, greet=False)
    for octet in PREFACE:
        peer.writer.write(bytes((octet,)))
        await asyncio.sleep(0.01)
    assert (await peer.rest())[-1].payload[8:] == b"the connection was not greeted in time"
    await peer.close()
    await server.stop(0)


async def test_an_error_leaves_the_client_time_to_read_the_reason(server: Http2Server) -> None:
    """Bytes unread in a socket that is closed make the system take back what was sent."""
    port = await server.listen("127.0.0.1", 0)
    for _ in range(10):
        peer = await Peer.connect(port)
        peer.writer.write(frame(DATA, 0, 1, b"x") + b"\0" * 1_000_000)
        assert (await peer.rest())[-1].kind == GOAWAY
        await peer.close()


async def test_a_fault_of_ours_ends_the_connection_and_no_other(
    server: Http2Server, caplog: pytest.LogCaptureFixture
) -> None:
    port = await server.listen("127.0.0.1", 0)
    peer = await Peer.connect(port)
    await until(lambda: server.sockets)
    (socket,) = server.sockets
    assert socket._core is not None

    def broken(data: bytes, now: float) -> None:
        raise RuntimeError("a bug")

    socket._core.receive = broken  # type: ignore[method-assign]
    peer.writer.write(peer.call())
    assert (await peer.until(GOAWAY)).code == 2
    await peer.close()
    assert "a connection failed" in caplog.text
    async with await Channel.connect("127.0.0.1", port) as channel:
        assert await channel.unary("/t.T/Echo", b"x") == b"x"
