"""Helpers of the API tests: a node that answers at once, and a server around any servicer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from connect_kv.auth.authenticator import Authenticator
from connect_kv.auth.table import AuthTable
from connect_kv.auth.tokens import SimpleTokens
from connect_kv.events import Signal
from connect_kv.frontend.grpc.router import Router
from connect_kv.frontend.grpc.services import add_services
from connect_kv.metrics import Metrics
from connect_kv.rpc.command_pb2 import CommandBatch, Result
from connect_kv.services.access import Access
from connect_kv.services.deadlines import begun
from connect_kv.services.executor import CommandExecutor
from connect_kv.services.opening import Opening
from connect_kv.services.streams import Streams
from connect_kv.statemachine.batches import commands_of
from tests.doors import listening

M = TypeVar("M", bound=Message)
UnaryCall = grpc.aio.UnaryUnaryMultiCallable[Any, Any]
StreamCall = grpc.aio.StreamStreamCall[Any, Any]
Answer = Callable[[CommandBatch], Sequence[Result]]


def everybody() -> Access:
    """As while authentication is off: anybody may do anything."""
    table = AuthTable()
    tokens = SimpleTokens(table, lambda: 0.0)

    async def applied(index: int) -> None:
        pass

    who = Authenticator(table, tokens, applied=applied, last_applied=lambda: 0, patience=1.0)
    return Access(table, who, lambda: None)


async def until(condition: Callable[[], object], timeout: float = 60.0) -> None:
    """Let the loop run until the condition holds."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110  # what is waited for has no event of its own
            await asyncio.sleep(0.001)


def unary(channel: grpc.aio.Channel, path: str) -> UnaryCall:
    """A unary method by path, of bytes."""
    method: UnaryCall = channel.unary_unary(path)
    return method


async def listed(channel: grpc.aio.Channel, path: str, request: bytes, kind: type[M]) -> list[M]:
    """All that a server stream gives."""
    method: grpc.aio.UnaryStreamMultiCallable[Any, Any] = channel.unary_stream(path)
    return [kind.FromString(answer) async for answer in method(request)]


async def next_of(call: StreamCall, kind: type[M]) -> M:
    """The next message of a stream of bytes."""
    answer = await call.read()
    assert isinstance(answer, bytes), await call.details()
    return kind.FromString(answer)


def streaming(channel: grpc.aio.Channel, path: str, *metadata: tuple[str, str]) -> StreamCall:
    """A bidirectional call by path, of bytes."""
    method: grpc.aio.StreamStreamMultiCallable[Any, Any] = channel.stream_stream(path)
    return method(metadata=metadata)


class FakeNode:
    """Answers proposals by a function; remembers what was proposed."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.term = 3
        self.leader_id: int | None = 1
        self.leader_changed = Signal()
        self.answer = answer or (lambda batch: [Result(number=c.number) for c in batch.commands])
        self.batches: list[CommandBatch] = []
        self.barriers = 0
        self.failures: list[Exception] = []
        """Raised by the next proposals or barriers, in order."""

    def submit(self, payload: bytes, count: int = 1) -> asyncio.Future[Sequence[bytes]]:
        """What fails, fails in the future."""
        return begun(self.propose(payload, count))

    def submit_read(self) -> asyncio.Future[int]:
        return begun(self.read_barrier())

    async def propose(self, payload: bytes, count: int = 1) -> Sequence[bytes]:
        if self.failures:
            raise self.failures.pop(0)
        batch = CommandBatch(commands=commands_of(CommandBatch.FromString(payload)))
        assert len(batch.commands) == count
        self.batches.append(batch)
        return [result.SerializeToString() for result in self.answer(batch)]

    async def read_barrier(self) -> int:
        if self.failures:
            raise self.failures.pop(0)
        self.barriers += 1
        return 7


async def proposed_in_session(executor: CommandExecutor, payload: bytes) -> Sequence[bytes]:
    """One command of a session, as `services.session` proposes it."""
    outcome: asyncio.Future[Sequence[bytes]] = asyncio.get_running_loop().create_future()
    executor.begin_in_session(payload, 1, outcome.set_result, outcome.set_exception)
    return await outcome


@asynccontextmanager
async def serving(
    servicers: dict[str, object],
    *,
    has_leader: Callable[[], bool] = lambda: True,
    opening: Opening | None = None,
) -> AsyncIterator[tuple[grpc.aio.Channel, Streams, Metrics]]:
    """A server with these servicers and a channel to it."""
    metrics = Metrics(process=False)
    streams = Streams(has_leader, patience=0.05)
    router = Router(streams, metrics, has_leader, opening=opening)
    add_services(router, servicers)
    async with (
        listening(router) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield channel, streams, metrics
