"""Commands that came together in one session are applied together, as if each had come alone."""

from __future__ import annotations

import random

import pytest

from connect_kv.rpc.command_pb2 import Command, SessionBatch
from tests.statemachine.conftest import Member, add, close_session, number_in, put


def batch(session: int, *commands: Command, floor: int = 0) -> Command:
    return Command(session_batch=SessionBatch(session=session, floor=floor, commands=commands))


def alone(batches: list[Command]) -> list[Command]:
    """The same commands, each naming its session and floor itself."""
    found = []
    for item in batches:
        for command in item.session_batch.commands:
            single = Command()
            single.CopyFrom(command)
            single.session, single.floor = item.session_batch.session, item.session_batch.floor
            found.append(single)
    return found


async def test_each_command_of_a_batch_has_its_result_in_order() -> None:
    member = Member()
    await member.start()
    session = await member.open_session()
    results = await member.run(
        put(b"alone", b"1"),
        batch(session, put(b"a", b"1", number=1), add(5, number=2), put(b"b", b"2", number=3)),
        put(b"last", b"1"),
    )
    assert [result.number for result in results] == [0, 1, 2, 3, 0]
    assert number_in(results[2]) == 5
    revisions = [result.put.header.revision for result in results if result.HasField("put")]
    assert revisions == [2, 3, 4, 5]


async def test_duplicates_run_once_within_a_batch_and_across_batches() -> None:
    member = Member()
    await member.start()
    session = await member.open_session()
    first = await member.run(batch(session, add(1, number=1), add(1, number=1), add(1, number=2)))
    assert [number_in(result) for result in first] == [1, 1, 2]
    again = await member.run(
        batch(session, add(1, number=2), add(1, number=3)), batch(session, add(1, number=3))
    )
    assert [number_in(result) for result in again] == [2, 3, 3]


async def test_a_batch_that_closes_its_session_runs_what_stands_before() -> None:
    member = Member()
    await member.start()
    session = await member.open_session()
    results = await member.run(batch(session, add(1, number=1), close_session(0, 2), add(1, number=3)))
    assert number_in(results[0]) == 1
    assert results[1].HasField("session_close")
    assert results[2].failure.type == "SessionExpired"


@pytest.mark.parametrize("seed", range(20))
async def test_batches_decide_as_single_commands_do(seed: int) -> None:
    """Random numbers, floors and repetitions: same results, same state, and the same after a restart."""
    rng = random.Random(seed)
    together, single = Member(), Member()
    await together.start()
    await single.start()
    sessions = [await together.open_session() for _ in range(2)]
    assert sessions == [await single.open_session() for _ in range(2)]
    floor = 0
    for _ in range(12):
        floor += rng.choice((0, 0, 1, 3))
        batches = [
            batch(
                rng.choice((*sessions, 99)),
                *(
                    rng.choice((add(1, number=number), put(b"k%d" % (number % 5), b"v", number=number)))
                    for number in (max(0, floor + rng.randrange(-2, 12)) for _ in range(rng.randrange(1, 6)))
                ),
                floor=floor,
            )
            for _ in range(rng.randrange(1, 4))
        ]
        assert await together.run(*batches) == await single.run(*alone(batches))
        assert together.state() == single.state()
    await together.restart()
    await single.restart()
    assert together.state() == single.state()


async def test_calls_of_a_batch_are_counted_by_how_they_ended() -> None:
    member = Member()
    await member.start()
    session = await member.open_session()
    await member.run(batch(session, add(1, number=1), add(13, number=2), add(1, number=3), add(1, number=3)))
    counts = member.host.machines.counts.command("counter", "add")
    assert counts is not None
    assert (counts.returned, counts.raised, counts.not_run) == (2, 1, 0)
