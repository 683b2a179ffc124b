"""A listener stops: what is under way is answered; sockets and addresses are given back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from socket import has_dualstack_ipv6

import pytest

from connect_kv.http2.channel import Channel
from connect_kv.http2.listener import Http2Server
from connect_kv.http2.metadata import StatusError
from tests.etcd import skip_loudly
from tests.http2.conftest import Service, until


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
