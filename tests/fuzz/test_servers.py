"""A running member that is sent anything, at every method and as whole streams: it answers, and goes on."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from connect_kv.frontend.grpc.router import ETCD_NAMES
from connect_kv.frontend.grpc.services import SERVICES
from connect_kv.rpc.command_pb2 import Command
from connect_kv.rpc.kv_pb2 import PutRequest, PutResponse, RangeRequest, TxnRequest
from connect_kv.rpc.lease_pb2 import LeaseKeepAliveRequest
from connect_kv.rpc.maintenance_pb2 import AlarmRequest
from connect_kv.rpc.session_pb2 import SessionRequests
from connect_kv.rpc.watch_pb2 import WatchCancelRequest, WatchCreateRequest, WatchRequest
from connect_kv.statemachine.hosted import ReplicatedMachine
from connect_kv.testing.ports import free_ports
from connect_kv.transport.limits import SERVICE
from tests.framework.machines import Counter
from tests.fuzz.test_applied_commands import nested
from tests.services.cluster import Member, configs, running

pytestmark = pytest.mark.long

TYPED = frozenset(code for code in grpc.StatusCode if code is not grpc.StatusCode.DEADLINE_EXCEEDED)


def samples(rng: random.Random) -> list[bytes]:
    """Small ones that mean something to some method, and noise."""
    meaningful = [
        b"",
        PutRequest(key=b"k").SerializeToString(),
        RangeRequest(key=b"k", sort_order=9, limit=-(2**63), revision=-1).SerializeToString(),  # type: ignore[arg-type]
        nested(49).SerializeToString(),
        AlarmRequest(action=1, alarm=-1).SerializeToString(),  # type: ignore[arg-type]
        LeaseKeepAliveRequest(ID=-1).SerializeToString(),
        WatchRequest(create_request=WatchCreateRequest(start_revision=-5, watch_id=-9)).SerializeToString(),
        WatchRequest(
            create_request=WatchCreateRequest(key=b"k", start_revision=2**63 - 1)
        ).SerializeToString(),
        WatchRequest(cancel_request=WatchCancelRequest(watch_id=-(2**63))).SerializeToString(),
        SessionRequests(session=2**64 - 1).SerializeToString(),
        SessionRequests(
            ttl=-1, commands=[Command(number=1), Command(number=2, txn=nested(45))]
        ).SerializeToString(),
    ]
    return meaningful + [rng.randbytes(rng.randrange(60)) for _ in range(6)]


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def send(channel: grpc.aio.Channel, method: str, data: bytes, kind: str) -> grpc.StatusCode:
    try:
        if kind == "unary":
            unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
            await unary(data, timeout=3)
        elif kind == "server stream":
            server_stream: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(method)
            async for _ in server_stream(data, timeout=3):
                pass
        else:
            stream: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
            async for _ in stream(once(data), timeout=0.3):
                pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def methods() -> list[tuple[str, str]]:
    found = []
    for service in SERVICES:
        names = [service.full_name] + ([ETCD_NAMES[service.name]] if service.name in ETCD_NAMES else [])
        for name in names:
            for method in service.methods:
                kind = (
                    "stream"
                    if method.client_streaming
                    else "server stream"
                    if method.server_streaming
                    else "unary"
                )
                found.append((f"/{name}/{method.name}", kind))
    return found


async def test_every_method_of_a_member_takes_anything(tmp_path: Path) -> None:
    rng = random.Random(1)
    machines = {"counter": ReplicatedMachine(Counter())}
    async with running(configs(tmp_path, 1), [machines]) as (member,):
        for method, kind in methods():
            if kind == "stream":
                continue
            codes = await asyncio.gather(*(send(member.channel, method, data, kind) for data in samples(rng)))
            waits = (
                {grpc.StatusCode.DEADLINE_EXCEEDED} if "/Lock" in method or "Election/" in method else set()
            )
            assert set(codes) <= TYPED | waits, (method, codes)
            assert not member.server.node.failed.done(), method
        await still_serves(member)


async def test_every_stream_of_a_member_takes_anything(tmp_path: Path) -> None:
    rng = random.Random(2)
    async with running(configs(tmp_path, 1)) as (member,):
        streams = [method for method, kind in methods() if kind == "stream"]
        await asyncio.gather(
            *(send(member.channel, method, data, "stream") for method in streams for data in samples(rng))
        )
        await still_serves(member)


async def test_the_port_for_peers_takes_anything(tmp_path: Path) -> None:
    """By every method of the peers' service, and as bytes that are not HTTP at all."""
    rng = random.Random(3)
    http = f"127.0.0.1:{free_ports(1)[0]}"
    async with running([replace(configs(tmp_path, 1)[0], listen_http=http)]) as (member,):
        address = member.config.listen_peer
        async with grpc.aio.insecure_channel(address) as channel:
            for method in ("RequestVote", "TimeoutNow", "Describe", "Ask"):
                for data in samples(rng):
                    code = await send(channel, f"/{SERVICE}/{method}", data, "unary")
                    assert code in TYPED, (method, data)
            for method in ("AppendEntries", "Forward", "InstallSnapshot"):
                await asyncio.gather(
                    *(send(channel, f"/{SERVICE}/{method}", data, "stream") for data in samples(rng))
                )
        for port in (member.server.client_address, http, address):
            for data in samples(rng):
                noise(port, data)
        await still_serves(member)


def noise(address: str, data: bytes) -> None:
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=2) as connection:
        connection.sendall(data + b"\r\n\r\n")


async def still_serves(member: Member) -> None:
    assert not member.server.node.failed.done()
    answer = await member.call("/connect_kv.v1.KV/Put", PutRequest(key=b"after"), PutResponse)
    assert answer.header.revision > 1
    assert TxnRequest.FromString(nested(3).SerializeToString())
