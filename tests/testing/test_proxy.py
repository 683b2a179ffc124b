"""The proxies between peers: they find out who dials, and hold up what is to be held up."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator

import pytest

from connect_kv.testing.network import PERFECT, NodeLocation, Quality
from connect_kv.testing.proxy import ProxyNetwork

FAMILIES = {"IPv4": (socket.AF_INET, "127.0.0.1"), "both": (socket.AF_INET6, "::ffff:127.0.0.1")}


@pytest.fixture
async def network() -> AsyncIterator[ProxyNetwork]:
    made = ProxyNetwork(random.Random(1))
    yield made
    await made.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
    writer.close()


async def dial(place: NodeLocation, family: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """As gRPC does with sockets for both, or plainly."""
    kind, host = FAMILIES[family]
    dialing = socket.socket(kind)
    dialing.setblocking(False)
    port = int(place.peer_address.rpartition(":")[2])
    await asyncio.get_running_loop().sock_connect(dialing, (host, port))
    return await asyncio.open_connection(sock=dialing)


@pytest.mark.parametrize("family", FAMILIES)
async def test_what_is_blocked_waits_until_it_is_healed(network: ProxyNetwork, family: str) -> None:
    places = await network.start(["a", "b"])
    server = await asyncio.start_server(echo, "127.0.0.1", places["b"].ports[1])
    network.started("a", os.getpid())
    reader, writer = await dial(places["b"], family)
    writer.write(b"one")
    assert await reader.readexactly(3) == b"one"
    network.set("a", "b", Quality(blocked=True))
    writer.write(b"two")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.readexactly(3), 0.3)
    network.set("a", "b", PERFECT)
    assert await reader.readexactly(3) == b"two"
    writer.close()
    server.close()


async def test_a_stranger_is_not_joined(network: ProxyNetwork) -> None:
    """Who is not known could not be cut off."""
    places = await network.start(["a", "b"])
    server = await asyncio.start_server(echo, "127.0.0.1", places["b"].ports[1])
    reader, writer = await dial(places["b"], "both")
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()
    server.close()
