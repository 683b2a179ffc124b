"""The session door over a node that fails on purpose: resending, the window, what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from connect_kv.errors import NodeStopped, NoLeader, OutcomeUnknown
from connect_kv.interfaces import Clock
from connect_kv.node.clock import SystemClock
from connect_kv.rpc.command_pb2 import Command, CommandBatch, Failure, Result, SessionOpened
from connect_kv.rpc.kv_pb2 import PutRequest, RangeRequest, RangeResponse, ResponseHeader
from connect_kv.rpc.session_pb2 import SessionReplies, SessionRequests
from connect_kv.services.executor import CommandExecutor
from connect_kv.services.machine_calls import MachineCalls
from connect_kv.services.reads import Reads
from connect_kv.services.session import SessionService
from connect_kv.services.session_commands import SessionCommands
from connect_kv.services.user_quotas import UserLimits, UserQuotas
from connect_kv.statemachine.loop_budget import LoopBudget
from connect_kv.statemachine.sessions import SessionTable
from connect_kv.statemachine.user_machines import UserMachines
from tests.services.conftest import FakeNode, everybody, serving

Stream = grpc.aio.StreamStreamCall[Any, Any]


def answer(batch: CommandBatch) -> Sequence[Result]:
    """What apply would return: a session for an opening, the number for everything else."""
    return [
        Result(session_open=SessionOpened(session=70, ttl=9))
        if command.HasField("session_open")
        else Result(number=command.number)
        for command in batch.commands
    ]


class FakeKeys:
    """A key/value machine whose ranges say how often they were asked."""

    def __init__(self) -> None:
        self.ranges = 0

    async def range_encoded(self, request: RangeRequest, header: ResponseHeader) -> bytes:
        self.ranges += 1
        return RangeResponse(header=header, count=self.ranges).SerializeToString()

    def gets(self, keys: Sequence[bytes]) -> list[bytes]:
        self.ranges += len(keys)
        return [RangeResponse(count=self.ranges).SerializeToString() for _ in keys]


@asynccontextmanager
async def opened(node: FakeNode, *, window: int = 8, clock: Clock | None = None) -> AsyncIterator[Stream]:
    """A stream with an open session."""
    executor = CommandExecutor(node, cluster_id=1, member_id=1, revision=lambda: 1, time_limit=0.5)
    keys: Any = FakeKeys()
    reads = Reads(keys, SimpleNamespace(), SimpleNamespace())  # type: ignore[arg-type]  # only ranges are read
    commands = SessionCommands(
        MachineCalls(UserMachines({})), everybody(), max_request_bytes=100, leases=lambda: ()
    )
    service = SessionService(
        executor,
        reads,
        commands,
        SessionTable(),
        everybody(),
        clock=clock or SystemClock(),
        user_quotas=UserQuotas(UserLimits()),
        window=window,
    )
    async with serving({"Session": service}) as (channel, _, _metrics):
        stream: Stream = channel.stream_stream(
            "/connect_kv.v1.Session/Open",
            request_serializer=SessionRequests.SerializeToString,
            response_deserializer=SessionReplies.FromString,
        )()
        await stream.write(SessionRequests(ttl=9))
        first = await stream.read()
        assert isinstance(first, SessionReplies)
        assert (first.session, first.ttl, first.window) == (70, 9, window)
        yield stream
        stream.cancel()


def put(number: int, value: bytes = b"v") -> Command:
    return Command(number=number, put=PutRequest(key=b"k", value=value))


async def results(stream: Stream, count: int) -> dict[int, Result]:
    found: dict[int, Result] = {}
    async with asyncio.timeout(60):
        while len(found) < count:
            replies = await stream.read()
            assert isinstance(replies, SessionReplies), await stream.details()
            found |= {result.number: result for result in replies.results}
    return found


async def test_a_batch_is_one_proposal_with_session_and_floor() -> None:
    node = FakeNode(answer)
    async with opened(node) as stream:
        await stream.write(SessionRequests(floor=4, commands=[put(5), put(6), put(7)]))
        assert set(await results(stream, 3)) == {5, 6, 7}
    batch = node.batches[-1].commands
    assert [(command.session, command.number) for command in batch] == [(70, 5), (70, 6), (70, 7)]
    assert max(command.floor for command in batch) == 4


@pytest.mark.parametrize("error", [OutcomeUnknown(), NoLeader()])
async def test_a_command_is_proposed_again_until_its_result_is_known(error: Exception) -> None:
    node = FakeNode(answer)
    async with opened(node) as stream:
        node.failures = [error, error]
        await stream.write(SessionRequests(floor=1, commands=[put(1)]))
        assert not (await results(stream, 1))[1].HasField("failure")
    assert [command.number for batch in node.batches[1:] for command in batch.commands] == [1]


async def test_what_could_not_be_carried_out_is_told_by_number() -> None:
    """The client sends it again elsewhere, under the same number."""
    node = FakeNode(answer)
    async with opened(node) as stream:
        node.failures = [NodeStopped()]
        await stream.write(SessionRequests(floor=1, commands=[put(1), put(2)]))
        found = await results(stream, 2)
    assert {result.failure.code for result in found.values()} == {grpc.StatusCode.UNAVAILABLE.value[0]}


async def test_reads_of_a_batch_share_one_barrier() -> None:
    node = FakeNode(answer)
    async with opened(node) as stream:
        reads = [Command(number=number, range=RangeRequest(key=b"k")) for number in (1, 2, 3)]
        local = Command(number=4, range=RangeRequest(key=b"k", serializable=True))
        whole = Command(number=500, range=RangeRequest(key=b"k", range_end=b"l"))
        await stream.write(SessionRequests(floor=1, commands=[*reads, local, whole]))
        found = await results(stream, 5)
    assert all(result.range.count for result in found.values())
    assert node.barriers == 1


async def test_what_a_session_does_not_carry_is_refused_and_not_proposed() -> None:
    node = FakeNode(answer)
    async with opened(node) as stream:
        commands = [Command(number=1), put(2, b"x" * 101), Command(put=PutRequest(key=b"k")), put(3)]
        commands[0].lease_expire.SetInParent()
        await stream.write(SessionRequests(floor=1, commands=commands))
        found = await results(stream, 4)
    assert "lease_expire" in found[1].failure.message
    assert found[2].failure.message == "etcdserver: request is too large"
    assert "numbered" in found[0].failure.message
    assert [command.number for command in node.batches[-1].commands] == [3]


async def test_a_message_of_results_is_not_larger_than_any_client_takes() -> None:
    """Values of 900 kB, each allowed, together more than the 4 MiB that a client takes by default."""
    failure = Failure(code=5, message="x" * 900_000)

    def large(batch: CommandBatch) -> Sequence[Result]:
        if batch.commands[0].HasField("session_open"):
            return answer(batch)
        return [Result(number=command.number, failure=failure) for command in batch.commands]

    node = FakeNode(large)
    async with opened(node) as stream:
        await stream.write(SessionRequests(floor=1, commands=[put(number) for number in range(1, 8)]))
        sizes: list[int] = []
        found: set[int] = set()
        async with asyncio.timeout(60):
            while len(found) < 7:
                replies = await stream.read()
                assert isinstance(replies, SessionReplies), await stream.details()
                sizes.append(replies.ByteSize())
                found |= {result.number for result in replies.results}
    assert max(sizes) < 2 << 20
    assert len(sizes) == 4, "two fit into each"


async def test_no_more_than_the_window_is_taken_in() -> None:
    node = FakeNode(answer)
    gate = asyncio.Event()
    proposed = 0
    propose = node.propose

    async def slow(payload: bytes, count: int = 1) -> Sequence[bytes]:
        nonlocal proposed
        proposed += count
        await gate.wait()
        return await propose(payload, count)

    async with opened(node, window=4) as stream:
        node.propose = slow  # type: ignore[method-assign]
        for start in (1, 4, 7):
            await stream.write(
                SessionRequests(floor=1, commands=[put(number) for number in range(start, start + 3)])
            )
        async with asyncio.timeout(60):
            while not proposed:  # noqa: ASYNC110  # the server has no event for it
                await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        assert proposed == 3
        gate.set()
        assert set(await results(stream, 9)) == set(range(1, 10))


async def test_a_batch_larger_than_the_window_ends_the_stream() -> None:
    async with opened(FakeNode(answer), window=2) as stream:
        await stream.write(SessionRequests(floor=1, commands=[put(1), put(2), put(3)]))
        assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "window of 2" in await stream.details()


async def test_half_closing_ends_the_stream_once_all_is_answered() -> None:
    async with opened(FakeNode(answer)) as stream:
        await stream.write(SessionRequests(floor=1, commands=[put(1)]))
        await stream.done_writing()
        assert set(await results(stream, 1)) == {1}
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK


class RunningClock(SystemClock):
    """Whatever is done has taken too long."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        self.time += 0.01
        return self.time


async def test_a_large_batch_gives_the_loop_back_whatever_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rests = 0
    rest = LoopBudget.rest

    async def counted(self: LoopBudget) -> None:
        nonlocal rests
        rests += 1
        await rest(self)

    monkeypatch.setattr(LoopBudget, "rest", counted)
    batch = SessionRequests()
    for number in range(1, 2000, 2):
        batch.commands.add(number=number, put=PutRequest(key=b"k"))
        batch.commands.add(number=number + 1, range=RangeRequest(key=b"k", serializable=number % 4 == 1))
    async with opened(FakeNode(answer), window=2000, clock=RunningClock()) as stream:
        await stream.write(batch)
        assert set(await results(stream, 2000)) == set(range(1, 2001))
    assert rests >= 2000 // 8 + 1000 // 16
