"""The clients' port: gRPC and HTTP/1.1 on one, and what both must do there."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import aiohttp
import grpc
import pytest

import connect_kv
from connect_kv.errors import RefusedToStart
from connect_kv.frontend.grpc.door import DoorServer
from connect_kv.frontend.grpc.router import Router
from connect_kv.http2.frames import PING, PREFACE, frame, settings
from connect_kv.metrics import CONTENT_TYPE, Metrics
from connect_kv.rpc.lease_pb2 import LeaseGrantRequest, LeaseGrantResponse
from connect_kv.rpc.lock_pb2 import LockRequest
from connect_kv.rpc.watch_pb2 import WatchCreateRequest, WatchRequest, WatchResponse
from connect_kv.server.composition import KvServer
from connect_kv.services.streams import Streams
from tests.services.cluster import configs
from tests.services.conftest import next_of, streaming, unary, until


async def get(url: str, method: str = "GET") -> tuple[int, str, str]:
    """Status, type, body."""
    async with aiohttp.ClientSession() as http, http.request(method, url) as answer:
        return answer.status, answer.headers["Content-Type"], await answer.text()


async def test_one_port_speaks_both(tmp_path: Path) -> None:
    (config,) = configs(tmp_path, 1)
    server = KvServer(replace(config, listen_http="", grpc_server="door"))
    await server.start()
    try:
        where = f"http://{server.client_address}"
        # Asked before anything else: this loads what answers.
        status, kind, body = await get(f"{where}/version")
        assert (status, kind) == (200, "application/json")
        assert '"etcdserver":"3.6.0"' in body
        async with connect_kv.connect(server.client_address) as client:
            await client.put("key", "value")
            status, kind, body = await get(f"{where}/health")
            assert (status, kind) == (200, "text/plain; charset=utf-8")
            assert body == '{"health":"true","reason":""}'
            for probe in ("livez", "readyz", "readyz/linearizable_read"):
                assert (await get(f"{where}/{probe}"))[::2] == (200, "ok\n")
            status, kind, body = await get(f"{where}/metrics")
            assert (status, kind) == (200, CONTENT_TYPE)
            assert "etcd_server_has_leader 1.0" in body
            assert (await get(f"{where}/version", "POST"))[0] == 405
            assert (await get(f"{where}/members"))[0] == 404
            found = await client.get("key")
            assert found is not None
            assert found.value == b"value"
    finally:
        await server.stop()


async def test_connections_to_http_end_with_the_server_also_before_it_answers(tmp_path: Path) -> None:
    (config,) = configs(tmp_path, 1)
    server = KvServer(replace(config, listen_http="", grpc_server="door"))
    await server.start()
    host, _, port = server.client_address.rpartition(":")
    readers = []
    for data in (b"", b"P", b"GET / HTT", b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(data)
        readers.append((reader, writer))
    reader, _ = readers[-1]
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    async with asyncio.timeout(60):
        await server.stop()
        for reader, writer in readers:
            with suppress(ConnectionResetError):
                await reader.read()
            writer.close()


async def test_an_address_that_is_taken_is_named_with_the_reason() -> None:
    router = Router(Streams(lambda: True, patience=1.0), Metrics(process=False), lambda: True)
    first, second = (DoorServer(router, max_request_bytes=1000) for _ in range(2))
    await first.bind("127.0.0.1:0")
    with pytest.raises(
        RefusedToStart, match=f"cannot listen for clients on 127.0.0.1:{first.port}: .*in use"
    ):
        await second.bind(f"127.0.0.1:{first.port}")
    await first.stop(0)
    await second.bind(f"127.0.0.1:{first.port}")
    await second.stop(0)


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
async def test_any_address_is_any_address_of_both_versions(host: str) -> None:
    """As Go and the gRPC library take it: a client of `localhost` may come by either."""
    router = Router(Streams(lambda: True, patience=1.0), Metrics(process=False), lambda: True)
    server = DoorServer(router, max_request_bytes=1000)
    await server.bind(f"{host}:0")
    await server.start()
    for name in ("127.0.0.1", "::1"):
        _, writer = await asyncio.open_connection(name, server.port)
        writer.close()
        await writer.wait_closed()
    await server.stop(0)


async def test_a_member_stops_whatever_its_clients_do(tmp_path: Path) -> None:
    """A watch, a call that waits for a lock, one that reads nothing, one of HTTP, one that says nothing: each
    is told why and closed.
    """
    (config,) = configs(tmp_path, 1)
    server = KvServer(replace(config, grpc_server="door"))
    await server.start()
    host, _, port = server.client_address.rpartition(":")
    silent, stalled = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
    stalled[1].write(PREFACE + settings({}) + frame(PING, 0, 0, b"8 octets") * 500)
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://{server.client_address}/version") as answer,
        grpc.aio.insecure_channel(server.client_address) as channel,
    ):
        assert answer.status == 200
        watch = streaming(channel, "/etcdserverpb.Watch/Watch")
        create = WatchRequest(create_request=WatchCreateRequest(key=b"k"))
        await watch.write(create.SerializeToString())
        await next_of(watch, WatchResponse)
        first, second = [await lock(channel) for _ in range(2)]
        await first
        await until(lambda: 'grpc_method="Lock"' in server.metrics.text().decode())
        async with asyncio.timeout(60):
            await server.stop()
        for ended in (watch, second):
            assert await ended.code() is grpc.StatusCode.UNAVAILABLE
            assert await ended.details() == "etcdserver: server stopped"
    for reader, writer in (silent, stalled):
        with suppress(ConnectionResetError):
            await reader.read()
        writer.close()


async def lock(channel: grpc.aio.Channel) -> grpc.aio.UnaryUnaryCall[bytes, bytes]:
    """A call for a lock with a lease of its own."""
    request = LeaseGrantRequest(TTL=60).SerializeToString()
    lease = LeaseGrantResponse.FromString(await unary(channel, "/etcdserverpb.Lease/LeaseGrant")(request))
    wanted = LockRequest(name=b"lock", lease=lease.ID).SerializeToString()
    call: grpc.aio.UnaryUnaryCall[bytes, bytes] = unary(channel, "/v3lockpb.Lock/Lock")(wanted)
    return call
