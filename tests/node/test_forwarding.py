"""Proposals that are forwarded to the leader: what becomes of them, and what their callers are told."""

import asyncio
import random
from collections.abc import Sequence

import pytest

from connect_kv.errors import NoLeader, NotProposed, OutcomeUnknown, Overloaded
from connect_kv.events import FEW
from connect_kv.node.forwarding import Forwarder, ForwardReceiver
from connect_kv.node.proposals import EntryWaiters, PendingProposal, ProposalQueue
from connect_kv.peer_protocol import ForwardOutcome, ForwardRefusal, ForwardRequest, ForwardResponse, Proposal
from connect_kv.raft.types import ZERO, EntryId
from connect_kv.testing.simulation.clock import VirtualClock
from tests.node.parts import config, entry, future


@pytest.fixture
async def waiters() -> EntryWaiters[int]:
    return EntryWaiters()


@pytest.fixture
async def forwarder(waiters: EntryWaiters[int]) -> Forwarder[int]:
    return Forwarder(
        config=config(), clock=VirtualClock(), rng=random.Random(1), waiters=waiters, applied=ZERO
    )


def sent(forwarder: Forwarder[int]) -> tuple[asyncio.Future[Sequence[int]], Proposal]:
    call = future()
    request = forwarder.send([PendingProposal(b"x", 1, 0.0, call)], source=1, leader=2)
    return call, request.proposals[0]


def outcome(forwarder: Forwarder[int], outcome: ForwardOutcome, source: int = 2) -> None:
    forwarder.answered(ForwardResponse(source=source, target=1, outcomes=(outcome,)))


async def test_an_outcome_after_the_apply_takes_the_retained_result(forwarder: Forwarder[int]) -> None:
    call, proposal = sent(forwarder)
    forwarder.applied([entry(1, 5)], [[8, 9]])
    outcome(forwarder, ForwardOutcome(id=proposal.id, entry=EntryId(1, 5), offset=1))
    assert await call == [9]


async def test_an_outcome_whose_entry_was_replaced_is_not_proposed(forwarder: Forwarder[int]) -> None:
    call, proposal = sent(forwarder)
    forwarder.applied([entry(2, 5)], [[8]])
    outcome(forwarder, ForwardOutcome(id=proposal.id, entry=EntryId(1, 5)))
    with pytest.raises(NotProposed):
        await call


async def test_an_outcome_whose_result_is_gone_is_unknown(forwarder: Forwarder[int]) -> None:
    call, proposal = sent(forwarder)
    forwarder.jumped(EntryId(1, 9))
    outcome(forwarder, ForwardOutcome(id=proposal.id, entry=EntryId(1, 5)))
    with pytest.raises(OutcomeUnknown):
        await call


async def test_a_refusal_for_not_leading_is_sent_again_and_one_for_overload_told(
    forwarder: Forwarder[int],
) -> None:
    call, proposal = sent(forwarder)
    outcome(forwarder, ForwardOutcome(id=proposal.id, refusal=ForwardRefusal.NOT_LEADER))
    again = forwarder.take_refused()
    assert [one.future for one in again] == [call]
    request = forwarder.send(again, source=1, leader=3)
    assert request.proposals[0].id != proposal.id
    overloaded = ForwardOutcome(id=request.proposals[0].id, refusal=ForwardRefusal.OVERLOADED)
    outcome(forwarder, overloaded, source=2)
    assert not call.done()
    outcome(forwarder, overloaded, source=3)
    with pytest.raises(Overloaded):
        await call


async def test_a_doubtful_answer_may_still_come_for_an_election_timeout(
    forwarder: Forwarder[int], waiters: EntryWaiters[int]
) -> None:
    answered, first = sent(forwarder)
    lost, _ = sent(forwarder)
    forwarder.doubt(2)
    await asyncio.sleep(0.9)
    forwarder.tick()
    outcome(forwarder, ForwardOutcome(id=first.id, entry=EntryId(1, 5)))
    await asyncio.sleep(0.2)
    forwarder.tick()
    with pytest.raises(OutcomeUnknown):
        await lost
    waiters.applied([entry(1, 5)], [[3]])
    assert await answered == [3]
    assert forwarder.unanswered == forwarder.size == 0


async def test_results_are_retained_up_to_a_limit(waiters: EntryWaiters[int]) -> None:
    """An answer that names an older one comes too late: its outcome is unknown."""
    forwarder: Forwarder[int] = Forwarder(
        config=config(retained_results=2),
        clock=VirtualClock(),
        rng=random.Random(1),
        waiters=waiters,
        applied=ZERO,
    )
    calls = [sent(forwarder) for _ in range(3)]
    forwarder.applied([entry(1, index) for index in (1, 2, 3)], [[1], [2], [3]])
    for number, (_, proposal) in enumerate(calls, 1):
        outcome(forwarder, ForwardOutcome(id=proposal.id, entry=EntryId(1, number)))
    with pytest.raises(OutcomeUnknown):
        await calls[0][0]
    assert [await call for call, _ in calls[1:]] == [[2], [3]]


async def test_a_caller_that_gave_up_is_not_answered(
    forwarder: Forwarder[int], waiters: EntryWaiters[int]
) -> None:
    call, proposal = sent(forwarder)
    call.cancel()
    outcome(forwarder, ForwardOutcome(id=proposal.id, entry=EntryId(1, 5)))
    assert len(waiters) == 0
    assert forwarder.unanswered == 0


async def test_at_the_end_what_was_refused_certainly_was_not_proposed(forwarder: Forwarder[int]) -> None:
    waits, _ = sent(forwarder)
    refused, proposal = sent(forwarder)
    outcome(forwarder, ForwardOutcome(id=proposal.id, refusal=ForwardRefusal.NOT_LEADER))
    forwarder.fail(lambda: OutcomeUnknown("ends"), lambda: NotProposed("ends"))
    with pytest.raises(OutcomeUnknown):
        await waits
    with pytest.raises(NotProposed):
        await refused
    assert forwarder.take_refused() == []
    assert forwarder.size == 0


async def test_ids_are_remembered_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each follower: a repetition that is older than so many is taken for a new proposal."""
    monkeypatch.setattr("connect_kv.node.forwarding._SEEN_IDS", 3)
    intake: ForwardReceiver[int] = ForwardReceiver(node_id=2, clock=VirtualClock(), respond=lambda _: None)
    queue: list[PendingProposal[int]] = []

    def ask(*ids: int) -> None:
        proposals = tuple(Proposal(id=id, payload=b"x", count=1) for id in ids)
        intake.receive(ForwardRequest(source=1, target=2, proposals=proposals), queue.append)

    ask(1, 2, 3, 4)
    ask(4, 3, 2)
    assert len(queue) == 4
    ask(1)
    assert [one.id for one in queue] == [1, 2, 3, 4, 1]


async def test_many_without_a_leader_or_an_answer_are_told_a_few_in_each_turn(
    forwarder: Forwarder[int],
) -> None:
    queue: ProposalQueue[int] = ProposalQueue(config())
    futures = [future() for _ in range(2 * FEW)]
    for one in futures:
        queue.put(PendingProposal(b"", 1, 0.0, one))
    queue.expire(before=1.0)
    assert sum(one.done() for one in futures) == FEW
    await asyncio.sleep(0)
    assert {type(one.exception()) for one in futures} == {NoLeader}
    futures = [future() for _ in range(2 * FEW)]
    forwarder.send([PendingProposal(b"", 1, 0.0, one) for one in futures], source=1, leader=2)
    await asyncio.sleep(config().forward_seconds)
    forwarder.tick()
    assert sum(one.done() for one in futures) == FEW
    await asyncio.sleep(0)
    assert {type(one.exception()) for one in futures} == {OutcomeUnknown}
    assert forwarder.size == forwarder.unanswered == 0


async def test_the_leader_takes_a_repeated_request_once_and_answers_refusals() -> None:
    responses: list[ForwardResponse] = []
    intake: ForwardReceiver[int] = ForwardReceiver(node_id=2, clock=VirtualClock(), respond=responses.append)
    request = ForwardRequest(source=1, target=2, proposals=(Proposal(id=7, payload=b"x", count=1),))
    queue: list[PendingProposal[int]] = []
    intake.receive(request, queue.append)
    intake.receive(request, queue.append)
    assert len(queue) == 1
    assert responses == []
    intake.refuse(queue)
    assert responses[0].outcomes == (ForwardOutcome(id=7, refusal=ForwardRefusal.NOT_LEADER),)
