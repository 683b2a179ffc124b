"""Loads that live on streams: watchers of one writer, and leases that are kept alive."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from itertools import cycle
from time import perf_counter

import grpc.aio

from connect_kv import errors
from connect_kv.bench.access import ANYBODY, BenchAccess
from connect_kv.bench.load import LoadProgress, LoadResult, Show
from connect_kv.bench.targets import CALL_SECONDS, ready
from connect_kv.client.endpoints import parse_endpoints
from connect_kv.client.login import Metadata
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
LATE_SECONDS = 2.0
"""For the last events where a put failed: nobody knows how many come."""

WatchStream = grpc.aio.StreamStreamCall[WatchRequest, WatchResponse]


async def watch(
    endpoints: str,
    *,
    watchers: int,
    total: int,
    value_size: int = 64,
    progress: Show = lambda done: None,
    access: BenchAccess = ANYBODY,
) -> LoadResult:
    """One writer puts `total` times; each of `watchers` hears of every put.

    The outcome counts events that arrived, and their latency from the moment the put was sent.
    """
    outcome = LoadResult()
    channels, shown = await _connect(endpoints, access)
    turns = cycle(channels)
    done = LoadProgress(watchers * total, progress)
    try:
        streams = [await _watch(next(turns), number, shown) for number in _shares(watchers)]
        listeners = [
            _Listener(stream, share, total, outcome, done)
            for stream, share in zip(streams, _shares(watchers), strict=True)
        ]
        started = perf_counter()
        tasks = [asyncio.create_task(listener.listen()) for listener in listeners]
        written = await _write(channels[0], total, value_size, outcome, shown)
        await asyncio.wait(tasks, timeout=CALL_SECONDS if written == total else LATE_SECONDS)
        outcome.seconds = perf_counter() - started
        for task, listener in zip(tasks, listeners, strict=True):
            task.cancel()
            if missing := listener.missing(written):
                outcome.errors["the event of an acknowledged put did not arrive"] += missing
        await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        await _close(channels)
    return outcome


def _shares(watchers: int) -> list[int]:
    streams = min(STREAMS, watchers)
    return [watchers // streams + (number < watchers % streams) for number in range(streams)]


async def _watch(channel: grpc.aio.Channel, watches: int, shown: Metadata) -> WatchStream:
    open_stream: grpc.aio.StreamStreamMultiCallable[WatchRequest, WatchResponse] = channel.stream_stream(
        "/etcdserverpb.Watch/Watch",
        request_serializer=WatchRequest.SerializeToString,
        response_deserializer=WatchResponse.FromString,
    )
    stream = open_stream(metadata=shown)
    async with asyncio.timeout(CALL_SECONDS):
        for _ in range(watches):
            await stream.write(WatchRequest(create_request=WatchCreateRequest(key=KEY)))
            created = await stream.read()
            if not isinstance(created, WatchResponse) or not created.created:
                raise ConnectionError("a watch was not created")
    return stream


class _Listener:
    """Hears of `total` puts through `share` watches of one stream."""

    def __init__(
        self, stream: WatchStream, share: int, total: int, outcome: LoadResult, progress: LoadProgress
    ) -> None:
        self._stream = stream
        self._share = share
        self._expected = share * total
        self._outcome = outcome
        self._progress = progress
        self._seen = 0

    async def listen(self) -> None:
        """Until every event has arrived, or the stream ends."""
        try:
            while self._seen < self._expected:
                response = await self._stream.read()
                if not isinstance(response, WatchResponse):
                    raise ConnectionError("a stream of watches ended")
                self._count(response)
        except (grpc.aio.AioRpcError, ConnectionError) as error:
            self._outcome.failed(error)

    def missing(self, written: int) -> int:
        """Events of so many acknowledged puts that did not arrive."""
        return max(0, self._share * written - self._seen)

    def _count(self, response: WatchResponse) -> None:
        now = perf_counter()
        for event in response.events:
            self._outcome.latencies.add(now - struct.unpack_from("<d", event.kv.value)[0])
        self._seen += len(response.events)
        self._progress.add(len(response.events))


async def _write(
    channel: grpc.aio.Channel, total: int, value_size: int, outcome: LoadResult, shown: Metadata
) -> int:
    """Put so often; how many were acknowledged."""
    put = channel.unary_unary(
        "/etcdserverpb.KV/Put",
        request_serializer=PutRequest.SerializeToString,
        response_deserializer=PutResponse.FromString,
    )
    numbers = iter(range(total))
    padding = bytes(max(0, value_size - 8))

    async def writer() -> int:
        written = 0
        for _ in numbers:
            try:
                value = struct.pack("<d", perf_counter()) + padding
                await put(PutRequest(key=KEY, value=value), timeout=CALL_SECONDS, metadata=shown)
            except grpc.aio.AioRpcError as error:
                outcome.failed(error)
            else:
                written += 1
        return written

    return sum(await asyncio.gather(*(writer() for _ in range(WRITES_UNDER_WAY))))


async def lease_keep_alive(
    endpoints: str,
    *,
    leases: int,
    total: int,
    progress: Show = lambda done: None,
    access: BenchAccess = ANYBODY,
) -> LoadResult:
    """Renew `leases` leases, each as soon as its last renewal was answered, `total` times in all."""
    outcome = LoadResult()
    channels, shown = await _connect(endpoints, access)
    turns = cycle(channels)
    done = LoadProgress(total, progress)
    try:
        granted = await asyncio.gather(*(_grant(next(turns), outcome, shown) for _ in range(leases)))
        ids = [id for id in granted if id is not None]
        numbers = iter(range(total))
        started = perf_counter()
        await asyncio.gather(*(_renew(next(turns), id, numbers, outcome, done, shown) for id in ids))
        outcome.seconds = perf_counter() - started
    finally:
        await _close(channels)
    return outcome


async def _grant(channel: grpc.aio.Channel, outcome: LoadResult, shown: Metadata) -> int | None:
    grant = channel.unary_unary(
        "/etcdserverpb.Lease/LeaseGrant",
        request_serializer=LeaseGrantRequest.SerializeToString,
        response_deserializer=LeaseGrantResponse.FromString,
    )
    try:
        answer: LeaseGrantResponse = await grant(
            LeaseGrantRequest(TTL=LEASE_TTL), timeout=CALL_SECONDS, metadata=shown
        )
    except grpc.aio.AioRpcError as error:
        outcome.failed(error)
        return None
    return answer.ID


async def _renew(
    channel: grpc.aio.Channel,
    id: int,
    numbers: Iterator[int],
    outcome: LoadResult,
    progress: LoadProgress,
    shown: Metadata,
) -> None:
    """Until all renewals are made, or this lease could not be renewed."""
    stream = channel.stream_stream(
        "/etcdserverpb.Lease/LeaseKeepAlive",
        request_serializer=LeaseKeepAliveRequest.SerializeToString,
        response_deserializer=LeaseKeepAliveResponse.FromString,
    )(metadata=shown)
    try:
        for _ in numbers:
            since = perf_counter()
            await stream.write(LeaseKeepAliveRequest(ID=id))
            answer = await stream.read()
            if not isinstance(answer, LeaseKeepAliveResponse) or answer.TTL <= 0:
                raise ConnectionError("the lease was not renewed")
            outcome.latencies.add(perf_counter() - since)
            progress.add(1)
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError, ConnectionError) as error:
        outcome.failed(error)
    finally:
        stream.cancel()


async def _connect(endpoints: str, access: BenchAccess) -> tuple[list[grpc.aio.Channel], Metadata]:
    """One channel for each member, once all are connected; and what goes beside each call."""
    addresses = parse_endpoints(endpoints)
    channels = access.channels(addresses)
    try:
        await asyncio.gather(*map(ready, channels, addresses))
        return channels, await access.metadata(channels[0])
    except errors.ConnectKvError:
        await _close(channels)
        raise


async def _close(channels: list[grpc.aio.Channel]) -> None:
    for channel in channels:
        await channel.close()
