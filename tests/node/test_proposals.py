"""Proposals that wait: for room in the queue, for exactly their entry, for an index."""

import asyncio

import pytest

from connect_kv.errors import NodeStopped, NotProposed, OutcomeUnknown, Overloaded
from connect_kv.node.proposals import EntryWaiters, PendingProposal, ProposalQueue
from connect_kv.node.reads import IndexWaiters
from connect_kv.raft.types import EntryId
from tests.node.parts import config, entry, future


async def test_a_waiter_gets_its_part_of_exactly_its_entry() -> None:
    waiters: EntryWaiters[int] = EntryWaiters()
    first, second = future(), future()
    waiters.add(EntryId(1, 5), 0, 2, first)
    waiters.add(EntryId(1, 5), 2, 1, second)
    waiters.applied([entry(1, 5)], [[10, 11, 12]])
    assert await first == [10, 11]
    assert await second == [12]


async def test_another_term_at_the_index_means_not_proposed() -> None:
    waiters: EntryWaiters[int] = EntryWaiters()
    old, new = future(), future()
    waiters.add(EntryId(1, 5), 0, 1, old)
    waiters.add(EntryId(2, 5), 0, 1, new)
    waiters.applied([entry(2, 5)], [[7]])
    assert await new == [7]
    with pytest.raises(NotProposed):
        await old


async def test_an_earlier_entry_of_a_later_term_proves_the_same() -> None:
    """Otherwise a caller would wait until the new leader's log gets that long."""
    waiters: EntryWaiters[int] = EntryWaiters()
    old = future()
    waiters.add(EntryId(1, 9), 0, 1, old)
    waiters.applied([entry(2, 5)], [[]])
    with pytest.raises(NotProposed):
        await old
    late = future()
    waiters.add(EntryId(1, 20), 0, 1, late)
    with pytest.raises(NotProposed):
        await late
    assert not waiters


async def test_a_snapshot_over_a_waiter_leaves_its_outcome_unknown() -> None:
    waiters: EntryWaiters[int] = EntryWaiters()
    covered, after = future(), future()
    waiters.add(EntryId(1, 5), 0, 1, covered)
    waiters.add(EntryId(1, 50), 0, 1, after)
    waiters.jumped(20)
    with pytest.raises(OutcomeUnknown):
        await covered
    assert not after.done()


async def test_at_the_end_all_who_wait_for_an_index_are_told() -> None:
    waiters = IndexWaiters()
    loop = asyncio.get_running_loop()
    one, gone, other = loop.create_future(), loop.create_future(), loop.create_future()
    waiters.add(5, [one, gone])
    waiters.add(7, [other])
    gone.cancel()
    waiters.fail(lambda: NodeStopped("ends"))
    for waiting in (one, other):
        with pytest.raises(NodeStopped):
            await waiting
    waiters.applied(9)


async def test_beyond_the_bound_a_proposal_is_refused_and_later_taken() -> None:
    queue: ProposalQueue[int] = ProposalQueue(config(max_waiting_commands=3))
    for _ in range(3):
        queue.put(PendingProposal(b"x", 1, 0.0, future()))
    with pytest.raises(Overloaded):
        queue.put(PendingProposal(b"x", 1, 0.0, future()))
    assert len(queue.take()) == 3
    assert (queue.size, queue.commands) == (0, 0)
    queue.put(PendingProposal(b"x", 1, 0.0, future()))


async def test_a_batch_is_bounded_but_holds_at_least_one() -> None:
    queue: ProposalQueue[int] = ProposalQueue(config(max_batch_bytes=10))
    for size in (50, 4, 4, 4):
        queue.put(PendingProposal(b"x" * size, 1, 0.0, future()))
    assert [[len(w.payload) for w in queue.take()] for _ in range(4)] == [[50], [4, 4], [4], []]


async def test_what_is_put_back_comes_first_and_the_abandoned_are_left_out() -> None:
    queue: ProposalQueue[int] = ProposalQueue(config())
    waiting = [PendingProposal(bytes([n]), 1, 0.0, future()) for n in range(4)]
    for one in waiting:
        queue.put(one)
    batch = queue.take()
    queue.put(PendingProposal(b"\x09", 1, 0.0, future()))
    queue.put_back(batch)
    assert waiting[2].future is not None
    waiting[2].future.cancel()
    assert b"".join(one.payload for one in queue.take()) == b"\x00\x01\x03\x09"
    assert (queue.size, queue.commands) == (0, 0)
