"""Loads that live on streams: watchers of one writer, and leases that are kept alive."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from itertools import cycle
from time import perf_counter

import grpc.aio

from connect_kv.bench.doors import CALL_SECONDS, READY_SECONDS
from connect_kv.bench.load import Outcome
from connect_kv.client.endpoints import CHANNEL_OPTIONS, parse_endpoints
from connect_kv.rpc.kv_pb2 import PutRequest, PutResponse
from connect_kv.rpc.lease_pb2 import (
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
)
from connect_kv.rpc.watch_pb2 import WatchCreateRequest, WatchRequest, WatchResponse

KEY = b"bench/watched"
STREAMS = 10
"""Watchers share so many streams, as the watches of one client do."""
WRITES_UNDER_WAY = 16
LEASE_TTL = 60

WatchStream = grpc.aio.StreamStreamCall[WatchRequest, WatchResponse]


async def watch(endpoints: str, *, watchers: int, total: int, value_size: int = 64) -> Outcome:
    """One writer puts `total` times; each of `watchers` hears of every put.

    The outcome counts events that arrived, and their latency from the moment the put was sent.
    """
    outcome = Outcome()
    channels = [_channel(address) for address in parse_endpoints(endpoints)]
    turns = cycle(channels)
    try:
        streams = [await _watch(next(turns), number) for number in _shares(watchers)]
        started = perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for stream, share in zip(streams, _shares(watchers), strict=True):
                tasks.create_task(_listen(stream, share * total, outcome))
            await _write(channels[0], total, value_size)
        outcome.seconds = perf_counter() - started
    finally:
        await _close(channels)
    return outcome


def _shares(watchers: int) -> list[int]:
    streams = min(STREAMS, watchers)
    return [watchers // streams + (number < watchers % streams) for number in range(streams)]


async def _watch(channel: grpc.aio.Channel, watches: int) -> WatchStream:
    async with asyncio.timeout(READY_SECONDS):
        await channel.channel_ready()
        open_stream: grpc.aio.StreamStreamMultiCallable[WatchRequest, WatchResponse] = channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=WatchRequest.SerializeToString,
            response_deserializer=WatchResponse.FromString,
        )
        stream = open_stream()
        for _ in range(watches):
            await stream.write(WatchRequest(create_request=WatchCreateRequest(key=KEY)))
            created = await stream.read()
            if not isinstance(created, WatchResponse) or not created.created:
                raise ConnectionError("a watch was not created")
    return stream


async def _listen(stream: WatchStream, expected: int, outcome: Outcome) -> None:
    seen = 0
    while seen < expected:
        response = await stream.read()
        if not isinstance(response, WatchResponse):
            raise ConnectionError("a stream of watches ended")
        now = perf_counter()
        for event in response.events:
            outcome.latencies.add(now - struct.unpack_from("<d", event.kv.value)[0])
        seen += len(response.events)


async def _write(channel: grpc.aio.Channel, total: int, value_size: int) -> None:
    put = channel.unary_unary(
        "/etcdserverpb.KV/Put",
        request_serializer=PutRequest.SerializeToString,
        response_deserializer=PutResponse.FromString,
    )
    numbers = iter(range(total))
    padding = bytes(max(0, value_size - 8))

    async def writer() -> None:
        for _ in numbers:
            await put(PutRequest(key=KEY, value=struct.pack("<d", perf_counter()) + padding))

    await asyncio.gather(*(writer() for _ in range(WRITES_UNDER_WAY)))


async def lease_keep_alive(endpoints: str, *, leases: int, total: int) -> Outcome:
    """Renew `leases` leases, each as soon as its last renewal was answered, `total` times in all."""
    outcome = Outcome()
    channels = [_channel(address) for address in parse_endpoints(endpoints)]
    turns = cycle(channels)
    try:
        ids = await asyncio.gather(*(_grant(next(turns)) for _ in range(leases)))
        numbers = iter(range(total))
        started = perf_counter()
        await asyncio.gather(*(_renew(next(turns), id, numbers, outcome) for id in ids))
        outcome.seconds = perf_counter() - started
    finally:
        await _close(channels)
    return outcome


async def _grant(channel: grpc.aio.Channel) -> int:
    grant = channel.unary_unary(
        "/etcdserverpb.Lease/LeaseGrant",
        request_serializer=LeaseGrantRequest.SerializeToString,
        response_deserializer=LeaseGrantResponse.FromString,
    )
    answer: LeaseGrantResponse = await grant(LeaseGrantRequest(TTL=LEASE_TTL), timeout=CALL_SECONDS)
    return answer.ID


async def _renew(channel: grpc.aio.Channel, id: int, numbers: Iterator[int], outcome: Outcome) -> None:
    stream = channel.stream_stream(
        "/etcdserverpb.Lease/LeaseKeepAlive",
        request_serializer=LeaseKeepAliveRequest.SerializeToString,
        response_deserializer=LeaseKeepAliveResponse.FromString,
    )()
    for _ in numbers:
        since = perf_counter()
        await stream.write(LeaseKeepAliveRequest(ID=id))
        answer = await stream.read()
        if not isinstance(answer, LeaseKeepAliveResponse) or answer.TTL <= 0:
            outcome.errors["the lease was not renewed"] += 1
            return
        outcome.latencies.add(perf_counter() - since)
    stream.cancel()


def _channel(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)


async def _close(channels: list[grpc.aio.Channel]) -> None:
    for channel in channels:
        await channel.close()
