"""Ways into a cluster, as a load generator uses them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from itertools import cycle
from typing import Protocol, Self, TypeVar

import grpc.aio
from google.protobuf.message import Message

from connect_kv import errors
from connect_kv.bench.access import ANYBODY, BenchAccess
from connect_kv.client.endpoints import parse_endpoints
from connect_kv.client.login import Metadata
from connect_kv.framework.replicated import Replicated, command
from connect_kv.rpc.kv_pb2 import (
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
)

READY_SECONDS = 10.0
CALL_SECONDS = 60.0
"""A load is to show how long calls take, not to give them up."""

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


class LoadTarget(Protocol):
    """One way. Calls may overlap without limit; awaited, they raise what went wrong."""

    def put(self, key: bytes, value: bytes) -> Awaitable[object]:
        """Write."""

    def get(self, key: bytes, *, serializable: bool) -> Awaitable[object]:
        """Read."""

    def transaction(self, pairs: Sequence[tuple[bytes, bytes]]) -> Awaitable[object]:
        """Write them all, in one revision."""

    def increment(self) -> Awaitable[object]:
        """Add one to the replicated counter."""

    async def revision(self) -> int:
        """Where the store stands."""

    async def __aenter__(self) -> Self:
        """Connect."""

    async def __aexit__(self, *exception: object) -> None:
        """Disconnect."""


class BenchCounter(Replicated):
    """What the counter load calls.

    Serve it with ``--machine counter=connect_kv.bench.targets:BenchCounter``.
    """

    def __init__(self) -> None:
        self.total = 0

    @command
    def increment(self, by: int = 1) -> int:
        """Count; returns the new total."""
        self.total += by
        return self.total


class SessionTarget:
    """Our client with its sessions, one for each of `clients`."""

    def __init__(
        self, endpoints: str, clients: int, machine: str = "counter", access: BenchAccess = ANYBODY
    ) -> None:
        addresses = parse_endpoints(endpoints)
        turns = [addresses[i % len(addresses) :] + addresses[: i % len(addresses)] for i in range(clients)]
        self._clients = [access.client(turn, timeout=CALL_SECONDS) for turn in turns]
        self._turn = cycle(self._clients)
        self._machine = machine

    async def __aenter__(self) -> Self:
        for client in self._clients:
            await client.__aenter__()
            await client.get(b"connect-kv")  # opens its session
        self._counters = cycle([client.machine(self._machine, BenchCounter) for client in self._clients])
        return self

    async def __aexit__(self, *exception: object) -> None:
        for client in self._clients:
            await client.close()

    def put(self, key: bytes, value: bytes) -> Awaitable[object]:
        """Write."""
        return next(self._turn).put(key, value)

    def get(self, key: bytes, *, serializable: bool) -> Awaitable[object]:
        """Read."""
        return next(self._turn).get(key, serializable=serializable)

    def transaction(self, pairs: Sequence[tuple[bytes, bytes]]) -> Awaitable[object]:
        """Write all pairs in one transaction."""
        return next(self._turn).transaction(success=_puts(pairs))

    def increment(self) -> Awaitable[object]:
        """Add one to the replicated counter."""
        return next(self._counters).call(BenchCounter.increment)

    async def revision(self) -> int:
        """Where the store stands."""
        return (await self._clients[0].range(b"\0", count_only=True)).header.revision


class UnaryTarget:
    """Single calls under etcd's names, which both systems answer, spread over all members."""

    def __init__(self, endpoints: str, clients: int, access: BenchAccess = ANYBODY) -> None:
        turns = cycle(parse_endpoints(endpoints))
        self._access = access
        self._shown: Metadata = ()
        self._addresses = [next(turns) for _ in range(clients)]
        self._channels = access.channels(self._addresses, (("grpc.use_local_subchannel_pool", 1),))
        self._puts = cycle([_call(one, "Put", PutRequest, PutResponse) for one in self._channels])
        self._ranges = cycle([_call(one, "Range", RangeRequest, RangeResponse) for one in self._channels])
        self._transactions = cycle([_call(one, "Txn", TxnRequest, TxnResponse) for one in self._channels])

    async def __aenter__(self) -> Self:
        try:
            await asyncio.gather(*map(ready, self._channels, self._addresses))
            self._shown = await self._access.metadata(self._channels[0])
        except errors.ConnectKvError:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        for channel in self._channels:
            await channel.close()

    def put(self, key: bytes, value: bytes) -> Awaitable[object]:
        """Write."""
        return next(self._puts)(PutRequest(key=key, value=value), metadata=self._shown)

    def get(self, key: bytes, *, serializable: bool) -> Awaitable[object]:
        """Read."""
        return next(self._ranges)(RangeRequest(key=key, serializable=serializable), metadata=self._shown)

    def transaction(self, pairs: Sequence[tuple[bytes, bytes]]) -> Awaitable[object]:
        """Write all pairs in one transaction."""
        return next(self._transactions)(TxnRequest(success=_puts(pairs)), metadata=self._shown)

    def increment(self) -> Awaitable[object]:
        """Not to be had this way."""
        raise NotImplementedError("the counter is called through a session")

    async def revision(self) -> int:
        """Where the store stands."""
        request = RangeRequest(key=b"\0", count_only=True)
        answer: RangeResponse = await next(self._ranges)(request, metadata=self._shown)
        return answer.header.revision


async def ready(channel: grpc.aio.Channel, address: str) -> None:
    """Wait for the connection. Raises Unavailable, naming the member, if there is none in time."""
    try:
        async with asyncio.timeout(READY_SECONDS):
            await channel.channel_ready()
    except TimeoutError:
        raise errors.Unavailable(f"{address} did not answer within {READY_SECONDS:g} s") from None


def _call(
    channel: grpc.aio.Channel, method: str, request: type[Request], response: type[Response]
) -> grpc.aio.UnaryUnaryMultiCallable[Request, Response]:
    return channel.unary_unary(
        f"/etcdserverpb.KV/{method}",
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )


def _puts(pairs: Sequence[tuple[bytes, bytes]]) -> list[RequestOp]:
    return [RequestOp(request_put=PutRequest(key=key, value=value)) for key, value in pairs]
