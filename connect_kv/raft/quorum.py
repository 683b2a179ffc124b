"""Majorities, single and joint. Commits, reads, votes and check-quorum all count here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum

from connect_kv.raft.types import Membership


class VoteResult(Enum):
    """Where an election stands."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def committed_index(membership: Membership, acknowledged: Mapping[int, int]) -> int:
    """The highest number that a majority has acknowledged; in joint consensus, both majorities.

    Works for log indexes (§5.3) and for heartbeat rounds (thesis 6.4). Who is missing from
    `acknowledged` counts as 0. Without voters nothing is ever committed: 0.
    """
    index = _majority_index(membership.voters, acknowledged)
    if membership.voters_outgoing:
        index = min(index, _majority_index(membership.voters_outgoing, acknowledged))
    return index


def vote_result(membership: Membership, votes: Mapping[int, bool]) -> VoteResult:
    """Whether the votes given so far decide it; in joint consensus both majorities must agree."""
    result = _majority_vote(membership.voters, votes)
    if not membership.voters_outgoing:
        return result
    other = _majority_vote(membership.voters_outgoing, votes)
    if VoteResult.LOST in (result, other):
        return VoteResult.LOST
    if VoteResult.PENDING in (result, other):
        return VoteResult.PENDING
    return VoteResult.WON


def _majority_index(voters: Iterable[int], acknowledged: Mapping[int, int]) -> int:
    ranked = sorted((acknowledged.get(voter, 0) for voter in voters), reverse=True)
    # Descending, so the voter at n // 2 and all before it, a majority, have at least that: of 7 5 3 it is 5,
    # of 7 5 3 1 it is 3 (half of four is none).
    return ranked[len(ranked) // 2] if ranked else 0


def _majority_vote(voters: frozenset[int], votes: Mapping[int, bool]) -> VoteResult:
    needed = len(voters) // 2 + 1
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    refused = sum(1 for voter in voters if votes.get(voter) is False)
    if granted >= needed:
        return VoteResult.WON
    if len(voters) - refused < needed:
        return VoteResult.LOST
    return VoteResult.PENDING
