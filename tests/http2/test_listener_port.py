"""HTTP/1.1 and HTTP/2 on one port, told apart by their first bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp
import pytest

from connect_kv.http2.channel import Channel
from connect_kv.http2.frames import (
    DATA,
    GOAWAY,
    PREFACE,
    SETTINGS,
    settings,
)
from connect_kv.http2.limits import Limits
from connect_kv.http2.listener import Http2Server
from tests.http2.conftest import Service, until
from tests.http2.peer import Peer
from tests.http2.wire import message


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
