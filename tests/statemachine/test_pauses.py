"""A command that touches many keys lets others run on its way; what it does is one piece all the same."""

from __future__ import annotations

import asyncio

import pytest

from connect_kv.rpc.command_pb2 import Command, LeaseExpire, SessionBatch
from connect_kv.rpc.kv_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from connect_kv.rpc.lease_pb2 import LeaseGrantRequest, LeaseRevokeRequest
from tests.statemachine.conftest import Member, StillClock

KEYS = 4096
SLICE = 256
"""Keys that are read between two pauses, or fewer."""
LEASE = 7


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


async def turns_of_others(member: Member, command: Command) -> tuple[int, bytes]:
    """How often others had the loop while it was applied, and its result."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    entry = member.append(command)
    task = asyncio.create_task(other())
    ((result,),) = await member.host.apply([entry])
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
