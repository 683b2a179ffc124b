"""Quorums against a version too dumb to be wrong."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connect_kv.raft.quorum import VoteResult, committed_index, vote_result
from connect_kv.raft.types import Membership

voters = st.frozensets(st.integers(1, 9), max_size=6)
acknowledged = st.dictionaries(st.integers(1, 9), st.integers(0, 20))
votes = st.dictionaries(st.integers(1, 9), st.booleans())


def majorities(members: frozenset[int]) -> list[frozenset[int]]:
    return [
        frozenset(group)
        for size in range(len(members) // 2 + 1, len(members) + 1)
        for group in combinations(sorted(members), size)
    ]


def halves(first: frozenset[int], second: frozenset[int]) -> list[frozenset[int]]:
    return [first, second] if second else [first]


@pytest.mark.long
@settings(max_examples=500, deadline=None)
@given(voters, voters, acknowledged)
def test_committed_index_is_the_highest_that_some_majority_of_each_half_has(
    first: frozenset[int], second: frozenset[int], acks: dict[int, int]
) -> None:
    """§5.3, §6: the highest index that a majority of the voters has; in a joint membership, a majority of
    the old and one of the new.
    """
    expected = 0
    for index in range(21):
        if all(
            any(all(acks.get(node_id, 0) >= index for node_id in group) for group in majorities(half))
            for half in halves(first, second)
        ):
            expected = index
    assert committed_index(Membership(voters=first, voters_outgoing=second), acks) == expected


@pytest.mark.long
@settings(max_examples=500, deadline=None)
@given(voters, voters, votes)
def test_an_election_is_won_lost_or_open(
    first: frozenset[int], second: frozenset[int], given_votes: dict[int, bool]
) -> None:
    """§5.2, §6: votes of a majority win, of both majorities in a joint membership; it is lost once open
    votes cannot bring that.
    """

    def possible(with_open: bool) -> bool:
        return all(
            any(all(given_votes.get(node_id, with_open) for node_id in group) for group in majorities(half))
            for half in halves(first, second)
        )

    expected = (
        VoteResult.WON if possible(False) else VoteResult.PENDING if possible(True) else VoteResult.LOST
    )
    assert vote_result(Membership(voters=first, voters_outgoing=second), given_votes) is expected
