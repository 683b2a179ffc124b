"""The leader's timer, on a clock that only moves when told to."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from connect_kv.errors import NotProposed
from connect_kv.kv.lessor import BATCH, CHECKPOINT, Lessor
from connect_kv.rpc.command_pb2 import Command, CommandBatch, LeaseRenew, Result
from connect_kv.storage.overlay import Overlay
from tests.kv.conftest import SECOND, Kv, ManualClock, new_engine, run


class Member:
    """A machine, its lessor and a log that commits at once."""

    def __init__(self) -> None:
        self.kv = Kv(new_engine())
        self.clock = ManualClock()
        self.leads = True
        self.fails = False
        self.proposals: list[int] = []
        self.before_apply: Callable[[], None] = lambda: None
        self.lessor = Lessor(self.kv.machine.leases, self.clock, self.propose, lambda: self.leads)

    async def propose(self, payload: bytes, count: int) -> Sequence[Result]:
        if self.fails:
            raise NotProposed("the leader is gone")
        await asyncio.sleep(0)
        commands = CommandBatch.FromString(payload).commands
        self.proposals.append(len(commands[0].lease_expire.items))
        self.before_apply()
        return self.kv.apply(*commands)

    def renew(self, *leases: int) -> None:
        self.kv.apply(Command(lease_renew=LeaseRenew(ids=leases)))

    def revoke(self, lease: int) -> None:
        command = Command()
        command.lease_revoke.ID = lease
        self.kv.apply(command)

    @property
    def leases(self) -> list[int]:
        return sorted(self.kv.machine.leases)


@pytest.fixture
async def member() -> AsyncIterator[Member]:
    member = Member()
    task = asyncio.create_task(member.lessor.run())
    await member.clock.advance(2)
    yield member
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_lease_ends_after_its_time_and_not_before(member: Member) -> None:
    member.kv.grant(1, 5)
    await member.clock.advance(4.9)
    assert member.leases == [1]
    await member.clock.advance(0.7)
    assert member.leases == []


async def test_renewals_keep_it_alive(member: Member) -> None:
    member.kv.grant(1, 5)
    for _ in range(6):
        await member.clock.advance(4)
        member.renew(1)
    assert member.leases == [1]
    await member.clock.advance(5.6)
    assert member.leases == []


async def test_a_renewal_applied_before_the_expiry_wins(member: Member) -> None:
    member.kv.grant(1, 5)
    member.before_apply = lambda: member.renew(1)
    await member.clock.advance(6)
    assert member.proposals
    assert member.leases == [1]
    member.before_apply = lambda: None
    await member.clock.advance(5.5)
    assert member.leases == []


async def test_a_follower_ends_nothing_and_a_new_leader_waits_a_moment(member: Member) -> None:
    member.leads = False
    member.kv.grant(1, 2)
    await member.clock.advance(10)
    assert member.leases == [1]
    member.leads = True
    await member.clock.advance(0.9)
    assert member.leases == [1]
    await member.clock.advance(1.1)
    assert member.leases == []


async def test_ten_thousand_leases_that_end_together_go_in_small_commands(member: Member) -> None:
    for lease in range(1, 10_001):
        member.kv.grant(lease, 3)
    await member.clock.advance(3)
    for _ in range(20):
        await member.clock.advance(0.5)
    assert member.leases == []
    assert max(member.proposals) == BATCH
    assert sum(member.proposals) == 10_000


async def test_a_failed_proposal_is_tried_again(member: Member) -> None:
    member.kv.grant(1, 3)
    member.fails = True
    await member.clock.advance(6)
    assert member.leases == [1]
    member.fails = False
    await member.clock.advance(1)
    assert member.leases == []


@pytest.mark.parametrize(("since", "remains"), [(0, 30), (110 * SECOND, 40), (130 * SECOND, 60)])
async def test_after_a_restart_what_was_measured_has_passed(member: Member, since: int, remains: int) -> None:
    """What was counted by wall clocks, before anything was measured, is not believed."""
    kv = member.kv
    kv.time = 100 * SECOND
    kv.grant(1, 60)
    kv.time = 130 * SECOND
    kv.put(b"a")
    kv.restart(since)
    lessor = Lessor(kv.machine.leases, member.clock, member.propose, lambda: False)
    assert lessor.remaining(1) == pytest.approx(remains)
    answer = lessor.time_to_live(1)
    assert (answer.TTL, answer.grantedTTL) == (remains, 60)


async def test_time_to_live_of_an_unknown_lease_is_minus_one(member: Member) -> None:
    answer = member.lessor.time_to_live(9)
    assert (answer.ID, answer.TTL, answer.grantedTTL) == (9, -1, 0)


async def test_an_id_granted_again_counts_anew(member: Member) -> None:
    member.kv.grant(1, 4)
    await member.clock.advance(3)
    member.revoke(1)
    member.kv.grant(1, 4)
    await member.clock.advance(3.5)
    assert member.leases == [1]
    await member.clock.advance(1.1)
    assert member.leases == []


async def test_an_id_granted_again_for_less_ends_after_its_own_time(member: Member) -> None:
    member.kv.grant(7, 40)
    await member.clock.advance(1)
    member.revoke(7)
    member.kv.grant(7, 3)
    await member.clock.advance(2.9)
    assert member.leases == [7]
    await member.clock.advance(0.7)
    assert member.leases == []


async def test_an_id_granted_again_while_its_end_is_proposed_is_not_ended(member: Member) -> None:
    member.kv.grant(7, 5)
    await member.clock.advance(4.9)

    def again() -> None:
        member.before_apply = lambda: None
        member.revoke(7)
        member.kv.grant(7, 3)

    member.before_apply = again
    await member.clock.advance(0.7)
    assert member.proposals == [1]
    assert member.leases == [7]
    await member.clock.advance(3.1)
    assert member.leases == []


async def test_revoked_and_granted_again_in_one_slice(member: Member) -> None:
    member.kv.grant(7, 40)
    command = Command()
    command.lease_revoke.ID = 7
    again = Command()
    again.lease_grant.ID, again.lease_grant.TTL = 7, 3
    member.kv.apply(command, again)
    await member.clock.advance(3.6)
    assert member.leases == []


async def test_what_remains_is_never_negative(member: Member) -> None:
    member.kv.grant(1, 5)
    member.leads = False
    await member.clock.advance(60)
    assert member.lessor.time_to_live(1).TTL == 0


@pytest.mark.long
async def test_leases_that_come_and_go_are_not_kept_until_their_time(member: Member) -> None:
    for lease in range(1, 20_001):
        member.kv.grant(lease, 3600)
        member.revoke(lease)
    await member.clock.advance(1)
    assert member.lessor.queued < 2000


async def test_a_renewal_that_is_being_written_is_not_taken_for_the_one_the_timer_saw(member: Member) -> None:
    member.kv.grant(1, 5)
    await member.clock.advance(4.9)
    kv, overlay = member.kv, Overlay(member.kv.engine)
    kv.index += 1
    run(kv.machine.apply(Command(lease_renew=LeaseRenew(ids=[1])), kv.index, kv.at, overlay))
    kv.machine.seal(overlay)
    member.before_apply = lambda: kv.write(overlay)  # ends before the expiry, begun before it, is applied
    await member.clock.advance(0.7)
    assert member.proposals
    assert member.leases == [1]


async def test_with_leases_and_no_writes_an_entry_says_what_has_passed(member: Member) -> None:
    await member.clock.advance(CHECKPOINT + 1)
    assert member.proposals == [], "there is nothing to say it for"
    member.kv.grant(1, 3600)
    await member.clock.advance(1)
    assert member.proposals == [0]
    await member.clock.advance(CHECKPOINT + 1)
    assert member.proposals == [0, 0]
    member.leads = False
    await member.clock.advance(CHECKPOINT + 1)
    assert member.proposals == [0, 0]
    assert member.leases == [1]
