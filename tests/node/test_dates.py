"""At what time a query is asked: by the leader's clock, not before its read barrier, and never back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from connect_kv.node.clock import LeaderClock
from connect_kv.raft.core import RaftCore
from connect_kv.raft.messages import HeartbeatRequest, HeartbeatResponse, ReadIndexResponse, VoteResponse
from connect_kv.raft.types import Membership


@dataclass
class Wall:
    time: int

    def now(self) -> float:
        return 0.0

    def wall(self) -> int:
        return self.time

    async def sleep(self, seconds: float) -> None: ...


@dataclass
class Core:
    """What is used of one."""

    membership: Membership
    term: int = 1


def dates(node_id: int, wall: Wall, voters: int = 3) -> LeaderClock:
    membership = Membership(voters=frozenset(range(1, voters + 1)))
    return LeaderClock(cast(RaftCore, Core(membership)), wall, node_id)


def heartbeat(leader: LeaderClock) -> HeartbeatRequest:
    sent = leader.sent(HeartbeatRequest(source=1, target=2, term=1, commit_index=0, round=1))
    assert isinstance(sent, HeartbeatRequest)
    return sent


def echoed(follower: LeaderClock, source: int) -> HeartbeatResponse:
    sent = follower.sent(HeartbeatResponse(source=source, target=1, term=1, round=1))
    assert isinstance(sent, HeartbeatResponse)
    return sent


def answered(leader: LeaderClock) -> ReadIndexResponse:
    sent = leader.sent(ReadIndexResponse(source=1, target=3, term=1, context=1, index=1))
    assert isinstance(sent, ReadIndexResponse)
    return sent


def test_a_read_has_the_date_of_the_round_that_confirmed_it_and_goes_on_while_nobody_writes() -> None:
    wall = Wall(100)
    leader, follower, asking = dates(1, wall), dates(2, Wall(0)), dates(3, Wall(0))
    told = []
    for wall.time in (100, 250, 251):
        follower.received(heartbeat(leader))
        wall.time += 50  # the answer takes a while
        leader.received(echoed(follower, 2))
        asking.received(answered(leader))
        leader.read_here()
        told.append((asking.read, leader.read))
    assert told == [(100, 100), (250, 250), (251, 251)]


def test_a_date_that_no_majority_has_heard_is_not_told() -> None:
    wall = Wall(100)
    leader, follower = dates(1, wall), dates(2, Wall(0))
    follower.received(heartbeat(leader))
    leader.received(echoed(follower, 2))
    wall.time = 900
    heartbeat(leader)  # lost
    leader.read_here()
    assert (leader.read, answered(leader).date) == (100, 100)


def test_a_new_leader_whose_clock_is_behind_does_not_go_back() -> None:
    """Its voters have heard what was told: one of them belongs to the majority that had."""
    wall = Wall(10_000)
    old, voter, new = dates(1, wall), dates(2, Wall(0)), dates(3, Wall(500))
    voter.received(heartbeat(old))
    old.received(echoed(voter, 2))
    old.read_here()
    vote = voter.sent(VoteResponse(source=2, target=3, term=2, granted=True))
    assert isinstance(vote, VoteResponse)
    new.received(vote)
    voter.received(heartbeat(new))
    new.received(echoed(voter, 2))
    new.read_here()
    assert new.read == old.read == 10_000
    assert new.now() == 10_000, "nor do entries"


def test_one_member_alone_goes_by_its_own_clock() -> None:
    wall = Wall(5)
    alone = dates(1, wall, voters=1)
    for wall.time in (5, 9, 7):
        alone.read_here()
    assert alone.read == 9
