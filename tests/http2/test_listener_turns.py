"""A listener's turns: batches and single writes, and tasks of calls that are given up or fail."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import hpack
import pytest

from connect_kv.http2.channel import Channel
from connect_kv.http2.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)
from connect_kv.http2.listener import Http2Server
from connect_kv.http2.metadata import StatusError
from tests.http2.conftest import Service, until
from tests.http2.peer import Peer
from tests.http2.wire import message, request


async def test_calls_of_several_connections_are_handed_over_together(
    server: Http2Server, service: Service
) -> None:
    port = await server.listen("127.0.0.1", 0)
    peers = [await Peer.connect(port) for _ in range(5)]
    for peer in peers:
        await peer.until(SETTINGS)
    await until(lambda: len(server.sockets) == 5)
    together = 0
    for _ in range(20):
        service.batches.clear()
        for peer in peers:
            peer.writer.write(peer.call())
        for peer in peers:
            await peer.answer()
        together += len({call.connection for call in service.batches[0]}) > 1
    assert together
    for peer in peers:
        await peer.close()


async def test_all_frames_of_a_turn_leave_with_one_write(server: Http2Server, service: Service) -> None:
    port = await server.listen("127.0.0.1", 0)
    peer = await Peer.connect(port)
    await until(lambda: server.sockets)
    (socket,) = server.sockets
    await peer.until(WINDOW_UPDATE)
    writes: list[bytes] = []
    real = socket._transport

    class Counted:
        def write(self, data: bytes) -> None:
            writes.append(data)
            real.write(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    socket._transport = Counted()  # type: ignore[assignment]
    peer.writer.write(b"".join(peer.call(body=b"%d" % number) for number in range(50)))
    for _ in range(50):
        await peer.until(DATA)
    assert len(writes) == 1
    await peer.close()


async def test_connections_that_have_nothing_to_say_cost_nothing(
    server: Http2Server, service: Service
) -> None:
    """Only those are looked at that something came from, or leaves for."""
    port = await server.listen("127.0.0.1", 0)
    peers = [await Peer.connect(port) for _ in range(30)]
    for peer in peers:
        while not (await peer.until(SETTINGS)).flags & ACK:
            pass
    looked_at: list[object] = []
    for socket in server.sockets:

        def write(socket: Any = socket) -> None:
            looked_at.append(socket)
            type(socket).write(socket)

        socket.write = write  # type: ignore[method-assign]
    looked_at.clear()
    peers[7].writer.write(peers[7].call())
    await peers[7].until(DATA)
    assert len(set(looked_at)) == 1
    for peer in peers:
        await peer.close()


async def test_a_batch_that_raises_fails_its_calls_and_says_so(
    server: Http2Server, caplog: pytest.LogCaptureFixture
) -> None:
    port = await server.listen("127.0.0.1", 0)
    async with await Channel.connect("127.0.0.1", port) as channel:
        with (
            caplog.at_level(logging.ERROR),
            pytest.raises(StatusError, match="RuntimeError: a bug") as raised,
        ):
            await channel.unary("/t.T/Broken", b"")
        assert raised.value.code == 13
        assert await channel.unary("/t.T/Echo", b"alive") == b"alive"
    assert "a batch of calls failed" in caplog.text


async def test_a_task_whose_call_is_given_up_is_cancelled(server: Http2Server, service: Service) -> None:
    port = await server.listen("127.0.0.1", 0)
    service.hold.set()
    async with await Channel.connect("127.0.0.1", port) as channel:
        with pytest.raises(StatusError, match="Deadline"):
            await channel.unary("/t.T/Slow", b"", 0.05)
        await until(lambda: not server.unanswered and service.begun == service.over)
        assert service.cancelled == service.begun  # or it was cancelled before it began
        service.begun = service.cancelled = service.over = 0
        task = asyncio.ensure_future(channel.unary("/t.T/Slow", b""))
        await until(lambda: service.begun == 1)
        stream = channel.stream("/t.T/Both")
        await stream.write(b"x")
        assert await stream.read() == b"x"
        task.cancel()
        await until(lambda: service.cancelled == 1)
        stream.cancel()
        await until(lambda: service.cancelled == 2)
        endless = channel.stream("/t.T/Endless")
        assert await endless.read() == b"v" * 1000
    await until(lambda: service.cancelled == 3)


async def test_a_deadline_ends_a_task_whose_client_says_nothing(
    server: Http2Server, service: Service
) -> None:
    port = await server.listen("127.0.0.1", 0)
    service.hold.set()
    peer = await Peer.connect(port)
    block = hpack.Encoder().encode(request(("grpc-timeout", "50m"), path=b"/t.T/Slow"))
    peer.writer.write(frame(HEADERS, END_HEADERS, 1, block) + frame(DATA, END_STREAM, 1, message(b"")))
    trailers = await peer.until(HEADERS)
    assert ("grpc-status", "4") in [(str(n), str(v)) for n, v in hpack.Decoder().decode(trailers.payload)]
    await until(lambda: not server.unanswered and service.begun == service.cancelled)
    await peer.close()


async def test_what_a_task_raises_is_the_status(
    server: Http2Server, caplog: pytest.LogCaptureFixture
) -> None:
    port = await server.listen("127.0.0.1", 0)
    async with await Channel.connect("127.0.0.1", port) as channel:
        with pytest.raises(StatusError) as raised:
            await channel.unary("/t.T/Refuse", b"")
        assert (raised.value.code, raised.value.text) == (3, "no")
        assert raised.value.trailing == [("x", "y")]
        with pytest.raises(StatusError, match="ValueError") as raised:
            await channel.unary("/t.T/Size", b"x")
        assert raised.value.code == 2
        with pytest.raises(StatusError, match="TypeError"):
            await channel.unary("/t.T/Nothing", b"")
        stream = channel.stream("/t.T/OneThenFail")
        await stream.write(b"")
        assert await stream.read() == b"one"
        with pytest.raises(StatusError, match="then none"):
            await stream.read()
