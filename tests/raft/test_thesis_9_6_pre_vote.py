"""Thesis 9.6: a node finds out whether it could win before it disturbs anybody."""

from connect_kv.raft.messages import VoteRequest, VoteResponse
from connect_kv.raft.types import ZERO, EntryId, Role
from tests.raft.harness import Cluster, append, sent


def test_a_cut_off_node_does_not_raise_its_term() -> None:
    """Thesis 9.6: a server that cannot win the pre-vote does not raise its term, and disturbs nobody when
    it is back.
    """
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
    """Thesis 9.6: a pre-vote is granted without taking on the term or giving away the vote."""
    node = Cluster(3)[1]

    node.step(VoteRequest(source=2, target=1, term=5, last=ZERO, pre_vote=True))

    (answer,) = sent(node, VoteResponse)
    assert answer == VoteResponse(source=1, target=2, term=5, granted=True, pre_vote=True)
    assert (node.core.term, node.core.status().vote) == (0, None)


def test_who_hears_a_leader_helps_nobody_to_replace_it() -> None:
    """Thesis 4.2.3, 9.6: within an election timeout of hearing from its leader a server answers neither
    pre-votes nor votes, and takes on no term.
    """
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
    """Thesis 9.6, §5.1: a pre-vote for an older term is refused with the current term.

    Otherwise a node with a higher term and one with a better log could block each other.
    """
    node = Cluster(3, logs=[[4], [], []])[1]

    node.step(VoteRequest(source=2, target=1, term=2, last=EntryId(9, 9), pre_vote=True))

    (answer,) = sent(node, VoteResponse)
    assert answer == VoteResponse(source=1, target=2, term=4, granted=False, pre_vote=True)


def test_a_refused_pre_candidate_becomes_a_follower() -> None:
    """Thesis 9.6: a server whose pre-vote is refused by a majority goes back to being a follower."""
    node = Cluster(3)[1]
    node.core.campaign()
    for source in (2, 3):
        node.step(VoteResponse(source=source, target=1, term=0, granted=False, pre_vote=True))
    assert node.core.role is Role.FOLLOWER


def test_a_leader_whose_connection_broke_is_replaced_once_it_is_silent() -> None:
    """Thesis 9.6, §5.2 left on purpose: a broken connection and silence stand for an election timeout.

    A process that dies closes its connections: nobody need wait for a whole election timeout.
    """
    cluster = Cluster(3)
    cluster.elect(1)
    cluster[1].alive = False
    for node_id in (2, 3):
        cluster[node_id].core.report_unreachable(1)

    cluster.tick(9)  # less than the shortest election timeout

    assert len(cluster.leaders) == 1


def test_a_leader_that_is_heard_stays_whatever_becomes_of_a_connection_to_it() -> None:
    """Thesis 9.6: heartbeats that arrive keep a leader, however often connections to it break."""
    cluster = Cluster(3)
    cluster.elect(1)
    for _ in range(100):
        for node_id in (2, 3):
            cluster[node_id].core.report_unreachable(1)
        cluster.tick(1)
    assert cluster.leaders == [1]
    assert cluster[1].core.term == 1


def test_a_broken_connection_lets_nobody_be_deposed_before_two_heartbeats_are_missed() -> None:
    """Thesis 9.6, §5.2: where the connection to the leader broke, a pre-vote is granted only after two
    heartbeats have been missed as well.
    """
    node = Cluster(3)[1]
    node.step(append(2, 1, 1, ZERO))
    node.core.report_unreachable(2)
    node.outgoing.clear()
    request = VoteRequest(source=3, target=1, term=9, last=EntryId(9, 9), pre_vote=True)
    node.tick(3)
    node.step(request)
    assert sent(node, VoteResponse) == []

    node.tick(1)
    node.step(request)

    assert len(sent(node, VoteResponse)) == 1


def test_a_connection_to_another_follower_is_no_reason_to_campaign() -> None:
    """Thesis 9.6: only the leader's own connection shortens the wait for an election, not that of another
    follower.
    """
    cluster = Cluster(3)
    cluster.elect(1)
    cluster[1].alive = False
    cluster[2].core.report_unreachable(3)
    cluster.tick(9)
    assert cluster.leaders == []
