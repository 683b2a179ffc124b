"""Sockets: turns, batches and writes; HTTP/1.1 on the same port; TLS; limits; leaving."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from socket import has_dualstack_ipv6
from typing import Any

import aiohttp
import hpack
import pytest
from aiohttp import web

from connect_kv.certificates import presented
from connect_kv.http2.channel import Channel
from connect_kv.http2.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PREFACE,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    settings,
)
from connect_kv.http2.limits import Limits
from connect_kv.http2.listener import Http2Server
from connect_kv.http2.metadata import StatusError
from tests.etcd import skip_loudly
from tests.http2.conftest import Service, client_context, server_context, until
from tests.http2.wire import Frame, message, request


class Peer:
    """A socket whose frames are written and read by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._encoder = hpack.Encoder()
        self._next = 1

    @classmethod
    async def connect(cls, port: int, context: ssl.SSLContext | None = None, greet: bool = True) -> Peer:
        peer = cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context))
        if greet:
            peer.writer.write(PREFACE + settings({}))
        return peer

    def call(self, path: str = "/t.T/Echo", body: bytes = b"") -> bytes:
        """The bytes of a call."""
        number, self._next = self._next, self._next + 2
        block = self._encoder.encode(request(path=path.encode()))
        return frame(HEADERS, END_HEADERS, number, block) + frame(DATA, END_STREAM, number, message(body))

    async def frame(self) -> Frame | None:
        """The next one; None at the end."""
        try:
            head = await self.reader.readexactly(9)
            payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return None
        return Frame(head[3], head[4], int.from_bytes(head[5:9], "big"), payload)

    async def until(self, kind: int) -> Frame:
        async with asyncio.timeout(10):
            while (one := await self.frame()) is not None:
                if one.kind == kind:
                    return one
        raise AssertionError(f"closed without a frame {kind}")

    async def answer(self) -> None:
        """The end of a call."""
        while not (await self.until(HEADERS)).flags & END_STREAM:
            pass

    async def rest(self) -> list[Frame]:
        """Until the server closes."""
        found = []
        async with asyncio.timeout(10):
            while (one := await self.frame()) is not None:
                found.append(one)
        return found

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


# Turns.


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


# Tasks.


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


# One port.


@pytest.fixture
async def http1() -> AsyncIterator[Callable[[], asyncio.Protocol]]:
    async def version(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"path": request.path, "body": (await request.read()).decode()})

    site = web.Server(version)
    yield site
    await site.shutdown(0)


async def test_http_1_is_told_from_http_2_by_its_first_bytes(
    service: Service, http1: Callable[[], asyncio.Protocol]
) -> None:
    server = service.server(http1=http1)
    port = await server.listen("127.0.0.1", 0)
    async with aiohttp.ClientSession() as session:
        for method in ("GET", "POST", "PUT", "PATCH"):
            async with session.request(method, f"http://127.0.0.1:{port}/version", data="body") as answer:
                assert await answer.json() == {"path": "/version", "body": "body"}
    async with await Channel.connect("127.0.0.1", port) as channel:
        assert await channel.unary("/t.T/Echo", b"x") == b"x"
    assert not [one for one in server.sockets if one._core is None]
    await server.stop(0)


@pytest.mark.parametrize("first", [b"P", b"PR", b"PRI"])
async def test_a_few_bytes_are_not_enough_to_tell(
    first: bytes, service: Service, http1: Callable[[], asyncio.Protocol]
) -> None:
    server = service.server(http1=http1)
    port = await server.listen("127.0.0.1", 0)
    peer = await Peer.connect(port, greet=False)
    peer.writer.write(first)
    await until(lambda: [one for one in server.sockets if one._begun == first])
    peer.writer.write(PREFACE[len(first) :] + settings({}) + peer.call(body=b"two"))
    assert (await peer.until(DATA)).payload == message(b"two")
    await peer.close()
    peer = await Peer.connect(port, greet=False)
    peer.writer.write(b"P")
    await until(lambda: [one for one in server.sockets if one._begun == b"P"])
    peer.writer.write(b"OST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    assert (await peer.reader.readline()).startswith(b"HTTP/1.1 200")
    await peer.close()
    await server.stop(0)


async def test_who_says_nothing_on_a_port_of_both_is_closed_in_time(
    service: Service, http1: Callable[[], asyncio.Protocol]
) -> None:
    server = service.server(Limits(handshake=0.1), http1=http1)
    port = await server.listen("127.0.0.1", 0)
    peer = await Peer.connect(port, greet=False)
    assert await peer.rest() == []
    await until(lambda: not server.sockets)
    await peer.close()
    await server.stop(0)


async def test_without_a_protocol_for_it_http_1_is_refused_with_a_reason(server: Http2Server) -> None:
    port = await server.listen("127.0.0.1", 0)
    peer = await Peer.connect(port, greet=False)
    assert (await peer.until(SETTINGS)).stream == 0  # before the client says anything
    peer.writer.write(b"GET / HTTP/1.1\r\n\r\n")
    goodbye = await peer.until(GOAWAY)
    assert goodbye.payload[8:] == b"this port speaks HTTP/2"
    await peer.close()


# TLS.


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


# Limits.


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


# Leaving.


async def test_a_server_that_stops_answers_what_is_under_way(service: Service) -> None:
    server = service.server()
    port = await server.listen("127.0.0.1", 0)
    service.hold.set()
    channel = await Channel.connect("127.0.0.1", port)
    answer = asyncio.ensure_future(channel.unary("/t.T/Slow", b"under way"))
    await channel.unary("/t.T/Size", b"1")
    stopping = asyncio.ensure_future(server.stop(10))
    await until(lambda: channel.leaving)
    with pytest.raises(StatusError) as raised:
        await channel.unary("/t.T/Echo", b"")
    assert raised.value.unprocessed
    with pytest.raises(ConnectionRefusedError):
        await Channel.connect("127.0.0.1", port)
    assert not stopping.done()
    service.hold.clear()
    assert await answer == b"under way"
    await stopping
    await channel.close()


async def test_after_its_grace_a_server_ends_what_is_still_under_way(service: Service) -> None:
    server = service.server()
    port = await server.listen("127.0.0.1", 0)
    service.hold.set()
    channel = await Channel.connect("127.0.0.1", port)
    stream = channel.stream("/t.T/Both")
    await stream.write(b"x")
    await stream.read()
    answer = asyncio.ensure_future(channel.unary("/t.T/Slow", b""))
    echo = asyncio.ensure_future(channel.unary("/t.T/Echo", b""))
    await until(lambda: service.held and service.begun)
    await server.stop(0.05)
    for work in (answer, echo, stream.read()):
        with pytest.raises(StatusError) as raised:
            await work
        assert raised.value.code == 14
    assert service.cancelled == 2
    assert server.unanswered == 0
    await channel.close()


async def test_a_server_nobody_is_connected_to_stops_at_once(service: Service) -> None:
    server = service.server()
    await server.listen("127.0.0.1", 0)
    work: Awaitable[None] = server.stop(10)
    async with asyncio.timeout(1):
        await work


async def test_all_addresses_are_those_of_both_versions_of_ip(server: Http2Server) -> None:
    if not has_dualstack_ipv6():
        skip_loudly("no socket of this machine takes both versions")
    port = await server.listen("::", 0)
    for host in ("127.0.0.1", "::1"):
        async with await Channel.connect(host, port) as channel:
            assert await channel.unary("/t.T/Echo", host.encode()) == host.encode()


async def test_a_socket_reset_before_its_end_was_written_is_closed(server: Http2Server) -> None:
    """The system knows before the loop tells."""

    class Reset(asyncio.Transport):
        aborted = False

        def write(self, data: object) -> None:
            pass

        def is_closing(self) -> bool:
            return False

        def can_write_eof(self) -> bool:
            return True

        def write_eof(self) -> None:
            raise OSError(107, "Transport endpoint is not connected")

        def abort(self) -> None:
            self.aborted = True

    transport, protocol = Reset(), server.protocol()
    protocol.connection_made(transport)
    protocol.data_received(b"GET / HTTP/1.1\r\n\r\n")  # which ends the connection
    assert transport.aborted
    protocol.connection_lost(None)


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
