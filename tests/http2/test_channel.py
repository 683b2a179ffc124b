"""Our client under asyncio: against our own server and against grpcio's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from connect_kv.http2.channel import CLIENT_LIMITS, Channel
from connect_kv.http2.limits import Limits
from connect_kv.http2.listener import Http2Server
from connect_kv.http2.metadata import StatusError
from tests.http2.conftest import Service, until

ECHO, BOTH, SIZE, SLOW, FAIL = "/t.T/Echo", "/t.T/Both", "/t.T/Size", "/t.T/Slow", "/t.T/Fail"


async def _grpcio(service: Service) -> tuple[grpc.aio.Server, int]:
    """The same methods, served by grpcio."""

    async def echo(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return request

    async def size(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return b"v" * int(request)

    async def slow(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await until(lambda: not service.hold.is_set(), 60)
        return request

    async def fail(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        context.set_trailing_metadata((("reason", "size"), ("detail-bin", b"\0\xff")))
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "größer als 50%")

    async def both(
        requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    handlers: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(handler)
        for name, handler in (("Echo", echo), ("Size", size), ("Slow", slow), ("Fail", fail))
    }
    handlers["Both"] = grpc.stream_stream_rpc_method_handler(both)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


@pytest.fixture(params=["ours", "grpcio"])
async def port(request: pytest.FixtureRequest, service: Service, server: Http2Server) -> AsyncIterator[int]:
    if request.param == "ours":
        yield await server.listen("127.0.0.1", 0)
    else:
        theirs, port = await _grpcio(service)
        yield port
        service.hold.clear()
        await theirs.stop(0)


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_380, 100_000, 2_000_000])
async def test_messages_of_any_size_there_and_back(port: int, size: int) -> None:
    async with await Channel.connect("127.0.0.1", port) as channel:
        assert await channel.unary(SIZE, b"%d" % size) == b"v" * size
        assert await channel.unary(ECHO, b"w" * size) == b"w" * size


async def test_a_thousand_calls_at_a_time(port: int) -> None:
    async with await Channel.connect("127.0.0.1", port) as channel:
        answers = await asyncio.gather(*(channel.unary(ECHO, b"%d" % number) for number in range(1000)))
    assert answers == [b"%d" % number for number in range(1000)]


async def test_a_status_with_its_text_and_metadata(port: int) -> None:
    async with await Channel.connect("127.0.0.1", port) as channel:
        with pytest.raises(StatusError) as raised:
            await channel.unary(FAIL, b"")
        assert (raised.value.code, raised.value.text) == (9, "größer als 50%")
        assert dict(raised.value.trailing)["detail-bin"] == b"\0\xff"
        with pytest.raises(StatusError) as raised:
            await channel.unary("/t.T/None", b"")
        assert raised.value.code == 12


async def test_a_deadline(port: int, service: Service) -> None:
    service.hold.set()
    async with await Channel.connect("127.0.0.1", port) as channel:
        with pytest.raises(StatusError) as raised:
            await channel.unary(SLOW, b"", 0.1)
        assert raised.value.code == 4
        service.hold.clear()
        assert await channel.unary(ECHO, b"alive") == b"alive"


async def test_a_stream_in_both_directions(port: int) -> None:
    async with await Channel.connect("127.0.0.1", port) as channel:
        stream = channel.stream(BOTH)
        for number in range(50):
            await stream.write(b"%d" % number)
            assert await stream.read() == b"%d" % number
        bodies = [b"v" * size for size in (0, 1, 100_000, 1_000_000)]

        async def write() -> None:
            for body in bodies:
                await stream.write(body)
            stream.end()

        writing = asyncio.ensure_future(write())
        assert [one async for one in stream] == bodies
        await writing
        assert await stream.read() is None
        with pytest.raises(StatusError, match="ended the call"):
            await stream.write(b"late")


async def test_a_stream_that_is_watched_needs_no_task(port: int) -> None:
    """What comes is there within the turn that brings it; what is pushed leaves at once, and waits where the
    server's windows have no room.
    """
    sizes = [1_000_000] * 5 + [0, 1]
    async with await Channel.connect("127.0.0.1", port) as channel:
        stream = channel.stream(BOTH)
        came: list[bytes] = []
        changed = asyncio.Event()

        def watch() -> None:
            while not stream.over and (message := stream.poll()) is not None:
                came.append(message)
            changed.set()

        stream.watch(watch)
        backlogs = set()
        for size in sizes:
            while stream.backlog:
                changed.clear()
                await changed.wait()
            stream.push(b"v" * size)
            backlogs.add(stream.backlog)
        await until(lambda: len(came) == len(sizes))
        assert [len(message) for message in came] == sizes
        assert backlogs == {True, False}
        assert not stream.over
        stream.end()
        await until(lambda: stream.over)
        assert stream.poll() is None


async def test_a_watched_stream_is_told_how_it_ended(port: int) -> None:
    async with await Channel.connect("127.0.0.1", port) as channel:
        stream = channel.stream("/t.T/None")
        told: list[bool] = []
        stream.watch(lambda: told.append(stream.over))
        await until(lambda: stream.over)
        assert told[-1]
        with pytest.raises(StatusError) as raised:
            stream.poll()
        assert raised.value.code == 12
        stream.push(b"late")  # harmless
        assert not stream.backlog


async def test_nobody_listens() -> None:
    with pytest.raises(OSError, match="1"):
        await Channel.connect("127.0.0.1", 1)


class Other(asyncio.Protocol):
    """A server that is none of HTTP/2."""

    def __init__(self, words: bytes, made: list[asyncio.Transport], lost: list[asyncio.Transport]) -> None:
        self._words, self._made, self._lost = words, made, lost

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._made.append(transport)
        if self._words:
            transport.write(self._words)
            transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost.append(self._transport)


@asynccontextmanager
async def other(words: bytes) -> AsyncIterator[int]:
    made: list[asyncio.Transport] = []
    lost: list[asyncio.Transport] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Other(words, made, lost), "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for transport in made:
        transport.abort()
    await until(lambda: len(lost) == len(made))


async def test_something_else_listens() -> None:
    async with other(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        with pytest.raises(StatusError) as raised:
            await Channel.connect("127.0.0.1", port)
    assert raised.value.code == 14


async def test_who_accepts_and_says_nothing_is_given_up_in_time() -> None:
    async with other(b"") as port:
        with pytest.raises(TimeoutError):
            await Channel.connect("127.0.0.1", port, limits=Limits(handshake=0.3))


async def test_a_server_that_dies_fails_calls_and_another_connection_is_needed(
    server: Http2Server, service: Service
) -> None:
    port = await server.listen("127.0.0.1", 0)
    service.hold.set()
    channel = await Channel.connect("127.0.0.1", port)
    answer = asyncio.ensure_future(channel.unary(SLOW, b""))
    await until(lambda: server.unanswered)
    for socket in list(server.sockets):
        socket._transport.abort()
    with pytest.raises(StatusError) as raised:
        await answer
    assert (raised.value.code, raised.value.unprocessed) == (14, False)
    with pytest.raises(StatusError) as raised:
        await channel.unary(ECHO, b"")
    assert raised.value.unprocessed
    assert channel.leaving
    await channel.close()
    service.hold.clear()
    async with await Channel.connect("127.0.0.1", port) as channel:
        assert await channel.unary(ECHO, b"again") == b"again"


async def test_a_silent_server_is_noticed(server: Http2Server, service: Service) -> None:
    port = await server.listen("127.0.0.1", 0)
    limits = Limits(message=CLIENT_LIMITS.message, keepalive=0.1, keepalive_timeout=0.1)
    channel = await Channel.connect("127.0.0.1", port, limits=limits)
    await until(lambda: server.sockets)
    (socket,) = server.sockets
    stream = channel.stream(BOTH)
    await stream.write(b"x")
    assert await stream.read() == b"x"
    socket._transport.pause_reading()
    with pytest.raises(StatusError, match="no sign of life"):
        await stream.read()
    await channel.close()


async def test_a_call_that_is_cancelled_costs_the_channel_nothing(
    server: Http2Server, service: Service
) -> None:
    port = await server.listen("127.0.0.1", 0)
    service.hold.set()
    async with await Channel.connect("127.0.0.1", port) as channel:
        for _ in range(10):
            task = asyncio.ensure_future(channel.unary(SLOW, b""))
            await until(lambda: server.unanswered)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: not server.unanswered)
        service.hold.clear()
        assert await channel.unary(ECHO, b"x") == b"x"
