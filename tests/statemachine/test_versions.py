"""Versions of hosted machines: activated by entries, kept beside stored states, decided by the leader."""

from __future__ import annotations

import pytest

from connect_kv import Replicated, before, command, query
from connect_kv.rpc.command_pb2 import Command
from connect_kv.rpc.versions_pb2 import MachineChange
from connect_kv.services.machine_control import wrong_among
from connect_kv.statemachine.activation import Claims, claims_from, decide, lacking
from connect_kv.statemachine.code_records import (
    activation_record,
    hosted_record,
    standing_from,
    standing_record,
)
from connect_kv.statemachine.fingerprint import CodeFingerprint, codes_of
from connect_kv.statemachine.host import HostConfig
from connect_kv.statemachine.hosted import ReplicatedMachine, Standing
from tests.statemachine.conftest import Counter, Member, call, copy_snapshot, number_in


class One(Replicated):
    def __init__(self) -> None:
        self.total = 0

    @command
    def add(self, by: int = 1) -> int:
        self.total += by
        return self.total

    @query
    def value(self) -> int:
        return self.total


class Two(Replicated, version=2):
    def __init__(self) -> None:
        self.total = 0
        self.calls = 0

    @command
    def add(self, by: int = 1) -> int:
        self.total += by * 10
        self.calls += 1
        return self.total

    @before(2, add)
    def add_1(self, by: int = 1) -> int:
        self.total += by
        return self.total

    @query
    def value(self) -> int:
        return self.total

    def upgrade(self, version: int) -> None:
        self.calls = self.total


class Failing(Two, version=2):
    def upgrade(self, version: int) -> None:
        raise KeyError("no")


def activate(origin: int, version: int, owner: type[Replicated], *, state: bool = False) -> Command:
    codes = [code for code in codes_of(owner) if code.version == version]
    first = ReplicatedMachine(owner()).snapshot() if state else None
    return Command(machine_change=activation_record("machine", origin, version, codes, first))


def add(version: int = 1) -> Command:
    made = call("machine", "add", {})
    made.machine_call.version = version
    return made


async def member_with(owner: type[Replicated]) -> Member:
    config = HostConfig(snapshot_entries=1)
    return await Member({"machine": owner, "counter": Counter}, config=config).start()


def standing(member: Member) -> Standing:
    return member.host.machines.machines["machine"].standing


@pytest.mark.parametrize("stored", [False, True])
async def test_every_replay_runs_each_entry_by_the_body_of_its_version(stored: bool) -> None:
    member = await member_with(One)
    await member.run(activate(0, 1, One, state=True), add())
    member._classes = {**member._classes, "machine": Two}
    await member.crash()
    if stored:
        await member.make_durable()
    results = await member.run(add(), activate(1, 2, Two), add(2), add(1))
    assert [number_in(results[at]) for at in (0, 2, 3)] == [2, 12, 22]
    for _ in range(2):
        await member.crash()
        assert vars(member.objects["machine"]) == {"total": 22, "calls": 4}
        assert standing(member).version == 2
        await member.make_durable()


async def test_older_code_takes_a_state_back_before_the_activation() -> None:
    member = await member_with(One)
    await member.run(activate(0, 1, One, state=True), add())
    for owner in (Two, One, Two):
        member._classes = {**member._classes, "machine": owner}
        await member.crash()
        assert not member.host.machines.suspended
        await member.run(add())
        await member.make_durable()
    assert vars(member.objects["machine"]) == {"total": 4}


async def test_a_state_says_what_version_it_has_wherever_it_goes() -> None:
    source, target = await member_with(Two), await member_with(Two)
    await source.run(activate(0, 2, Two, state=True), add(2))
    await copy_snapshot(source, target)
    assert standing(target) == standing(source)
    assert standing(target).codes == codes_of(Two)[1:]
    late = await member_with(One)
    await copy_snapshot(source, late)
    assert "version 2 is active, and this member has 1" in late.host.machines.suspended["machine"].reason


async def test_what_was_never_said_to_have_begun_is_told_from_version_1_after_a_restart() -> None:
    member = await member_with(Two)
    await member.crash()
    assert standing(member).version == 0
    await member.run(activate(0, 2, Two, state=True), add(2))
    assert standing(member).version == 2
    for one in (Standing(0), Standing(1), Standing(2), Standing(1, codes_of(One))):
        for first in (False, True):
            assert standing_from(standing_record(one, first=first)) == (one, first)
    assert standing_record(Standing(1)) == b"", "what older code wrote, and can read"


async def test_a_state_from_before_versions_is_of_version_1() -> None:
    member = await member_with(One)
    await member.run(add(0))
    await member.make_durable()
    member._classes = {**member._classes, "machine": Two}
    await member.crash()
    assert standing(member).version == 1
    results = await member.run(add(0), activate(1, 2, Two), add(2))
    assert [number_in(results[at]) for at in (0, 2)] == [2, 12]


async def test_an_upgrade_that_fails_suspends_until_the_code_is_mended_or_it_is_passed_over() -> None:
    member = await member_with(One)
    await member.run(activate(0, 1, One, state=True), add())
    member._classes = {**member._classes, "machine": Failing}
    await member.crash()
    assert await member.host.try_upgrade("machine", 2) == "upgrade to version 2: KeyError: 'no'"
    await member.run(activate(1, 2, Failing), add(2))
    assert "KeyError" in member.host.machines.suspended["machine"].reason
    member._classes = {**member._classes, "machine": Two}
    await member.crash()
    assert vars(member.objects["machine"]) == {"total": 11, "calls": 2}


# What the leader decides.


def claims(owner: type[Replicated] | None) -> Claims:
    if owner is None:
        return {}
    return claims_from(hosted_record({"machine": ReplicatedMachine(owner())}))


def decided(
    leader: type[Replicated],
    at: Standing,
    *others: Claims | None,
    patient: bool = False,
    accept: bool = False,
) -> tuple[tuple[int, int] | None, str]:
    machine = ReplicatedMachine(leader())
    machine.accept_changed = accept
    if at.version:
        machine.restore(iter(ReplicatedMachine(leader()).snapshot()), at)
    members: dict[str, Claims | None] = {"n1": claims(leader)}
    members |= {f"n{number}": one for number, one in enumerate(others, 2)}
    found = decide("machine", machine, [b""], members, patient=patient)
    change = found.change
    return (None if change is None else (change.activate.origin, change.activate.version)), found.waits


AT_1 = Standing(1, codes_of(One))


def test_a_version_is_activated_once_all_members_have_it() -> None:
    assert decided(Two, AT_1, claims(Two), claims(One)) == (None, "")
    assert decided(Two, AT_1, claims(Two), claims(Two)) == ((1, 2), "")
    assert decided(Two, AT_1, claims(Two), None, patient=True) == (None, "n3 is not heard yet")
    assert decided(Two, AT_1, claims(Two), claims(None)) == (None, "n3 is without it")
    assert (
        lacking("machine", 2, {"n1": claims(Two), "n2": claims(One), "n3": claims(One)}) == "n2 and n3 have 1"
    )


def test_a_version_whose_code_differs_is_not_activated() -> None:
    reason = "the code of version 2 is another on n2 (__init__ or upgrade)"
    assert decided(Two, AT_1, claims(Failing), claims(Two)) == (None, reason)


def test_a_machine_is_founded_by_a_majority_if_the_rest_cannot_be_heard() -> None:
    nothing = Standing(0)
    assert decided(Two, nothing, claims(Two), claims(Two)) == ((0, 2), "")
    assert decided(Two, nothing, claims(Two), None) == (None, "n3 is not heard yet")
    assert decided(Two, nothing, claims(Two), None, patient=True) == ((0, 2), "")
    assert decided(Two, nothing, None, None, patient=True)[0] is None
    assert decided(Two, nothing, claims(Two), claims(None), patient=True) == (None, "n3 is without it")
    assert decided(Two, nothing, claims(Two), claims(One))[0] is None


def test_the_digests_of_the_active_version_are_entered_once_all_have_the_same() -> None:
    assert decided(One, Standing(1), claims(One), claims(One)) == ((1, 1), "")
    assert decided(One, AT_1, claims(One), claims(One)) == (None, "")
    other = (CodeFingerprint(1, codes_of(One)[0].python, {"add": b"before"}),)
    assert decided(One, Standing(1, other), claims(One), claims(One), accept=True) == ((1, 1), "")


# Comparing members.


async def test_states_are_measured_at_one_entry_and_differ_only_where_they_do() -> None:
    measure = Command(machine_change=MachineChange(measure=MachineChange.Measure()))
    one, other, wrong = await member_with(One), await member_with(One), await member_with(One)
    for member in (one, other, wrong):
        await member.run(activate(0, 1, One, state=True), add())
    await other.crash()
    vars(wrong.objects["machine"])["total"] = 5
    for member in (one, other, wrong):
        await member.run(add(), measure, add())
    measured = [member.host.machines.measured for member in (one, other, wrong)]
    assert measured[0] == measured[1]
    assert measured[0][0] == 2
    assert {name for name in measured[0][1] if measured[0][1][name] != measured[2][1][name]} == {"machine"}


def test_who_differs_is_who_does_not_have_what_most_have() -> None:
    assert wrong_among({1: b"a", 2: b"a", 3: b"b"}, 3) == {3}
    assert wrong_among({1: b"a", 2: b"b"}, 2) == {1}
    assert wrong_among({1: b"a", 2: b"b"}, 3) == frozenset(), "the leader has none to compare with"
