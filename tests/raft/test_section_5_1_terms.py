"""§5.1: terms are a logical clock."""

import pytest

from connect_kv.raft.messages import HeartbeatRequest, Message, ReadIndexRequest, VoteRequest, VoteResponse
from connect_kv.raft.types import ZERO, EntryId, Role
from tests.raft.harness import Cluster, Node, accepted, append, header, sent


def from_term(term: int) -> list[Message]:
    return [
        append(2, 1, term, ZERO),
        accepted(2, 1, term, 0),
        HeartbeatRequest(source=2, target=1, term=term, commit_index=0, round=1),
        VoteRequest(source=2, target=1, term=term, last=EntryId(9, 9), transfer=True),
        VoteResponse(source=2, target=1, term=term, granted=False),
        ReadIndexRequest(source=2, target=1, term=term, context=1),
    ]


@pytest.mark.parametrize("message", from_term(5), ids=lambda message: type(message).__name__)
@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.PRE_CANDIDATE, Role.LEADER])
def test_a_higher_term_makes_a_follower_of_anybody(message: Message, role: Role) -> None:
    """§5.1: whoever sees a higher term, in whatever message, takes it on and becomes a follower."""
    node = Cluster(3)[1]
    if role is Role.PRE_CANDIDATE:
        node.core.campaign()
    if role is Role.LEADER:
        cluster = Cluster(3)
        node = cluster.elect(1)
    assert node.core.role is role

    node.step(message)

    assert node.core.role is Role.FOLLOWER
    assert node.core.term == 5


def follower_in_term_2(cluster: Cluster) -> Node:
    node = cluster[1]
    node.step(append(2, 1, 2, ZERO))
    node.outgoing.clear()
    return node


@pytest.mark.parametrize("message", from_term(1), ids=lambda message: type(message).__name__)
def test_a_message_of_an_older_term_changes_nothing(message: Message) -> None:
    """§5.1: a message with a stale term is rejected, and changes nothing."""
    node = follower_in_term_2(Cluster(3))
    before = node.core.status()

    node.step(message)

    assert node.core.status() == before


def test_a_leader_of_an_older_term_is_told_of_the_newer_one() -> None:
    """§5.1: the answer to a leader of an older term carries the current term, which makes it step down."""
    node = follower_in_term_2(Cluster(3))

    node.step(HeartbeatRequest(source=3, target=1, term=1, commit_index=0, round=1))

    (answer,) = node.outgoing
    assert (header(answer).target, header(answer).term) == (3, 2)


def test_the_term_is_durable_before_a_vote_leaves() -> None:
    """§5.1, Figure 2: term and vote are on stable storage before the vote is answered."""
    node = Cluster(3)[1]
    node.slow_disk = True

    node.step(VoteRequest(source=2, target=1, term=3, last=ZERO))

    assert not sent(node, VoteResponse)
    node.persist()
    assert node.disk.hard_state.term == 3
    assert node.disk.hard_state.vote == 2
    assert len(sent(node, VoteResponse)) == 1


def test_terms_and_votes_survive_a_crash() -> None:
    """§5.1, Figure 2: currentTerm and votedFor are persistent; after a crash nobody else gets a vote in
    that term.
    """
    node = Cluster(3)[1]
    node.step(VoteRequest(source=2, target=1, term=3, last=ZERO))
    node.crash()
    node.start()

    node.step(VoteRequest(source=3, target=1, term=3, last=ZERO))

    (answer,) = sent(node, VoteResponse)
    assert isinstance(answer, VoteResponse)
    assert not answer.granted


def test_messages_for_somebody_else_are_dropped() -> None:
    """§5.1: only messages to this server move its term; one for another server is dropped, though its
    term is higher.
    """
    node = Cluster(3)[1]

    node.step(append(2, 3, 7, ZERO))

    assert node.core.term == 0
