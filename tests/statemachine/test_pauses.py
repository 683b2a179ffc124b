"""A command that touches many keys lets others run on its way; what it does is one piece all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from connect_kv.node.clock import SystemClock
from connect_kv.node.workers import ThreadWorker
from connect_kv.rpc.command_pb2 import Command, LeaseExpire, LeaseRenew, Result, SessionBatch
from connect_kv.rpc.kv_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from connect_kv.rpc.lease_pb2 import LeaseGrantRequest, LeaseRevokeRequest
from connect_kv.storage.leveldb import LevelDbDisk
from tests.statemachine.conftest import SECOND, Member, StillClock
from tests.turns import shortest

KEYS = 4096
SLICE = 256
"""Keys that are read between two pauses, or fewer."""
LEASE = 7
HELD_SECONDS = 0.008
"""Two milliseconds, the piece in which they ended, and a busy machine. Without pauses it is 30 and more."""


class RunningClock(StillClock):
    """A slice is too long at each look."""

    def __init__(self) -> None:
        self._time = 0.0

    def now(self) -> float:
        self._time += 0.01
        return self._time


def put(key: bytes, lease: int = 0) -> RequestOp:
    return RequestOp(request_put=PutRequest(key=key, value=b"v", lease=lease))


ALL = {"key": b"k", "range_end": b"l"}
WRITE = put(b"written")
EVERY_KEY = Compare(target=Compare.VALUE, value=b"v", **ALL)  # type: ignore[arg-type]
RANGE = RequestOp(request_range=RangeRequest(**ALL))  # type: ignore[arg-type]
SORTED = RequestOp(
    request_range=RangeRequest(
        key=b"k", range_end=b"l", sort_order=RangeRequest.DESCEND, sort_target=RangeRequest.VALUE
    )
)
PAST = RequestOp(request_range=RangeRequest(revision=3, **ALL))  # type: ignore[arg-type]
DELETE = RequestOp(request_delete_range=DeleteRangeRequest(prev_kv=True, **ALL))
PUTS = [
    RequestOp(request_txn=TxnRequest(success=[put(b"k%d" % number) for number in range(at, at + 128)]))
    for at in range(0, KEYS, 128)
]

LONG = {
    "range": Command(txn=TxnRequest(success=[WRITE, RANGE])),
    "nested range": Command(
        txn=TxnRequest(success=[RequestOp(request_txn=TxnRequest(success=[WRITE, RANGE]))])
    ),
    "sorted range": Command(txn=TxnRequest(success=[WRITE, SORTED])),
    "past range": Command(txn=TxnRequest(success=[WRITE, PAST])),
    "compare": Command(txn=TxnRequest(compare=[EVERY_KEY], success=[WRITE])),
    "delete in a transaction": Command(txn=TxnRequest(success=[DELETE])),
    "many puts": Command(txn=TxnRequest(success=PUTS)),
    "delete": Command(delete_range=DeleteRangeRequest(prev_kv=True, **ALL)),
    "revoke": Command(lease_revoke=LeaseRevokeRequest(ID=LEASE)),
    "expire": Command(lease_expire=LeaseExpire(items=[LeaseExpire.Item(id=LEASE, renewal=1_000)])),
}


async def filled(clock: StillClock) -> Member:
    """A member with many keys, all on one lease."""
    member = await Member({}, clock=clock).start()
    puts = [Command(put=PutRequest(key=b"k%06d" % n, value=b"v", lease=LEASE)) for n in range(KEYS)]
    await member.run(Command(lease_grant=LeaseGrantRequest(ID=LEASE, TTL=10)), *puts)
    return member


async def turns_of_others(member: Member, *commands: Command, elapsed: int = 0) -> tuple[int, bytes]:
    """How often others had the loop while they were applied, and the first one's result."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    entry = member.append(*commands, elapsed=elapsed)
    task = asyncio.create_task(other())
    ((result, *_),) = await member.host.apply([entry])
    task.cancel()
    return turns, result


@pytest.mark.parametrize("name", LONG)
async def test_others_have_the_loop_while_a_long_command_is_applied(name: str) -> None:
    running, still = await filled(RunningClock()), await filled(StillClock())
    turns, result = await turns_of_others(running, LONG[name])
    few, expected = await turns_of_others(still, LONG[name])
    if name != "past range":  # it is as long, but holds two keys
        assert turns >= KEYS // SLICE
    assert few < turns
    assert result == expected
    assert running.state() == still.state()


@pytest.mark.parametrize("together", [True, False])
async def test_a_command_in_a_session_pauses_too_and_is_answered_again_as_it_was(together: bool) -> None:
    member = await filled(RunningClock())
    session = await member.open_session()
    numbered = Command(number=1)
    numbered.MergeFrom(LONG["delete"])
    if together:
        batch = Command(session_batch=SessionBatch(session=session, commands=[numbered]))
    else:
        numbered.session = session
        batch = numbered
    turns, result = await turns_of_others(member, batch)
    again = await turns_of_others(member, batch)
    assert turns > KEYS // SLICE > again[0]
    assert again[1] == result


async def test_readers_see_nothing_of_a_command_that_has_paused() -> None:
    member = await filled(RunningClock())
    applying = asyncio.create_task(member.host.apply([member.append(LONG["delete"])]))
    seen = set()
    while not applying.done():
        await asyncio.sleep(0)
        count = await member.kv.range(RangeRequest(count_only=True, **ALL))  # type: ignore[arg-type]
        part = RangeRequest(key=b"k", range_end=b"k004", count_only=True)
        seen.add((count.header.revision, count.count, (await member.kv.range(part)).count))
    await applying
    assert seen <= {(KEYS + 1, KEYS, 4000), (KEYS + 2, 0, 0)}
    assert (KEYS + 1, KEYS, 4000) in seen


async def test_a_member_that_closes_while_a_command_has_paused_does_not_tear_it() -> None:
    member = await filled(RunningClock())
    applying = asyncio.create_task(member.host.apply([member.append(LONG["range"])]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await member.host.close()
    ((result,),) = await applying
    assert result


async def test_a_command_that_is_given_up_at_a_pause_leaves_no_iterator_open() -> None:
    member = await filled(RunningClock())
    applying = asyncio.create_task(member.host.apply([member.append(LONG["range"])]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    applying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await applying
    await member.host.close()
    assert member.host._broken


def session_puts(numbers: Iterable[int], session: int) -> Command:
    puts = [Command(number=number, put=PutRequest(key=b"k%d" % number, value=b"v")) for number in numbers]
    return Command(session_batch=SessionBatch(session=session, commands=puts))


@pytest.mark.parametrize("numbers", [range(1, 2000, 2), range(8, 8000, 8)], ids=["odd", "eighths"])
async def test_a_session_batch_pauses_whatever_its_numbers_are(numbers: range) -> None:
    """Reads take numbers, too, so those of the commands between them may be any."""
    member = await Member({}, clock=RunningClock()).start()
    session = await member.open_session()
    turns, _ = await turns_of_others(member, session_puts(numbers, session))
    # While it is parsed, and while it is applied.
    assert turns >= len(numbers) // 8 + len(numbers) // 32
    again, _ = await turns_of_others(member, session_puts(numbers, session))
    assert again >= len(numbers), "each by itself: none of them is new"


async def test_many_commands_pause_whatever_they_are() -> None:
    """Each may read two hundred keys before a pause of its own."""
    member = await filled(RunningClock())
    short = RequestOp(request_range=RangeRequest(key=b"k000000", range_end=b"k000200"))
    commands = [Command(txn=TxnRequest(success=[WRITE, short])) for _ in range(100)]
    turns, _ = await turns_of_others(member, *commands)
    assert turns >= len(commands)
    session = await member.open_session()
    numbered = [Command(number=n, txn=command.txn) for n, command in enumerate(commands, 1)]
    batch = Command(session_batch=SessionBatch(session=session, commands=numbered))
    turns, _ = await turns_of_others(member, batch)
    assert turns >= len(commands)


async def test_sessions_whose_time_is_over_end_with_pauses() -> None:
    member = await Member({}, clock=RunningClock()).start()
    for _ in range(500):
        await member.open_session(ttl=10, elapsed=1)
    turns, _ = await turns_of_others(member, Command(put=PutRequest(key=b"k")), elapsed=20 * SECOND)
    assert turns >= 500
    assert len(member.host.sessions) == 0


async def test_many_renewals_pause() -> None:
    member = await Member({}, clock=RunningClock()).start()
    ids = list(range(1, 4097))
    await member.run(*(Command(lease_grant=LeaseGrantRequest(ID=lease, TTL=60)) for lease in ids))
    turns, result = await turns_of_others(member, Command(lease_renew=LeaseRenew(ids=ids)))
    assert turns >= len(ids) // 64
    assert list(Result.FromString(result).lease_renew.ttls) == [60] * len(ids)


async def test_a_full_window_of_a_session_never_holds_the_loop(tmp_path: Path) -> None:
    """Measured: puts, transactions of many operations, and a second sending of all of it."""
    workers = ThreadWorker("state"), ThreadWorker("apply")
    member = Member({}, clock=SystemClock(), disk=LevelDbDisk(), root=tmp_path, workers=workers)
    await member.start()
    many = TxnRequest(success=[put(b"%d" % n) for n in range(120)])
    commands = [Command(number=2 * n + 1, put=PutRequest(key=b"k")) for n in range(4096)]
    for command in commands[3::64]:
        command.txn.CopyFrom(many)
    batches = []
    for _ in range(3):
        batches.append(
            Command(session_batch=SessionBatch(session=await member.open_session(), commands=commands))
        )
    entries = [(member.append(batch), member.append(batch)) for batch in batches]

    async def apply() -> None:
        new, again = entries.pop(0)
        assert await member.host.apply([new]) == await member.host.apply([again])

    assert await shortest(apply) < HELD_SECONDS
    await member.host.close()
    for worker in workers:
        await worker.close()


async def test_a_client_that_acknowledges_everything_at_once_does_not_hold_the_loop() -> None:
    member = await Member({}, clock=SystemClock()).start()
    sessions = [await member.open_session() for _ in range(3)]
    for session in sessions:
        for start in range(1, 16_384, 4096):
            await member.run(session_puts(range(start, start + 4096), session))
        assert member.host.sessions.unacknowledged(session) == 16_384

    async def acknowledge() -> None:
        session = sessions.pop()
        last = [Command(number=16_385, put=PutRequest(key=b"k"))]
        batch = Command(session_batch=SessionBatch(session=session, floor=16_385, commands=last))
        await member.host.apply([member.append(batch)])
        assert member.host.sessions.unacknowledged(session) == 1

    assert await shortest(acknowledge) < HELD_SECONDS
