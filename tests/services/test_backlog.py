"""More calls at a time than a member serves: it refuses the rest in time, and says so."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from connect_kv.client.failures import Fate, fate
from connect_kv.frontend.grpc.router import Router
from connect_kv.frontend.grpc.services import add_services
from connect_kv.metrics import Metrics
from connect_kv.rpc.cluster_pb2 import MemberListRequest, MemberListResponse
from connect_kv.rpc.kv_pb2 import PutRequest, PutResponse
from connect_kv.rpc.lock_pb2 import LockRequest, LockResponse
from connect_kv.rpc.watch_pb2 import WatchRequest, WatchResponse
from connect_kv.services.caller import Caller, RequestStream
from connect_kv.services.streams import Streams
from tests.doors import listening
from tests.services.conftest import until

MOST = 200
BURST = 2000
TOO_MANY = (grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: too many requests")

BOTH = pytest.mark.parametrize("kind", ["door", "grpcio"])


class Slow:
    """Answers puts once it may."""

    def __init__(self) -> None:
        self.may = asyncio.Event()

    async def Put(self, request: PutRequest, caller: Caller) -> PutResponse:
        await self.may.wait()
        return PutResponse()

    async def Lock(self, request: LockRequest, caller: Caller) -> LockResponse:
        await self.may.wait()
        return LockResponse()

    async def MemberList(self, request: MemberListRequest, caller: Caller) -> MemberListResponse:
        return MemberListResponse()

    async def Watch(self, channel: RequestStream[WatchRequest]) -> None:
        await channel.write(WatchResponse())


@asynccontextmanager
async def serving(kind: str) -> AsyncIterator[tuple[grpc.aio.Channel, Metrics, asyncio.Event]]:
    metrics, slow = Metrics(process=False), Slow()
    router = Router(Streams(lambda: True, patience=0.05), metrics, lambda: True)
    add_services(router, {"KV": slow, "Cluster": slow, "Watch": slow, "Lock": slow})
    async with (
        listening(router, kind=kind, most=MOST) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        await channel.channel_ready()
        yield channel, metrics, slow.may


def put(channel: grpc.aio.Channel) -> grpc.aio.UnaryUnaryCall[PutRequest, PutResponse]:
    call: grpc.aio.UnaryUnaryMultiCallable[PutRequest, PutResponse] = channel.unary_unary(
        "/etcdserverpb.KV/Put",
        request_serializer=PutRequest.SerializeToString,
        response_deserializer=PutResponse.FromString,
    )
    return call(PutRequest(key=b"k", value=b"v" * 256), timeout=20)


async def ended(call: Any) -> object:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details()
    return "OK"


@BOTH
async def test_too_many_calls_are_refused_and_none_is_cancelled(kind: str) -> None:
    async with serving(kind) as (channel, metrics, may):
        burst = [asyncio.ensure_future(ended(put(channel))) for _ in range(BURST)]
        await until(lambda: sum(one.done() for one in burst) >= BURST - MOST)
        may.set()
        assert Counter(await asyncio.gather(*burst)) == {"OK": MOST, TOO_MANY: BURST - MOST}
        shown = metrics.text().decode()
        refused = 'grpc_code="ResourceExhausted",grpc_method="Put",grpc_service="etcdserverpb.KV"'
        assert f'grpc_server_handled_total{{{refused},grpc_type="unary"}} {BURST - MOST}.0' in shown
        # Once that is over, all are served again.
        assert await ended(put(channel)) == "OK"


@BOTH
async def test_calls_that_were_given_up_take_no_place(kind: str) -> None:
    async with serving(kind) as (channel, _, may):
        burst = [put(channel) for _ in range(BURST)]
        await until(lambda: sum(one.done() for one in burst) >= BURST - MOST)
        for call in burst:
            call.cancel()
        await asyncio.gather(*burst, return_exceptions=True)
        may.set()
        async with asyncio.timeout(60):
            while await ended(put(channel)) != "OK":
                pass  # the last cancellations are on their way
        found = Counter(await asyncio.gather(*(ended(put(channel)) for _ in range(MOST))))
        assert found == {"OK": MOST}


@BOTH
async def test_streams_and_calls_of_operators_are_taken_meanwhile(kind: str) -> None:
    async with serving(kind) as (channel, _, may):
        burst = [asyncio.ensure_future(ended(put(channel))) for _ in range(BURST)]
        await until(lambda: sum(one.done() for one in burst) >= BURST - MOST)
        members = channel.unary_unary(
            "/etcdserverpb.Cluster/MemberList",
            request_serializer=MemberListRequest.SerializeToString,
            response_deserializer=MemberListResponse.FromString,
        )
        watch = channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=WatchRequest.SerializeToString,
            response_deserializer=WatchResponse.FromString,
        )
        assert await ended(members(MemberListRequest(), timeout=20)) == "OK"
        assert isinstance(await watch(timeout=20).read(), WatchResponse)
        may.set()
        assert TOO_MANY in await asyncio.gather(*burst)


@BOTH
async def test_calls_that_wait_for_others_keep_nobody_from_being_served(kind: str) -> None:
    """Whoever holds the lock must be able to give it back."""
    async with serving(kind) as (channel, metrics, may):
        lock: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/v3lockpb.Lock/Lock")
        waiting = [asyncio.ensure_future(ended(lock(b"", timeout=60))) for _ in range(3 * MOST)]
        shown = 'grpc_server_started_total{grpc_method="Lock",grpc_service="v3lockpb.Lock",grpc_type="unary"}'
        await until(lambda: f"{shown} {3 * MOST}.0" in metrics.text().decode(), 30)
        puts = [asyncio.ensure_future(ended(put(channel))) for _ in range(MOST)]
        may.set()
        assert Counter(await asyncio.gather(*puts, *waiting)) == {"OK": 4 * MOST}


def test_a_refusal_tells_the_client_that_nothing_was_done() -> None:
    code, text = TOO_MANY
    assert fate(code.value[0], text) is Fate.NOTHING_DONE
