"""Calls that come together: one proposal, one waiter, one barrier; each hears what it would hear alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from google.protobuf.message import Message

from connect_kv.errors import NoLeader, NotProposed, OutcomeUnknown, Overloaded
from connect_kv.etcd_errors import Code
from connect_kv.frontend.grpc.router import PEER_ADDRESS, Router
from connect_kv.frontend.grpc.services import add_services
from connect_kv.metrics import Metrics
from connect_kv.rpc.kv_pb2 import (
    DeleteRangeRequest,
    PutRequest,
    PutResponse,
    RangeRequest,
)
from connect_kv.services.asked import Asked, Many
from connect_kv.services.audit import Audit, Level
from connect_kv.services.caller import Caller
from connect_kv.services.opening import Opening
from connect_kv.services.quota import MARGIN
from connect_kv.services.streams import Streams
from connect_kv.services.turns import LOOK_AT_CLOCK
from connect_kv.services.writes import MOST_BYTES, MOST_COMMANDS
from tests.services.batch_member import MOST, Member, Ticking, code, counted, puts
from tests.services.batches import Failed, FakeCall, Outcome, alone, begin, calls, together
from tests.services.conftest import FakeNode, until


def revision(outcome: Outcome) -> int:
    assert isinstance(outcome, bytes), outcome
    return PutResponse.FromString(outcome).header.revision


async def test_a_thousand_puts_are_two_proposals_in_their_order() -> None:
    member = Member()
    outcomes = await together(member.route("Put"), calls(puts(1000)))
    assert [len(batch.commands) for batch in member.node.batches] == [MOST_COMMANDS, 1000 - MOST_COMMANDS]
    proposed = [command.put.key for batch in member.node.batches for command in batch.commands]
    assert proposed == [one.key for one in puts(1000)]
    assert [revision(one) for one in outcomes[:3]] == [10, 11, 12]
    assert [revision(one) for one in outcomes[MOST_COMMANDS : MOST_COMMANDS + 2]] == [10, 11]


async def test_a_proposal_holds_no_more_bytes_than_it_may_and_one_large_command_stands_alone() -> None:
    member = Member(max_request_bytes=1 << 20)
    sizes = [MOST_BYTES // 2 - 100, MOST_BYTES // 2 - 100, 10, MOST_BYTES + 10, 10]
    requests = [PutRequest(key=b"%d" % at, value=b"v" * size) for at, size in enumerate(sizes)]
    await together(member.route("Put"), calls(requests))
    kept = [[command.put.key for command in batch.commands] for batch in member.node.batches]
    assert kept == [[b"0", b"1", b"2"], [b"3"], [b"4"]]


REFUSED: list[tuple[str, list[Message | bytes]]] = [
    (
        "Put",
        [
            PutRequest(key=b"good", value=b"v"),
            PutRequest(value=b"no key"),
            b"\xff not a message",
            PutRequest(key=b"k", value=b"v" * MOST),
            PutRequest(key=b"k", value=b"v", ignore_value=True),
            PutRequest(key=b"k", lease=1, ignore_lease=True),
            PutRequest(key=b"bad lease", lease=7),
            PutRequest(key=b"good too", value=b"w"),
        ],
    ),
    (
        "DeleteRange",
        [
            DeleteRangeRequest(key=b"k"),
            DeleteRangeRequest(),
            b"\xff",
            DeleteRangeRequest(key=b"k", range_end=b"\0"),
        ],
    ),
    (
        "Range",
        [
            RangeRequest(key=b"k"),
            RangeRequest(),
            RangeRequest(key=b"k", sort_order=99),  # type: ignore[arg-type]
            b"\xff",
            RangeRequest(key=b"k", revision=99),
            RangeRequest(key=b"k", serializable=True),
        ],
    ),
]


@pytest.mark.parametrize(("method", "requests"), REFUSED, ids=[method for method, _ in REFUSED])
async def test_what_is_refused_is_refused_one_by_one_and_counted_as_alone(
    method: str, requests: list[Message | bytes]
) -> None:
    member, other = Member(), Member()
    outcomes = await together(member.route(method), calls(requests))
    expected = [await alone(other.route(method), call) for call in calls(requests)]
    assert [one if isinstance(one, Failed) else None for one in outcomes] == [
        one if isinstance(one, Failed) else None for one in expected
    ]
    assert any(isinstance(one, Failed) for one in outcomes)
    assert any(isinstance(one, bytes) for one in outcomes)
    assert member.counts(method) == other.counts(method)


async def test_each_call_is_written_down_as_alone() -> None:
    def written(lines: list[bytes]) -> Audit:
        class Trail:
            def write(self, line: bytes, *, important: bool) -> None:
                lines.append(line)

        return Audit(
            Trail(),
            level=Level.READS,
            node="n1",
            wall=lambda: 0,
            enabled=lambda: False,
            user_of=lambda caller: "",
            later=lambda seconds, call: None,
        )

    came, expected = list[bytes](), list[bytes]()
    member, other = Member(audit=written(came)), Member(audit=written(expected))
    from_there = ((PEER_ADDRESS, "192.0.2.1:7"),)
    for method, requests in REFUSED:
        await together(member.route(method), calls(requests, from_there))
        for call in calls(requests, from_there):
            await alone(other.route(method), call)
    assert sorted(came) == sorted(expected)
    assert b'"from":"192.0.2.1:7"' in came[0]
    gone = calls(puts(1), from_there)
    gone[0].given_up = True
    begin(member.route("Put"), gone)
    assert b'"code":"CANCELLED","unchecked":true,"what":{"key":"k0"}' in came[-1]


async def test_what_is_refused_at_once_is_told_before_anything_is_awaited() -> None:
    member = Member()
    good, bad = calls([PutRequest(key=b"k"), PutRequest()])
    begin(member.route("Put"), [good, bad])
    assert bad.outcome == Failed(Code.INVALID_ARGUMENT, "etcdserver: key is not provided")
    assert not good.outcomes
    await until(lambda: good.outcomes)


async def test_a_learner_takes_what_a_learner_answers() -> None:
    member = Member(learner=True)
    outcomes = await together(member.route("Put"), calls(puts(2)))
    assert [code(one) for one in outcomes] == [Code.FAILED_PRECONDITION] * 2
    reads = [RangeRequest(key=b"k", serializable=True), RangeRequest(key=b"k")]
    local, other = await together(member.route("Range"), calls(reads))
    assert isinstance(local, bytes)
    assert code(other) == Code.FAILED_PRECONDITION
    assert not member.node.batches


async def test_who_wants_a_leader_is_refused_without_one_and_others_wait() -> None:
    member = Member(time_limit=0.05)
    member.node.leader_id = None
    member.node.leader_changed.fire()
    wants = calls([PutRequest(key=b"a")], metadata=(("hasleader", "true"),))
    waits = calls([PutRequest(key=b"b")])
    begin(member.route("Put"), [*wants, *waits])
    assert wants[0].outcome == Failed(
        Code.UNAVAILABLE, "etcdserver: no leader", (("connect-kv-error", "NoLeader"),)
    )
    assert not waits[0].outcomes
    await until(lambda: waits[0].outcomes)
    assert waits[0].outcome == wants[0].outcome
    assert not member.node.batches


async def test_a_kind_that_not_every_member_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connect_kv.services.executor.FIRST_COMMANDS", 0)
    member = Member(understood=lambda field: False)
    (outcome,) = await together(member.route("Put"), calls(puts(1)))
    assert outcome == Failed(Code.FAILED_PRECONDITION, "etcdserver: not capable")


async def test_as_many_as_may_wait_are_taken_and_the_others_refused_at_once() -> None:
    answer = asyncio.Event()

    class Slow(FakeNode):
        async def propose(self, payload: bytes, count: int = 1) -> Sequence[bytes]:
            await answer.wait()
            return await super().propose(payload, count)

        async def read_barrier(self) -> int:
            await answer.wait()
            return 7

    member = Member(node=Slow(counted), max_waiting=4)
    reads = calls([RangeRequest(key=b"k")] * 2)
    begin(member.route("Range"), reads)
    writes = calls(puts(3))
    begin(member.route("Put"), writes)
    assert [bool(call.outcomes) for call in (*reads, *writes)] == [False, False, False, False, True]
    assert code(writes[2].outcome) == Code.RESOURCE_EXHAUSTED
    assert code(await alone(member.route("Put"), calls(puts(1))[0])) == Code.RESOURCE_EXHAUSTED
    answer.set()
    await until(lambda: all(call.outcomes for call in (*reads, *writes)))
    assert not any(isinstance(call.outcome, Failed) for call in (*reads, *writes[:2]))
    assert isinstance((await together(member.route("Put"), calls(puts(1))))[0], bytes)


async def test_the_quota_in_the_middle_refuses_what_does_not_fit_and_takes_what_does() -> None:
    member = Member(limit=MARGIN, used=MARGIN - 1200)
    running = asyncio.create_task(member.quota.run())
    await until(lambda: member.measured)
    requests = [
        PutRequest(key=b"a", value=b"v" * 100),
        PutRequest(key=b"b", value=b"v" * 980),
        PutRequest(key=b"c", value=b"v" * 100),
    ]
    outcomes = await together(member.route("Put"), calls(requests))
    assert outcomes[1] == Failed(Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")
    assert isinstance(outcomes[0], bytes)
    assert isinstance(outcomes[2], bytes)
    (batch,) = member.node.batches
    assert [command.put.key for command in batch.commands] == [b"a", b"c"]
    assert (member.exceeded, member.measured) == (1, 2)
    running.cancel()


async def test_who_has_gone_is_not_proposed_and_counted_as_cancelled() -> None:
    member = Member()
    sent = calls(puts(3))
    sent[1].given_up = True
    begin(member.route("Put"), sent)
    sent[2].given_up = True  # too late: it is proposed
    await until(lambda: all(call.outcomes for call in sent))
    assert [c.put.key for batch in member.node.batches for c in batch.commands] == [b"k0", b"k2"]
    assert all(len(call.outcomes) == 1 for call in sent)
    counts = member.counts("Put")
    assert counts["grpc_server_started_total "] == 3
    assert counts["grpc_server_handled_total OK"] == 1
    assert counts["grpc_server_handled_total Cancelled"] == 2


@pytest.mark.parametrize("error", [NotProposed(), NoLeader()])
async def test_what_was_certainly_not_proposed_is_proposed_again_without_those_who_have_gone(
    error: Exception,
) -> None:
    member = Member()
    member.node.failures = [error]
    sent = calls(puts(3))
    begin(member.route("Put"), sent)
    sent[1].given_up = True
    await until(lambda: all(call.outcomes for call in sent))
    (batch,) = member.node.batches
    assert [command.put.key for command in batch.commands] == [b"k0", b"k2"]
    assert [revision(call.outcome) for call in (sent[0], sent[2])] == [10, 11]


async def test_where_all_have_gone_nothing_is_proposed_again() -> None:
    member = Member()
    member.node.failures = [NotProposed()]
    sent = calls(puts(2))
    begin(member.route("Put"), sent)
    for call in sent:
        call.given_up = True
    await until(lambda: all(call.outcomes for call in sent))
    assert not member.node.batches
    assert all(len(call.outcomes) == 1 for call in sent)


@pytest.mark.parametrize("error", [OutcomeUnknown("why"), Overloaded()])
async def test_what_may_have_happened_is_not_proposed_again_and_all_are_told(error: Exception) -> None:
    member, other = Member(), Member()
    member.node.failures = [error]
    other.node.failures = [error]
    outcomes = await together(member.route("Put"), calls(puts(3)))
    assert outcomes == [await alone(other.route("Put"), calls(puts(1))[0])] * 3
    assert not member.node.batches


async def test_a_batch_without_an_answer_in_time_is_of_unknown_outcome_and_a_range_timed_out() -> None:
    class Silent(FakeNode):
        def submit(self, payload: bytes, count: int = 1) -> asyncio.Future[Sequence[bytes]]:
            return asyncio.get_running_loop().create_future()

        def submit_read(self) -> asyncio.Future[int]:
            return asyncio.get_running_loop().create_future()

    member = Member(node=Silent(), time_limit=0.02)
    work: list[tuple[str, list[Message]]] = [("Put", [*puts(2)]), ("Range", [RangeRequest(key=b"k")] * 2)]
    for method, requests in work:
        outcomes = await together(member.route(method), calls(requests))
        assert outcomes == [await alone(member.route(method), calls(requests)[0])] * 2
        told = outcomes[0]
        assert isinstance(told, Failed)
        assert ("its outcome is unknown" in told.text) == (method == "Put")


async def test_an_answer_that_comes_when_a_leader_is_known() -> None:
    member = Member()
    member.node.leader_id = None
    sent = calls(puts(2))
    begin(member.route("Put"), sent)
    reads = calls([RangeRequest(key=b"k")])
    begin(member.route("Range"), reads)
    await asyncio.sleep(0.01)
    assert not member.node.batches
    member.node.leader_id = 1
    member.node.leader_changed.fire()
    await until(lambda: all(call.outcomes for call in (*sent, *reads)))
    assert [revision(call.outcome) for call in sent] == [10, 11]


async def test_who_waits_when_the_member_stops_is_told_so() -> None:
    member = Member()
    member.node.leader_id = None
    sent = calls(puts(2))
    begin(member.route("Put"), sent)
    member.executor.stop()
    await until(lambda: all(call.outcomes for call in sent))
    assert [call.outcome for call in sent] == [
        Failed(Code.UNAVAILABLE, "etcdserver: server stopped", (("connect-kv-error", "NodeStopped"),))
    ] * 2
    await member.executor.close()


async def test_calls_wait_until_the_member_serves() -> None:
    opening = Opening()
    member = Member(opening=opening)
    sent = calls([*puts(2), PutRequest()])
    begin(member.route("Put"), sent)
    await asyncio.sleep(0)
    assert not any(call.outcomes for call in sent)
    opening.open()
    await until(lambda: all(call.outcomes for call in sent))
    assert [isinstance(call.outcome, bytes) for call in sent] == [True, True, False]


async def test_thousands_of_calls_give_the_loop_back_and_keep_their_order() -> None:
    """The clock says that a millisecond passes between two looks: others get their turn in between."""
    member = Member(clock=Ticking(0.001))
    told: list[FakeCall] = []
    sent = calls(puts(1000))
    for call in sent:
        call.told = told.append
    turns = 0
    begin(member.route("Put"), sent[:900])
    assert not told
    assert sum(len(batch.commands) for batch in member.node.batches) <= 4 * LOOK_AT_CLOCK
    begin(member.route("Put"), sent[900:])  # behind those that wait already
    while len(told) < len(sent):
        before = len(told)
        await asyncio.sleep(0)
        turns += 1
        assert len(told) - before <= 8 * LOOK_AT_CLOCK
    assert turns > 1000 / (8 * LOOK_AT_CLOCK)
    proposed = [c.put.key for batch in member.node.batches for c in batch.commands]
    assert proposed == [one.key for one in puts(1000)]
    assert [call.message for call in told] == [call.message for call in sent]


async def test_a_fault_of_ours_answers_all_the_same() -> None:
    member = Member()

    def fails(asked: Iterable[Asked[Any]]) -> None:
        first, *_ = asked
        first.answer(b"good")
        raise KeyError("nobody thought of it")

    service: dict[str, object] = {"KV": type("S", (), {"Put": fails, "many": {"Put": fails}})()}
    router = Router(Streams(lambda: True, patience=1.0), member.metrics, lambda: True)
    add_services(router, service)
    outcomes = await together(router.route("/etcdserverpb.KV/Put"), calls(puts(3)))
    assert outcomes[0] == b"good"
    assert [code(one) for one in outcomes[1:]] == [Code.UNKNOWN] * 2


async def test_a_task_of_its_own_ends_when_its_client_has_gone() -> None:
    cancelled = asyncio.Event()

    class Slow:
        many: dict[str, Many]

        def __init__(self) -> None:
            self.many = {"Put": self._many}

        async def Put(self, request: PutRequest, caller: Caller) -> PutResponse:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            return PutResponse()

        def _many(self, asked: Iterable[Asked[Any]]) -> None:
            for one in asked:
                one.alone()

    metrics = Metrics(process=False)
    router = Router(Streams(lambda: True, patience=1.0), metrics, lambda: True)
    add_services(router, {"KV": Slow()})
    first, second = calls(puts(2))
    begin(router.route("/etcdserverpb.KV/Put"), [first, second])
    await asyncio.sleep(0)
    first.given_up = True
    await asyncio.wait_for(cancelled.wait(), 60)
    await until(lambda: first.outcomes)
    assert not second.outcomes
    await router.close()
    assert len(second.outcomes) == 1


async def test_what_callers_have_in_common_is_found_once() -> None:
    class Counting(FakeCall):
        asked = 0

        def __getattribute__(self, name: str) -> Any:
            if name == "metadata":
                Counting.asked += 1
            return super().__getattribute__(name)

    member = Member()
    first = Counting(PutRequest(key=b"a").SerializeToString(), (("client-api-version", "3.6"),))
    Counting.asked = 0
    await together(member.route("Put"), [first])
    second = Counting(PutRequest(key=b"b").SerializeToString(), (), first.kept)
    before = Counting.asked
    await together(member.route("Put"), [second])
    assert (before, Counting.asked) == (1, 1)
    assert member.metrics.unary_requests.counts == {"3.6": 2}
