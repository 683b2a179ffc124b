"""connect_kv.v1.Dashboard: members that are silent, an hour of samples, who holds what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from math import inf
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from google.protobuf.message import Message

import connect_kv
from connect_kv import Replicated, command, query
from connect_kv.client.client import Client
from connect_kv.raft.types import Member as RaftMember
from connect_kv.raft.types import Membership
from connect_kv.rpc.dashboard_pb2 import (
    HistoryRequest,
    HistoryResponse,
    LeasesRequest,
    LeasesResponse,
    OverviewRequest,
    OverviewResponse,
    QueuesRequest,
    QueuesResponse,
)
from connect_kv.rpc.machine_pb2 import MachineCallRequest, MachineCallResponse
from connect_kv.server.machines import hosted
from connect_kv.services.happenings import MOST, Happenings, of_membership, of_versions
from connect_kv.services.samples import STEP_SECONDS, STEPS, UNKNOWN, Samples, Sources
from tests.services.cluster import Member, configs, running
from tests.services.conftest import until

T = TypeVar("T", bound=Message)
SERVICE = "/connect_kv.v1.Dashboard/"


class Tally(Replicated):
    """Counts."""

    def __init__(self) -> None:
        self.total = 0

    @command
    def add(self, by: int = 1) -> int:
        self.total += by
        return self.total

    @query
    def value(self) -> int:
        return self.total


async def ask(member: Member, method: str, request: Message, answer: type[T]) -> T:
    return await member.call(SERVICE + method, request, answer)


async def overview(member: Member) -> OverviewResponse:
    return await ask(member, "Overview", OverviewRequest(), OverviewResponse)


def client_of(member: Member) -> Client:
    return connect_kv.connect(member.server.client_address, session=False)


@pytest.fixture
async def only(tmp_path: Path) -> AsyncIterator[Member]:
    async with running(configs(tmp_path, 1), [{"tally": hosted(Tally(), "the test")}]) as (member,):
        yield member


async def test_each_member_tells_of_all_and_a_silent_one_of_what_it_said_last(tmp_path: Path) -> None:
    async with running(configs(tmp_path, 3)) as members:
        first, other = members[0], members[2]
        async with client_of(first) as client:
            await client.put("k", "v")
        for member in members:
            found = await overview(member)
            assert [one.name for one in sorted(found.members, key=lambda one: one.name)] == ["n1", "n2", "n3"]
            assert (found.voters, found.quorum, found.answering) == (3, 2, 3)
            assert found.leader == member.server.node.leader_id
            assert not found.outage
            for one in found.members:
                assert one.answers
                assert one.state.version
                assert one.state.disk_total > one.state.disk_free > 0
                assert abs(one.clock_difference) <= one.clock_error + 0.05
                assert one.client_urls[0].startswith("http://127.0.0.1:")
                kinds = {happening.kind for happening in one.state.happenings}
                assert {"start", "election"} <= kinds
        known = (await overview(first)).members
        node_id = other.server.node.identity.node_id
        said = next(one for one in known if node_id == one.ID)

        await other.server.stop()
        await until(lambda: first.server.node.leader_id not in (None, node_id))
        async with asyncio.timeout(60):  # an answer of a moment ago is given again for a while
            while True:
                found = await overview(first)
                silent = next(one for one in found.members if node_id == one.ID)
                if not silent.answers:
                    break
        assert silent.problem
        assert 0 < silent.silent_seconds < 60
        assert silent.state.version == said.state.version
        assert found.answering == 2


async def test_without_a_majority_it_says_why_nothing_is_written(tmp_path: Path) -> None:
    async with running(configs(tmp_path, 3)) as members:
        await asyncio.gather(*(one.server.stop() for one in members[1:]))
        await until(lambda: members[0].server.node.leader_id is None)
        await until(lambda: members[0].server.services.executor.why())
        found = await overview(members[0])
        assert found.leader == 0
        assert found.answering < found.quorum
        assert "2 needed" in found.outage
        history = await ask(members[0], "History", HistoryRequest(), HistoryResponse)
        assert history.step_seconds == STEP_SECONDS


async def test_a_member_tells_the_history_of_another(tmp_path: Path) -> None:
    async with running(configs(tmp_path, 3)) as members:
        async with client_of(members[0]) as client:
            for number in range(10):
                await client.put(f"k{number}", "v")
        for one in members:
            await one.server.node.read_barrier()
            one.server.services.dashboard.samples.take()
        asked = HistoryRequest(member=members[1].server.node.identity.node_id)
        found = await ask(members[0], "History", asked, HistoryResponse)
        assert len(found.ends) == 1
        series = {one.name: one for one in found.series}
        assert series["puts"].unit == "1/s"
        assert series["puts"].values[0] > 0
        assert series["write of the log"].values[0] > 0
        assert series["database"].values[0] > 0
        later = await ask(
            members[0], "History", HistoryRequest(member=asked.member, after=found.ends[0]), HistoryResponse
        )
        assert not later.ends
        nobody = ask(members[0], "History", HistoryRequest(member=12345), HistoryResponse)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await nobody
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_who_holds_a_lock_stands_before_who_waits(only: Member) -> None:
    async with client_of(only) as client, client_of(only) as second, client.lock("printer"):
        waiting = asyncio.create_task(second.lock("printer").__aenter__())
        try:
            async with asyncio.timeout(60):
                while True:
                    found = await ask(only, "Queues", QueuesRequest(), QueuesResponse)
                    if found.queues and found.queues[0].count == 2:
                        break
                    await asyncio.sleep(0.01)
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        (queue,) = found.queues
        holder, waiter = queue.contenders
        assert queue.name.endswith(b"printer")
        assert holder.create_revision < waiter.create_revision
        assert holder.lease != waiter.lease
        assert holder.ttl > 0
        assert not found.more


async def test_leases_come_in_pages_with_their_keys(only: Member) -> None:
    async with client_of(only) as client:
        granted = [(await client.grant_lease(100 + number))[0] for number in range(5)]
        for number in range(12):
            await client.put(f"held/{number:02}", "v", lease=granted[0])
        first = await ask(only, "Leases", LeasesRequest(limit=2), LeasesResponse)
        assert [one.ID for one in first.leases] == granted[:2]
        assert first.count == 5
        assert first.leases[0].count == 12
        assert list(first.leases[0].keys) == [f"held/{number:02}".encode() for number in range(10)]
        rest = await ask(only, "Leases", LeasesRequest(skip=4), LeasesResponse)
        assert [one.granted_ttl for one in rest.leases] == [104]
        with pytest.raises(grpc.aio.AioRpcError, match="must not be negative"):
            await ask(only, "Leases", LeasesRequest(skip=-1), LeasesResponse)


async def test_query_answers_queries_and_refuses_commands(only: Member) -> None:
    asked = MachineCallRequest(machine="tally", method="value", json="{}")
    assert (await ask(only, "Query", asked, MachineCallResponse)).json == "0"
    changing = MachineCallRequest(machine="tally", method="add", json='{"by": 5}')
    with pytest.raises(grpc.aio.AioRpcError, match="add is a command, not a query"):
        await ask(only, "Query", changing, MachineCallResponse)
    assert (await ask(only, "Query", asked, MachineCallResponse)).json == "0"


class Steps:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def wall(self) -> int:
        return int(self.time * 1e9)

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
        await asyncio.sleep(0)


def samples(clock: Steps, count: list[float], buckets: list[Sequence[tuple[float, float]]]) -> Samples:
    return Samples(
        clock,
        Sources(
            rates={"puts": lambda: count[0]},
            gauges={"keys": ("", lambda: 7.0)},
            durations={"writes": lambda: buckets[-1]},
        ),
    )


def step(clock: Steps, found: Samples, seconds: float = STEP_SECONDS) -> None:
    clock.time += seconds
    found.take()


def test_samples_are_rates_of_a_step_and_quantiles_of_what_it_added() -> None:
    clock, count = Steps(), [0.0]
    buckets: list[Sequence[tuple[float, float]]] = [[(0.001, 5), (0.01, 5), (inf, 5)]]
    found = samples(clock, count, buckets)
    count[0] = 50
    step(clock, found)
    buckets.append([(0.001, 5), (0.01, 105), (inf, 105)])
    step(clock, found)
    buckets.append([(0.001, 5), (0.01, 105), (inf, 205)])
    step(clock, found)
    told = found.after(0)
    values = {one.name: list(one.values) for one in told.series}
    assert values["puts"] == [5.0, 0.0, 0.0]
    assert values["keys"] == [7.0] * 3
    assert values["writes"] == [UNKNOWN, 5.5, 10.0]
    assert values["writes (99 %)"] == [UNKNOWN, pytest.approx(9.91), 10.0]
    assert list(told.ends) == [10_000_000_000, 20_000_000_000, 30_000_000_000]
    assert list(found.after(told.ends[1]).ends) == [told.ends[2]]


def test_an_hour_is_kept_and_a_time_in_which_the_process_slept_is_no_step() -> None:
    clock = Steps()
    found = samples(clock, [0.0], [[(inf, 0)]])
    for _ in range(STEPS + 5):
        step(clock, found)
    assert len(found.after(0).ends) == STEPS
    step(clock, found, 3600)
    assert len(found.after(0).ends) == STEPS
    assert found.after(0).ends[-1] == int((STEPS + 5) * STEP_SECONDS * 1e9)


async def test_a_step_ends_every_ten_seconds() -> None:
    clock = Steps()
    found = samples(clock, [0.0], [[(inf, 0)]])
    task = asyncio.create_task(found.run())
    await until(lambda: len(found.after(0).ends) >= 3)
    task.cancel()
    assert list(found.after(0).ends)[:3] == [int(n * STEP_SECONDS * 1e9) for n in (1, 2, 3)]


def test_happenings_are_bounded_in_number_and_length() -> None:
    found = Happenings(7, lambda: 5)
    for number in range(MOST + 10):
        found.note("alarm", f"{number} " + "x" * 1000)
    assert len(found.kept) == MOST
    assert found.kept[0].text.startswith("10 ")
    assert max(len(one.text) for one in found.kept) == 300
    assert (found.kept[0].member, found.kept[0].wall) == (7, 5)


def test_changes_of_members_are_told_in_words() -> None:
    def of(voters: set[int], learners: set[int], port: int = 1) -> Membership:
        members = tuple(
            RaftMember(node_id=one, name=f"n{one}", peer_address=f"a:{port + one}", client_address="")
            for one in sorted(voters | learners)
        )
        return Membership(members=members, voters=frozenset(voters), learners=frozenset(learners))

    def told(old: Membership, new: Membership) -> list[str]:
        return of_membership(old, new, lambda one: f"n{one}")

    assert told(of({1}, set()), of({1}, {2})) == ["n2 was added as a learner"]
    assert told(of({1}, {2}), of({1, 2}, set())) == ["n2 is a voter now"]
    assert told(of({1, 2}, set()), of({1, 3}, set())) == ["n3 was added as a voter", "n2 was removed"]
    assert told(of({1}, set()), of({1}, set(), 8)) == ["n1 has the peer address a:9"]
    assert told(of({1, 2}, set()), of({1, 2}, set())) == []


def test_versions_of_machines_are_told_once() -> None:
    assert of_versions({"a": 0}, {"a": 1}) == [("a", "machine a began with version 1")]
    assert of_versions({"a": 1}, {"a": 2}) == [("a", "machine a has version 2")]
    assert of_versions({"a": 2}, {"a": 2}) == []
