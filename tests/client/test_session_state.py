"""What the client remembers of a session, without any stream."""

from __future__ import annotations

import asyncio

import pytest

from connect_kv import errors
from connect_kv.client.session_state import BATCH_BYTES, MAX_COMMAND_BYTES, WINDOW_BYTES, SessionState
from connect_kv.rpc.command_pb2 import Command, Failure, Result
from connect_kv.rpc.kv_pb2 import PutRequest, RangeRequest
from connect_kv.rpc.session_pb2 import SessionReplies, SessionRequests


def opened(session: int = 7, window: int = 4096) -> SessionState:
    state = SessionState(ttl=9)
    state.opened(SessionReplies(session=session, window=window))
    return state


def put(state: SessionState, key: bytes, value: bytes = b"v") -> asyncio.Future[Result]:
    future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    state.add(Command(put=PutRequest(key=key, value=value)).SerializeToString(), future, 10.0, writes=True)
    return future


def get(state: SessionState, key: bytes) -> asyncio.Future[Result]:
    future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    state.add(Command(range=RangeRequest(key=key)).SerializeToString(), future, 10.0, writes=False)
    return future


def sent(state: SessionState) -> SessionRequests:
    batch, count = state.next_batch()
    requests = SessionRequests.FromString(batch)
    assert len(requests.commands) == count
    return requests


def keys(requests: SessionRequests) -> list[bytes]:
    return [command.put.key or command.range.key for command in requests.commands]


def answer(state: SessionState, *numbers: int) -> None:
    state.replies(SessionReplies(results=[Result(number=number) for number in numbers]))


async def test_a_batch_is_encoded_as_protobuf_encodes_it() -> None:
    state = opened()
    sizes = (0, 1, 100, 127, 128, 300, 17_000)
    for size in sizes:
        put(state, b"key", b"x" * size)
    batch, count = state.next_batch()
    commands = [
        Command(number=number, put=PutRequest(key=b"key", value=b"x" * size))
        for number, size in enumerate(sizes, 1)
    ]
    assert count == len(sizes)
    assert batch == SessionRequests(session=7, floor=1, commands=commands).SerializeToString()


async def test_a_stream_begins_with_the_session_or_asks_for_one() -> None:
    state = SessionState(ttl=9)
    assert SessionRequests.FromString(state.head()) == SessionRequests(ttl=9)
    state.opened(SessionReplies(session=7, window=16))
    put(state, b"a")
    assert SessionRequests.FromString(state.head()) == SessionRequests(session=7, floor=1)


async def test_the_floor_is_the_first_number_without_an_answer() -> None:
    state = opened()
    for key in (b"a", b"b", b"c"):
        put(state, key)
    assert sent(state).floor == 1
    answer(state, 1, 3)
    put(state, b"d")
    assert sent(state).floor == 2
    answer(state, 2, 4)
    assert SessionRequests.FromString(state.head()).floor == 5


async def test_the_floor_does_not_pass_what_waits_to_be_sent() -> None:
    state = opened()
    put(state, b"a")
    put(state, b"b")
    assert SessionRequests.FromString(state.head()).floor == 1


async def test_who_gave_up_before_it_was_sent_is_not_sent() -> None:
    state = opened()
    calls = [put(state, key) for key in (b"a", b"b", b"c")]
    calls[0].cancel()
    calls[1].cancel()
    batch = sent(state)
    assert (keys(batch), batch.floor) == ([b"c"], 3)
    assert sent(state) == SessionRequests(session=7, floor=3)
    assert state.in_flight == 1


async def test_what_was_not_answered_is_sent_again_first_as_it_was() -> None:
    state = opened()
    put(state, b"a")
    put(state, b"b")
    first = sent(state)
    state.broken()
    put(state, b"c")
    state.opened(SessionReplies(session=7, window=4096))
    again = sent(state)
    assert keys(again) == [b"a", b"b", b"c"]
    assert list(again.commands)[:2] == list(first.commands)


async def test_a_batch_ends_before_it_is_too_large() -> None:
    state = opened()
    for key in (b"a", b"b", b"c"):
        put(state, key, b"x" * (BATCH_BYTES // 2))
    put(state, b"d", b"x" * (BATCH_BYTES * 2))
    assert [keys(sent(state)) for _ in range(5)] == [[b"a"], [b"b"], [b"c"], [b"d"], []]


async def test_a_command_too_large_takes_no_number() -> None:
    state = opened()
    with pytest.raises(errors.RequestTooLarge):
        put(state, b"a", b"x" * MAX_COMMAND_BYTES)
    put(state, b"b")
    assert [command.number for command in sent(state).commands] == [1]


async def test_no_number_is_used_for_two_commands_though_the_session_is_another() -> None:
    """What certainly did not run, and reads, move to the next session; a write that may have run does not."""
    state = opened()
    lost, again = put(state, b"a"), get(state, b"b")
    sent(state)
    refused = put(state, b"c")
    sent(state)
    gone = Failure(code=9, message="gone", type="SessionExpired")
    state.replies(SessionReplies(results=[Result(number=3, failure=gone)]))
    assert state.expired
    assert sent(state) == SessionRequests()
    waiting = put(state, b"d")
    state.broken()
    assert isinstance(lost.exception(), errors.SessionExpired)
    state.opened(SessionReplies(session=8, window=4096))
    batch = sent(state)
    assert (batch.session, batch.floor, keys(batch)) == (8, 2, [b"b", b"c", b"d"])
    answer(state, *(command.number for command in batch.commands))
    assert all(call.done() and call.exception() is None for call in (again, refused, waiting))


async def test_large_commands_are_under_way_up_to_a_number_of_bytes() -> None:
    state = opened()
    for _ in range(40):
        put(state, b"key", bytes(BATCH_BYTES))
    batches = []
    while (batch := sent(state)).commands:
        batches.append(batch)
    under_way = sum(len(command.put.value) for batch in batches for command in batch.commands)
    assert WINDOW_BYTES - BATCH_BYTES < under_way < WINDOW_BYTES + BATCH_BYTES
    answer(state, 1)
    assert len(sent(state).commands) == 1
    assert not sent(state).commands
    state.broken()
    state.opened(SessionReplies(session=7, window=4096))
    assert sent(state).commands[0].number == 2
