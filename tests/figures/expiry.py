"""Very many leases whose time ends together, beside writes: how long does a write wait?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from connect_kv.rpc import kv_pb2 as kv
from connect_kv.rpc import lease_pb2 as lease
from tests.figures.sides import Figures, Side, caller, channel

TTL = 20
GRANTERS = 50
WRITERS = 10
BEFORE = 5.0
"""Seconds before the first lease ends in which writes are timed for comparison."""
OPERATIONS = 128
ALL = kv.RangeRequest(key=b"leased/", range_end=b"leased0", count_only=True, serializable=True)


async def leases_end(side: Side, leases: int) -> Figures:
    """Each lease has a key, and all are renewed at once; then nobody renews them any more."""
    async with channel(side) as connection:
        await grant(connection, leases)
        await renew(connection, leases)
        writes = Writes(connection)
        writers = [asyncio.create_task(writes.write(number)) for number in range(WRITERS)]
        await asyncio.sleep(TTL - BEFORE)
        quiet = writes.longest()
        async for left in counts(connection):
            if left < leases:
                break
            quiet = max(quiet, writes.longest())
        began = asyncio.get_running_loop().time()
        async for left in counts(connection):
            if not left:
                break
        took = asyncio.get_running_loop().time() - began
        stalled = writes.longest()
        for writer in writers:
            writer.cancel()
    return {
        f"{leases:,} leases with a key each end together: from the first to the last, s": f"{took:.1f}",
        "longest put before they end / while they end, ms": f"{quiet * 1000:.0f} / {stalled * 1000:.0f}",
    }


async def counts(connection: grpc.aio.Channel) -> AsyncIterator[int]:
    """How many keys are left, again and again."""
    count = caller(connection, "KV/Range")
    while True:
        yield (await count(ALL, timeout=60)).count
        await asyncio.sleep(0.02)


async def grant(connection: grpc.aio.Channel, leases: int) -> None:
    call, txn = caller(connection, "Lease/LeaseGrant"), caller(connection, "KV/Txn")
    ids = iter(range(1, leases + 1))

    async def granter() -> None:
        for id in ids:
            await call(lease.LeaseGrantRequest(ID=id, TTL=TTL), timeout=60)

    await asyncio.gather(*(granter() for _ in range(GRANTERS)))
    for first in range(1, leases + 1, OPERATIONS):
        request = kv.TxnRequest()
        for id in range(first, min(first + OPERATIONS, leases + 1)):
            put = request.success.add().request_put
            put.key, put.lease = b"leased/%06d" % id, id
        await txn(request, timeout=60)


async def renew(connection: grpc.aio.Channel, leases: int) -> None:
    """All of them over one stream."""
    stream: Any = connection.stream_stream(
        "/etcdserverpb.Lease/LeaseKeepAlive",
        request_serializer=lease.LeaseKeepAliveRequest.SerializeToString,
        response_deserializer=lease.LeaseKeepAliveResponse.FromString,
    )()

    async def ask() -> None:
        for id in range(1, leases + 1):
            await stream.write(lease.LeaseKeepAliveRequest(ID=id))

    asking = asyncio.create_task(ask())
    for _ in range(leases):
        assert (await stream.read()).TTL > 0
    await asking
    stream.cancel()


class Writes:
    """Puts that go on all the time, and how long they take."""

    def __init__(self, connection: grpc.aio.Channel) -> None:
        self._call = caller(connection, "KV/Put")
        self._longest = 0.0

    async def write(self, number: int) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await self._call(kv.PutRequest(key=b"other/%d" % number, value=bytes(256)), timeout=60)
            self._longest = max(self._longest, loop.time() - began)

    def longest(self) -> float:
        """Seconds, since the last call of this."""
        longest, self._longest = self._longest, 0.0
        return longest
