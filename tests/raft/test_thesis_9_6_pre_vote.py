"""Thesis 9.6: a node finds out whether it could win before it disturbs anybody."""

from connect_kv.raft.messages import VoteRequest, VoteResponse
from connect_kv.raft.types import ZERO, EntryId, Role
from tests.raft.harness import Cluster, append, sent


def test_a_cut_off_node_does_not_raise_its_term() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(3)
    cluster.tick(200)
    assert cluster[3].core.role is Role.PRE_CANDIDATE
    assert cluster[3].core.term == 1

    cluster.heal()
    cluster.tick(20)

    assert cluster.leaders == [1]
    assert cluster[1].core.term == 1


def test_asking_changes_neither_term_nor_vote_of_the_asked() -> None:
    node = Cluster(3)[1]

    node.step(VoteRequest(source=2, target=1, term=5, last=ZERO, pre_vote=True))

    (answer,) = sent(node, VoteResponse)
    assert answer == VoteResponse(source=1, target=2, term=5, granted=True, pre_vote=True)
    assert (node.core.term, node.core.status().vote) == (0, None)


def test_who_hears_a_leader_helps_nobody_to_replace_it() -> None:
    node = Cluster(3)[1]
    node.step(append(2, 1, 1, ZERO))
    node.outgoing.clear()
    for pre_vote in (True, False):
        request = VoteRequest(source=3, target=1, term=9, last=EntryId(9, 9), pre_vote=pre_vote)
        node.step(request)
    assert node.outgoing == []
    assert node.core.term == 1

    node.tick(10)
    node.step(VoteRequest(source=3, target=1, term=9, last=EntryId(9, 9), pre_vote=True))
    assert len(sent(node, VoteResponse)) == 1


def test_who_is_asked_by_an_older_term_answers_with_its_own() -> None:
    """Otherwise a node with a higher term and one with a better log could block each other."""
    node = Cluster(3, logs=[[4], [], []])[1]

    node.step(VoteRequest(source=2, target=1, term=2, last=EntryId(9, 9), pre_vote=True))

    (answer,) = sent(node, VoteResponse)
    assert answer == VoteResponse(source=1, target=2, term=4, granted=False, pre_vote=True)


def test_a_refused_pre_candidate_becomes_a_follower() -> None:
    node = Cluster(3)[1]
    node.core.campaign()
    for source in (2, 3):
        node.step(VoteResponse(source=source, target=1, term=0, granted=False, pre_vote=True))
    assert node.core.role is Role.FOLLOWER
