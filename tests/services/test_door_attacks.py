"""What a client might send to bring a member down, at a member that serves others meanwhile.

The protocol's own answers are tests/http2/test_attacks.py's; here is that nothing of it reaches the services,
or others, and that nothing stays of it.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import hpack
import pytest

import connect_kv
from connect_kv.client.client import Client
from connect_kv.http2.frames import (
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    PREFACE,
    RST_STREAM,
    WINDOW_UPDATE,
    frame,
    settings,
)
from connect_kv.rpc.kv_pb2 import PutRequest, RangeRequest
from connect_kv.rpc.watch_pb2 import WatchCreateRequest, WatchRequest
from connect_kv.server.composition import KvServer
from tests.http2.wire import message, request
from tests.services.cluster import configs
from tests.services.conftest import until

PUT, RANGE, WATCH = b"/etcdserverpb.KV/Put", b"/etcdserverpb.KV/Range", b"/etcdserverpb.Watch/Watch"


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[tuple[KvServer, Client]]:
    """A member, and somebody honest."""
    (config,) = configs(tmp_path, 1)
    server = KvServer(replace(config, grpc_server="door"))
    await server.start()
    try:
        async with connect_kv.connect(server.client_address, session=False) as client:
            await client.put("honest", "value")
            yield server, client
    finally:
        await server.stop()


class Attacker:
    """A connection on which anything is said."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._encoder = hpack.Encoder()
        self._blocks: dict[bytes, bytes] = {}
        self._next = 1

    @classmethod
    async def connect(cls, server: KvServer, **announced: int) -> Attacker:
        host, _, port = server.client_address.rpartition(":")
        one = cls(*await asyncio.open_connection(host, int(port)))
        window = announced.get("window", 65_535)
        one.writer.write(PREFACE + settings({INITIAL_WINDOW_SIZE: window}))
        if window > 65_535:
            one.writer.write(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", window - 65_535)))
        return one

    def call(self, path: bytes, body: bytes, *, ended: bool = True, reset: bool = False) -> bytes:
        number, self._next = self._next, self._next + 2
        block = self._blocks.get(path) or self._encoder.encode(request(path=path))
        if number > 1:  # what stands in the table stays there
            self._blocks[path] = block
        data = frame(HEADERS, END_HEADERS, number, block)
        data += frame(DATA, END_STREAM if ended else 0, number, message(body))
        return data + (frame(RST_STREAM, 0, number, struct.pack(">I", CANCEL)) if reset else b"")

    async def write(self, data: bytes) -> None:
        with suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def end(self) -> None:
        """Read until the member closes."""
        async with asyncio.timeout(60):
            with suppress(ConnectionError):
                while await self.reader.read(1 << 16):
                    pass
        await self.close()

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


def put(key: bytes) -> bytes:
    return PutRequest(key=key, value=b"v").SerializeToString()


async def rapid_reset(one: Attacker) -> None:
    while not one.reader.at_eof() and one._next < 200_000:
        await one.write(b"".join(one.call(PUT, put(b"dead"), reset=True) for _ in range(500)))


async def continuations(one: Attacker) -> None:
    await one.write(frame(HEADERS, 0, 1, b"") + frame(CONTINUATION, 0, 1, b"") * 100_000)


async def pings(one: Attacker) -> None:
    await one.write(frame(PING, 0, 0, b"8 octets") * 100_000)


async def changed_settings(one: Attacker) -> None:
    await one.write(settings({INITIAL_WINDOW_SIZE: 1}) * 100_000)


async def empty_data(one: Attacker) -> None:
    await one.write(one.call(PUT, put(b"alive"), ended=False) + frame(DATA, 0, 1, b"") * 100_000)


async def a_bomb_of_fields(one: Attacker) -> None:
    entry = hpack.Encoder().encode([("x", "v" * 4000)])
    await one.write(frame(HEADERS, END_HEADERS | END_STREAM, 1, entry + b"\xbe" * 12_000))


async def a_megabyte_of_fields(one: Attacker) -> None:
    await one.write(frame(HEADERS, 0, 1, b"\x00") + frame(CONTINUATION, 0, 1, b"v" * 16_000) * 70)


async def noise(one: Attacker) -> None:
    await one.write(random.Random(1).randbytes(100_000))


ATTACKS = (
    rapid_reset,
    continuations,
    pings,
    changed_settings,
    empty_data,
    a_bomb_of_fields,
    a_megabyte_of_fields,
    noise,
)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
async def test_who_attacks_loses_the_connection_and_others_nothing(
    tmp_path: Path, attack: Callable[[Attacker], Coroutine[None, None, None]]
) -> None:
    async with serving(tmp_path) as (server, client):
        for _ in range(2):
            one = await Attacker.connect(server)
            attacking = asyncio.create_task(attack(one))
            for number in range(5):
                await client.put("honest", str(number))
            await one.end()
            await attacking
        found = await client.get("honest")
        assert found is not None
        assert found.value == b"4"


async def test_a_call_given_up_in_the_same_breath_is_not_carried_out(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, client):
        one = await Attacker.connect(server)
        await one.write(b"".join(one.call(PUT, put(b"dead"), reset=True) for _ in range(200)))
        await one.write(one.call(PUT, put(b"alive")))
        await until_there(client, "alive")
        assert await client.get("dead") is None
        await one.close()


async def until_there(client: Client, key: str) -> None:
    async with asyncio.timeout(60):
        while await client.get(key) is None:
            pass


async def test_answers_that_a_client_does_not_take_hold_nobody_up(tmp_path: Path) -> None:
    """A thousand answers of 256 KiB, with windows for all of them, that nobody reads."""
    async with serving(tmp_path) as (server, client):
        await client.put("large", "v" * (256 << 10))
        one = await Attacker.connect(server, window=2**31 - 1)
        asked = RangeRequest(key=b"large").SerializeToString()
        await one.write(b"".join(one.call(RANGE, asked) for _ in range(1000)))
        for number in range(20):
            await client.put("honest", str(number))
        await one.close()
        await client.put("honest", "at last")


async def test_nothing_stays_of_thousands_of_watches_whose_client_is_gone(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, client):
        create = WatchRequest(create_request=WatchCreateRequest(key=b"honest")).SerializeToString()
        ones = [await Attacker.connect(server) for _ in range(5)]
        for one in ones:
            await one.write(b"".join(one.call(WATCH, create, ended=False) for _ in range(400)))
        await until(lambda: "connect_kv_streams_open 2000.0" in server.metrics.text().decode())
        await client.put("honest", "seen by all")
        for one in ones:
            one.writer.transport.abort()
        await until(lambda: "connect_kv_streams_open 0.0" in server.metrics.text().decode())
        await client.put("honest", "at last")
        for one in ones:
            await one.close()


async def test_many_that_say_nothing_or_too_little_hold_nobody_up(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, client):
        host, _, port = server.client_address.rpartition(":")
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(300)]
        for number, (_, writer) in enumerate(silent):
            writer.write(PREFACE[: number % len(PREFACE)])
        await client.put("honest", "value")
        for _, writer in silent:
            writer.transport.abort()
