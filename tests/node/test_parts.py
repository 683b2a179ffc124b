"""The small parts by themselves: workers, the log writer's merging, waiters, bounds."""

import asyncio
import os
import random
import threading
from collections.abc import Coroutine, Sequence
from functools import partial

import pytest

from connect_kv.errors import NodeStopped, NoLeader, NotProposed, OutcomeUnknown, Overloaded, StorageError
from connect_kv.events import FEW
from connect_kv.interfaces import Worker
from connect_kv.node.clock import SystemClock
from connect_kv.node.config import NodeConfig
from connect_kv.node.context import NoMetrics
from connect_kv.node.forwarding import Forwarder, ForwardReceiver
from connect_kv.node.health import watch_loop
from connect_kv.node.log_writer import LogWriter
from connect_kv.node.proposals import EntryWaiters, PendingProposal, ProposalQueue
from connect_kv.node.reads import IndexWaiters
from connect_kv.node.workers import InlineWorker, ThreadWorker, _report
from connect_kv.peer_protocol import ForwardOutcome, ForwardRefusal, ForwardRequest, ForwardResponse, Proposal
from connect_kv.raft.config import RaftConfig
from connect_kv.raft.messages import AppendResponse
from connect_kv.raft.ready import Ready
from connect_kv.raft.types import ZERO, Entry, EntryId, EntryKind, HardState, SnapshotMeta
from connect_kv.testing.simulation.clock import VirtualClock, VirtualLoop
from tests.node.fakes import GatedWorker


def config(**settings: int) -> NodeConfig:
    return NodeConfig(raft=RaftConfig(node_id=1), **settings)  # type: ignore[arg-type]  # none is bytes


def future() -> asyncio.Future[Sequence[int]]:
    return asyncio.get_running_loop().create_future()


def entry(term: int, index: int) -> Entry:
    return Entry(EntryId(term, index), EntryKind.COMMAND, b"")


# Workers


def run_real(test: Coroutine[object, object, None]) -> None:
    """On a loop whose time is real: threads need one."""
    asyncio.run(test)


def test_a_thread_worker_runs_calls_in_order_on_one_thread() -> None:
    async def check() -> None:
        worker = ThreadWorker("log")
        seen: list[int] = []
        threads = set()

        def call(number: int) -> int:
            seen.append(number)
            threads.add(threading.current_thread().name)
            return number

        results = await asyncio.gather(*(worker.run(partial(call, n)) for n in range(50)))
        assert results == seen == list(range(50))
        assert threads == {"log"}
        await worker.close()

    run_real(check())


def test_a_thread_worker_leaves_nothing_open() -> None:
    async def check() -> None:
        before = os.listdir("/proc/self/fd")
        workers = [ThreadWorker("of fifty") for _ in range(50)]
        threads = [thread for thread in threading.enumerate() if thread.name == "of fifty"]
        assert len(os.listdir("/proc/self/fd")) > len(before)
        await asyncio.gather(*(worker.close() for worker in workers))
        for thread in threads:
            thread.join(10)
        assert len(os.listdir("/proc/self/fd")) == len(before)

    run_real(check())


def test_a_thread_worker_hands_exceptions_back_and_goes_on() -> None:
    async def check() -> None:
        worker = ThreadWorker("log")

        def broken() -> None:
            raise StorageError("log", "no space")

        with pytest.raises(StorageError):
            await worker.run(broken)
        assert await worker.run(lambda: 7) == 7
        await worker.close()

    run_real(check())


def test_a_cancelled_caller_does_not_cancel_the_call() -> None:
    async def check() -> None:
        worker = ThreadWorker("log")
        go = threading.Event()
        done: list[bool] = []

        def work() -> None:
            done.append(go.wait(5))

        call = asyncio.create_task(worker.run(work))
        await asyncio.sleep(0)
        call.cancel()
        go.set()
        await worker.close()
        assert done == [True]

    run_real(check())


def test_a_cancelled_caller_does_not_hear_of_a_failure() -> None:
    async def check() -> None:
        worker = ThreadWorker("log")
        gate = threading.Event()

        def fail() -> None:
            gate.wait()
            raise ValueError("after its caller has gone")

        call = asyncio.create_task(worker.run(fail))
        await asyncio.sleep(0)
        call.cancel()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await worker.run(lambda: 7) == 7
        await worker.close()

    run_real(check())


def test_what_a_thread_ends_with_after_the_loop_is_nobodys() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    _report(loop, print)

    class Refusing(asyncio.SelectorEventLoop):
        def call_soon_threadsafe(self, *_: object, **__: object) -> asyncio.Handle:
            raise RuntimeError("not because it has ended")

    running = Refusing()
    with pytest.raises(RuntimeError, match="not because"):
        _report(running, print)
    running.close()


def test_closing_waits_for_what_was_given_and_refuses_more() -> None:
    async def check() -> None:
        worker = ThreadWorker("log")
        done: list[int] = []
        calls = [asyncio.create_task(worker.run(partial(done.append, 1))) for _ in range(10)]
        await asyncio.sleep(0)
        await worker.close()
        await worker.close()
        assert len(done) == 10
        await asyncio.gather(*calls)
        with pytest.raises(NodeStopped):
            await worker.run(lambda: None)

    run_real(check())


async def test_an_inline_worker_keeps_the_same_contract() -> None:
    worker = InlineWorker()
    assert await worker.run(lambda: 3) == 3
    await worker.close()
    with pytest.raises(NodeStopped):
        await worker.run(lambda: None)


def test_the_system_clock_goes_on() -> None:
    async def check() -> None:
        clock = SystemClock()
        before, wall = clock.now(), clock.wall()
        await clock.sleep(0.001)
        assert clock.now() > before
        assert clock.wall() > wall

    run_real(check())


# The log writer


class Saves:
    """The part of a LogStore that the writer calls."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.fail = False

    def save(self, readies: Sequence[Ready]) -> None:
        if self.fail:
            raise StorageError("log", "input/output error")
        self.batches.append([ready.number for ready in readies])


class Writer:
    def __init__(self, worker: Worker) -> None:
        self.saves = Saves()
        self.reported: list[int] = []
        self.events: list[str] = []
        self.writer = LogWriter(
            log=self.saves,  # type: ignore[arg-type]  # only `save` is called
            worker=worker,
            clock=VirtualClock(),
            metrics=NoMetrics(),
            install=self._install,
            persisted=lambda readies: self.reported.extend(ready.number for ready in readies),
            written=lambda: None,
        )
        self.task = asyncio.create_task(self.writer.run())

    async def _install(self, meta: SnapshotMeta) -> None:
        self.events.append(f"install after {self.saves.batches}")


def ready(number: int, *, sync: bool = True) -> Ready:
    return Ready(number=number, entries=(entry(1, number),) if sync else (), must_sync=sync)


async def test_what_queues_while_the_disk_writes_becomes_one_batch() -> None:
    worker = GatedWorker()
    under = Writer(worker)
    worker.block()
    under.writer.submit(ready(1))
    await asyncio.sleep(0.01)
    for number in (2, 3, 4):
        under.writer.submit(ready(number))
    assert under.reported == []
    worker.unblock()
    await under.writer.rest()
    assert under.saves.batches == [[1], [2, 3, 4]]
    assert under.reported == [1, 2, 3, 4]
    under.task.cancel()


def acknowledging(number: int) -> Ready:
    """A step without a disk part that sends something afterwards."""
    message = AppendResponse(source=1, target=2, term=1, accepted=True, match_index=1)
    return Ready(number=number, messages_after_persist=(message,))


async def test_a_step_without_a_disk_part_waits_only_for_those_before_it() -> None:
    worker = GatedWorker()
    under = Writer(worker)
    under.writer.submit(acknowledging(1))
    assert under.reported == [1]
    assert under.writer.idle
    worker.block()
    under.writer.submit(ready(2))
    under.writer.submit(acknowledging(3))
    await asyncio.sleep(0.01)
    assert under.reported == [1]
    worker.unblock()
    await under.writer.rest()
    assert under.reported == [1, 2, 3]
    under.task.cancel()


async def test_a_step_that_nothing_waits_for_costs_no_turn_of_its_own() -> None:
    worker = GatedWorker()
    under = Writer(worker)
    under.writer.submit(Ready(number=1))
    worker.block()
    under.writer.submit(ready(2))
    await asyncio.sleep(0.01)
    under.writer.submit(Ready(number=3))
    worker.unblock()
    await under.writer.rest()
    assert under.reported == [2]
    under.task.cancel()


async def test_a_hint_rides_with_the_next_write() -> None:
    worker = GatedWorker()
    under = Writer(worker)
    under.writer.submit(Ready(number=1, hard_state=HardState(1, None, 5)))
    assert under.saves.batches == []
    under.writer.submit(ready(2))
    await under.writer.rest()
    assert under.saves.batches == [[1, 2]]
    worker.block()
    under.writer.submit(ready(3))
    await asyncio.sleep(0.01)
    under.writer.submit(Ready(number=4, hard_state=HardState(1, None, 6)))
    worker.unblock()
    await under.writer.rest()
    assert under.saves.batches == [[1, 2], [3]]
    under.writer.submit(ready(5))
    await under.writer.rest()
    assert under.saves.batches == [[1, 2], [3], [4, 5]]
    under.task.cancel()


async def test_a_snapshot_is_installed_between_what_came_before_and_its_own_entries() -> None:
    worker = GatedWorker()
    under = Writer(worker)
    under.writer.submit(ready(1))
    meta = SnapshotMeta(EntryId(1, 9), membership=None)  # type: ignore[arg-type]
    under.writer.submit(Ready(number=2, install=meta, must_sync=True))
    await under.writer.rest()
    assert under.events == ["install after [[1]]"]
    assert under.saves.batches == [[1], [2]]
    under.task.cancel()


async def test_after_a_failed_write_nothing_is_reported() -> None:
    under = Writer(InlineWorker())
    under.saves.fail = True
    under.writer.submit(ready(1))
    with pytest.raises(StorageError):
        await under.task
    assert under.reported == []


async def test_the_age_of_the_oldest_write_is_known() -> None:
    worker = GatedWorker()
    under = Writer(worker)
    worker.block()
    under.writer.submit(ready(1))
    began = asyncio.get_running_loop().time()
    await asyncio.sleep(3)
    under.writer.submit(ready(2))
    assert under.writer.oldest == began
    worker.unblock()
    await under.writer.rest()
    assert under.writer.oldest is None
    under.task.cancel()


# Waiters


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


# Bounds


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


# Forwarding


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


async def test_at_the_end_all_who_wait_for_an_index_are_told() -> None:
    waiters = IndexWaiters()
    loop = asyncio.get_running_loop()
    one, gone, other = loop.create_future(), loop.create_future(), loop.create_future()
    waiters.add(5, [one, gone])
    waiters.add(7, [other])
    gone.cancel()
    waiters.fail(lambda: NodeStopped("ends"))
    for future in (one, other):
        with pytest.raises(NodeStopped):
            await future
    waiters.applied(9)


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


# Time


async def test_a_stalled_loop_is_counted() -> None:
    stalls: list[float] = []

    class Stalls(NoMetrics):
        def loop_stalled(self, seconds: float) -> None:
            stalls.append(seconds)

    watch = asyncio.create_task(watch_loop(VirtualClock(), Stalls(), every=0.02, limit=0.005))
    await asyncio.sleep(1)
    assert stalls == []
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.stall(0.05)
    await asyncio.sleep(0.1)
    watch.cancel()
    assert len(stalls) == 1
    assert stalls[0] > 0.03


async def test_virtual_hours_take_no_time() -> None:
    clock = VirtualClock(offset=5)
    wall = clock.wall()
    await clock.sleep(3600)
    assert clock.now() >= 3600
    assert clock.wall() - wall == pytest.approx(3600e9)


@pytest.mark.parametrize("field", ["tick_seconds", "max_batch_bytes", "keep_entries"])
def test_a_limit_must_be_positive(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        config(**{field: 0})
