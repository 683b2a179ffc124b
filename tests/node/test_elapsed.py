"""What leaders measure: between two entries never more than has passed, whatever any wall clock says."""

import asyncio
import random
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from connect_kv.kv.moment import Moment
from connect_kv.node.clock import MeasuredTime
from connect_kv.raft.types import EntryId
from tests.node.cluster import Host, Trio, put

HOUR = 3600.0


def measured(host: Host) -> list[float]:
    """Seconds between the entries that were applied there."""
    moments, at = [], Moment()
    for date, stamp in zip(host.state.log_times, host.state.stamps, strict=True):
        at = at.after(date, stamp)
        moments.append(at.now / 1e9)
    return [round(after - before, 1) for before, after in pairwise(moments)]


async def test_a_leader_measures_what_passes_between_entries(trio: Trio) -> None:
    leader = await trio.start()
    for number, pause in enumerate((10, 0.5, 300)):
        await put(leader, number)
        await asyncio.sleep(pause)
    await put(leader, 9)
    await trio.same_state([0, 1, 2, 9])
    assert all(measured(host) == [10.0, 0.5, 300.0] for host in trio.hosts)


@pytest.mark.parametrize("step", [HOUR, -HOUR, 30 * 24 * HOUR, -30 * 24 * HOUR])
async def test_a_step_of_the_wall_clock_moves_the_date_alone(trio: Trio, step: float) -> None:
    leader = await trio.start()
    await put(leader, 1)
    await asyncio.sleep(10)
    leader.clock.offset += step
    await put(leader, 2)
    await trio.same_state([1, 2])
    dates = leader.state.log_times
    # Back, it stands still where it was told last: queries may have been answered at that date.
    assert (dates[1] - dates[0]) / 1e9 == pytest.approx(10 + max(step, 0), abs=1)
    assert measured(leader) == [10.0]


async def test_another_leader_with_another_clock_goes_on(trio: Trio) -> None:
    leader = await trio.start()
    for host in trio.hosts:
        if host is not leader:
            host.clock.offset = HOUR
    await put(leader, 1)
    await asyncio.sleep(10)
    await put(leader, 2)
    await leader.kill()
    successor = await trio.agreed()
    await put(successor, 3)
    await asyncio.sleep(10)
    await put(successor, 4)
    first, between, last = measured(successor)
    assert (first, last) == (10.0, 10.0)
    assert 0 <= between <= 3, "what passed without a leader may be lost, and no more than that be counted"


async def test_nothing_is_counted_while_no_process_runs(trio: Trio) -> None:
    leader = await trio.start()
    await put(leader, 1)
    await asyncio.sleep(10)
    await put(leader, 2)
    await trio.same_state([1, 2])
    await trio.kill_all()
    await asyncio.sleep(HOUR)
    leader = await trio.start()
    await put(leader, 3)
    await asyncio.sleep(10)
    await put(leader, 4)
    await trio.same_state([1, 2, 3, 4])
    first, between, last = measured(leader)
    assert (first, last) == (10.0, 10.0)
    assert 0 <= between <= 5


async def test_nothing_is_said_while_a_member_would_not_understand_it(trio: Trio) -> None:
    leader = await trio.start()
    for host in trio.hosts:
        host.state.understood = False
    await put(leader, 1)
    for host in trio.hosts:
        host.state.understood = True
    await put(leader, 2)
    assert leader.state.stamps[0] == 0
    assert leader.state.stamps[1] > 0


class Model:
    """A log that several leaders write, and members that apply it at their own pace."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now = 1000.0
        self.term = 0
        self.log: list[tuple[int, int, float]] = []
        """Term, stamp and when it was proposed; a stamp of 0 belongs to an entry without commands."""
        self.members = [Member(self) for _ in range(3)]
        self.leader = self.members[0]
        self.elect()

    def elect(self) -> None:
        self.term += 1
        self.leader = self.rng.choice(self.members)
        self.leader.core.term = self.term
        self.log.append((self.term, 0, self.now))

    def step(self) -> None:
        choice = self.rng.random()
        if choice < 0.35:
            self.now += self.rng.choice((0.001, 0.1, 10.0))
        elif choice < 0.65:
            self.rng.choice(self.members).apply(self.rng.randint(1, 3))
        elif choice < 0.9:
            self.log.append((self.term, self.leader.elapsed.stamp(), self.now))
        elif choice < 0.95:
            self.elect()
        else:
            member = self.rng.choice(self.members)
            member.restart()
            if member is self.leader:
                self.elect()

    def check(self) -> None:
        at, moments = Moment(), []
        for _, stamp, proposed in self.log:
            at = at.after(0, stamp)
            moments.append((at.now / 1e9, proposed))
        for index, (counted, proposed) in enumerate(moments):
            for before, was in moments[:index]:
                if before:  # nothing that lasts begins with an entry that has no commands
                    assert counted - before <= proposed - was + 1e-6


class Member:
    def __init__(self, model: Model) -> None:
        self.model = model
        self.applied = 0
        self.offset = model.rng.uniform(0, 1e6)
        self.core: Any = SimpleNamespace(term=0)
        self.restart()

    def restart(self) -> None:
        """Its state is on disk, up to a moment ago; its monotonic clock may be another."""
        self.applied = self.model.rng.randint(0, self.applied)
        self.offset = self.model.rng.uniform(0, 1e6)
        clock: Any = SimpleNamespace(now=lambda: self.model.now + self.offset)
        history: Any = Past(self)
        self.elapsed = MeasuredTime(core=self.core, clock=clock, history=history, state=State(self))

    def apply(self, entries: int) -> None:
        self.applied = min(len(self.model.log), self.applied + entries)


class Past:
    def __init__(self, member: Member) -> None:
        self.member = member
        self.membership = SimpleNamespace(node_ids=(1, 2, 3))

    @property
    def applied(self) -> EntryId:
        log, index = self.member.model.log, self.member.applied
        return EntryId(log[index - 1][0] if index else 0, index)


class State:
    def __init__(self, member: Member) -> None:
        self.member = member

    def elapsed(self, members: object) -> int:
        at = Moment()
        for _, stamp, _ in self.member.model.log[: self.member.applied]:
            at = at.after(0, stamp)
        return at.now


@pytest.mark.parametrize("seed", range(40))
def test_no_more_is_counted_than_has_passed_between_proposals(seed: int) -> None:
    """Whoever led, whoever was restarted, whatever was on its way when leadership changed."""
    model = Model(random.Random(seed))
    for _ in range(150):
        model.step()
    model.check()
