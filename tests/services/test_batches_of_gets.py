"""Gets that come together: one barrier, one view, and nothing kept of what was read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from connect_kv.etcd_errors import Code
from connect_kv.rpc.kv_pb2 import (
    RangeRequest,
    RangeResponse,
    ResponseHeader,
)
from tests.services.batch_member import Member, Ticking, code
from tests.services.batches import alone, begin, calls, together
from tests.services.conftest import FakeNode


async def test_ranges_share_a_barrier_and_what_is_more_than_a_key_has_its_own() -> None:
    member = Member()
    requests = [
        *([RangeRequest(key=b"k")] * 5),
        RangeRequest(key=b"k", serializable=True),
        RangeRequest(key=b"k", range_end=b"z"),
    ]
    outcomes = await together(member.route("Range"), calls(requests))
    assert member.node.barriers == 2
    expected = await alone(member.route("Range"), calls(requests[:1])[0])
    assert outcomes == [expected] * 7
    assert isinstance(expected, bytes)
    header = RangeResponse.FromString(expected).header
    assert (header.cluster_id, header.member_id, header.raft_term) == (10, 1, 3)


async def test_serializable_gets_need_no_leader() -> None:
    member = Member(node=FakeNode())
    member.node.leader_id = None
    sent = calls([RangeRequest(key=b"k", serializable=True)] * 3)
    begin(member.route("Range"), sent)
    assert all(isinstance(call.outcome, bytes) for call in sent)
    assert not member.node.barriers


async def test_reads_of_a_database_that_has_gone_are_told_so() -> None:
    member = Member()
    member.kv.close()
    outcomes = await together(member.route("Range"), calls([RangeRequest(key=b"k")] * 2))
    assert [code(one) for one in outcomes] == [Code.UNAVAILABLE] * 2


async def test_batches_that_wait_for_their_turn_hold_no_answers() -> None:
    """Thousands of clients ask for a megabyte and read nothing: what is read for them is theirs at once."""
    member = Member(clock=Ticking(0.001))
    read = 0

    def gets(keys: Sequence[bytes], header: ResponseHeader, *, most: int) -> list[bytes]:
        nonlocal read
        read += len(keys)
        return [b"v"] * len(keys)

    member.kv.gets = gets  # type: ignore[method-assign,assignment]
    sent = [calls([RangeRequest(key=b"k", serializable=True)] * 10) for _ in range(50)]
    for batch in sent:
        begin(member.route("Range"), batch)
    waiting = [call for batch in sent for call in batch]
    while not all(call.outcomes for call in waiting):
        assert read == sum(len(call.outcomes) for call in waiting)
        await asyncio.sleep(0)
    assert read == 500
