"""Calls that nobody has taken yet: a member refuses in time, and says so."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from connect_kv.client.failures import Fate, fate
from connect_kv.frontend.grpc.admission import LOOK_SECONDS, SETTLE_SECONDS, UNCERTAIN_SECONDS, Backlog
from connect_kv.frontend.grpc.router import Router
from connect_kv.frontend.grpc.services import add_services
from connect_kv.metrics import Metrics
from connect_kv.rpc.cluster_pb2 import MemberListRequest, MemberListResponse
from connect_kv.rpc.kv_pb2 import PutRequest, PutResponse
from connect_kv.rpc.watch_pb2 import WatchRequest, WatchResponse
from connect_kv.services.caller import Caller, Channel
from connect_kv.services.streams import Streams
from tests.doors import listening

MOST = 200
BURST = 2000
TOO_MANY = (grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: too many requests")

BOTH = pytest.mark.parametrize("kind", ["door", "grpcio"])


class Slow:
    """Takes the event loop for half a millisecond with each put."""

    async def Put(self, request: PutRequest, caller: Caller) -> PutResponse:
        time.sleep(0.0005)  # noqa: ASYNC251
        return PutResponse()

    async def MemberList(self, request: MemberListRequest, caller: Caller) -> MemberListResponse:
        return MemberListResponse()

    async def Watch(self, channel: Channel[WatchRequest]) -> None:
        await channel.write(WatchResponse())


@asynccontextmanager
async def serving(kind: str) -> AsyncIterator[tuple[grpc.aio.Channel, Metrics]]:
    metrics = Metrics(process=False)
    router = Router(Streams(lambda: True, patience=0.05), metrics, lambda: True)
    add_services(router, {"KV": Slow(), "Cluster": Slow(), "Watch": Slow()})
    async with (
        listening(router, kind=kind, most=MOST) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        await channel.channel_ready()
        yield channel, metrics


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
    async with serving(kind) as (channel, metrics):
        found = Counter(await asyncio.gather(*(ended(put(channel)) for _ in range(BURST))))
        assert set(found) == {"OK", TOO_MANY}
        assert found["OK"] >= MOST // 2
        shown = metrics.text().decode()
        assert 'grpc_code="ResourceExhausted",grpc_method="Put"' in shown
        # Once that is over, all are served again.
        assert await ended(put(channel)) == "OK"


@BOTH
async def test_calls_given_up_while_they_waited_are_no_backlog(kind: str) -> None:
    async with serving(kind) as (channel, _):
        burst = [put(channel) for _ in range(BURST)]
        await asyncio.sleep(0.02)
        for call in burst:
            call.cancel()
        await asyncio.gather(*burst, return_exceptions=True)
        await asyncio.sleep(2 * SETTLE_SECONDS)
        found = Counter(await asyncio.gather(*(ended(put(channel)) for _ in range(MOST // 2))))
        assert found == {"OK": MOST // 2}


@BOTH
async def test_streams_and_calls_of_operators_are_taken_meanwhile(kind: str) -> None:
    async with serving(kind) as (channel, _):
        burst = [asyncio.ensure_future(ended(put(channel))) for _ in range(BURST)]
        await asyncio.sleep(0.1)
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
        assert TOO_MANY in await asyncio.gather(*burst)


def test_a_refusal_tells_the_client_that_nothing_was_done() -> None:
    code, text = TOO_MANY
    assert fate(code.value[0], text) is Fate.NOTHING_DONE


class Library:
    """Calls begun, a clock, and looks at both."""

    def __init__(self, most: int = 100) -> None:
        self.begun = 0
        self.time = 0.0
        self.backlog = Backlog(lambda: self.begun, self, most)

    def now(self) -> float:
        return self.time

    def wall(self) -> int:
        return 0

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError

    def later(self, *, begun: int = 0, taken: int = 0, seconds: float = LOOK_SECONDS) -> bool:
        self.begun += begun
        self.backlog.taken += taken
        self.time += seconds
        self.backlog.look()
        return self.backlog.excess > 0


def test_it_refuses_from_the_bound_down_to_half_of_it() -> None:
    library = Library()
    assert not library.later(begun=120, taken=20)
    assert library.later(begun=21, taken=20)
    assert library.backlog.excess == 51
    assert library.later(taken=40)
    assert library.backlog.excess == 11
    assert not library.later(taken=11)


def test_calls_that_clients_gave_up_do_not_count_once_nothing_moves() -> None:
    library = Library()
    assert library.later(begun=500, taken=20)
    assert not library.later(), "380 were given up"
    assert not library.later(begun=120, taken=20)
    assert library.later(begun=30, taken=20)


def test_calls_given_up_while_few_came_are_forgotten_before_many_come() -> None:
    library = Library()
    for _ in range(40):
        assert not library.later(begun=12, taken=10)
    assert library.backlog.taken == 400
    assert not library.later(begun=80, taken=40), "80 were given up until then"
    assert library.later(begun=120, taken=40)


def test_calls_that_clients_gave_up_are_not_refused_for_long_under_load() -> None:
    library = Library()
    library.later(begun=500, taken=20)
    steps = 0
    while library.later(begun=30, taken=30):
        steps += 1
    assert steps * LOOK_SECONDS == pytest.approx(UNCERTAIN_SECONDS, abs=2 * LOOK_SECONDS)
    assert not library.later(begun=30, taken=30)


def test_what_seemed_given_up_and_is_taken_after_all_counts_again() -> None:
    library = Library()
    library.later(begun=500, taken=20)
    library.later()
    library.later(taken=400)
    assert library.later(begun=200, taken=20)
