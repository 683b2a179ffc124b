"""Thesis 6.4: a read sees everything committed before it was asked for, and needs no log entry."""

from connect_kv.raft.messages import AppendResponse, HeartbeatRequest, HeartbeatResponse, ReadIndexResponse
from connect_kv.raft.ready import ReadState
from tests.raft.harness import Cluster, Node, append, header, membership_of, sent


def answers(node: Node) -> list[tuple[int, int | None]]:
    return [(read.context, read.index) for read in node.reads]


def rounds(node: Node) -> list[int]:
    beats = [beat for beat in sent(node, HeartbeatRequest) if isinstance(beat, HeartbeatRequest)]
    return sorted({beat.round for beat in beats if beat.round})


def test_the_leader_and_its_followers_learn_the_index() -> None:
    """Thesis 6.4: a leader notes its commit index for a read, and a follower asks the leader for it."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    leader.propose(b"a")
    cluster.stabilize()

    cluster[1].core.read_index(7)
    cluster[2].core.read_index(8)
    cluster.stabilize()

    assert answers(cluster[1]) == [(7, 2)]
    assert answers(cluster[2]) == [(8, 2)]


def test_who_asked_hears_of_the_commit_with_the_answer_though_the_round_did_not_tell_it() -> None:
    """Thesis 6.4: who asked for a read waits for the index it was told, so it hears with the answer that
    it is committed.
    """
    cluster = Cluster(4, membership=membership_of([1, 2, 3], learners=[4]))
    leader = cluster.elect(1)
    cluster.stabilize()
    leader.tells_commits = False
    leader.propose(b"a")
    cluster.stabilize()

    cluster[4].core.read_index(7)
    cluster.stabilize()

    assert answers(cluster[4]) == [(7, 2)]
    assert cluster[4].core.commit_index == 2


def test_the_index_is_that_of_the_arrival() -> None:
    """Thesis 6.4: the read index is the commit index at the arrival of the read, not that at its
    confirmation.
    """
    cluster = Cluster(3)
    leader = cluster.elect(1)
    leader.core.read_index(7)
    leader.propose(b"a")

    cluster.stabilize()

    assert answers(leader) == [(7, 1)]


def test_a_leader_that_has_not_committed_in_its_term_keeps_reads_waiting() -> None:
    """Thesis 6.4: until a leader has committed an entry of its term it does not know what is committed,
    and reads wait.
    """
    cluster = Cluster(3)
    cluster.drop(AppendResponse)
    leader = cluster.elect(1)
    leader.core.read_index(7)
    cluster.tick(3)
    assert answers(leader) == []

    cluster.heal()
    cluster.tick(6)

    assert answers(leader) == [(7, 1)]


def test_a_voter_alone_answers_reads_that_a_tick_took_along() -> None:
    """Thesis 6.4: a round of heartbeats to a majority confirms a read, and a lone voter is a majority.

    Nobody answers its heartbeats, so the round that a tick begins confirms them by itself.
    """
    cluster = Cluster(1)
    leader = cluster.elect(1)
    leader.core.read_index(7)
    for _ in range(leader.config.heartbeat_ticks):
        leader.core.tick()
    leader.core.read_index(8)

    cluster.stabilize()

    assert answers(leader) == [(7, 1), (8, 1)]


def test_only_rounds_begun_after_the_arrival_count() -> None:
    """Thesis 6.4: a read is confirmed only by answers to a round of heartbeats that began after it
    arrived.
    """
    cluster = Cluster(3)
    leader = cluster.elect(1)
    leader.core.read_index(7)
    leader.run()
    (first,) = rounds(leader)
    leader.core.read_index(8)
    leader.run()
    assert rounds(leader) == [first], "one round for reads at a time"

    leader.step(HeartbeatResponse(source=2, target=1, term=1, round=first))

    assert answers(leader) == [(7, 1)]
    assert rounds(leader) == [first, first + 1]
    leader.step(HeartbeatResponse(source=3, target=1, term=1, round=first))
    assert answers(leader) == [(7, 1)]
    leader.step(HeartbeatResponse(source=3, target=1, term=1, round=first + 1))
    assert answers(leader) == [(7, 1), (8, 1)]


def test_a_cut_off_leader_answers_nobody() -> None:
    """Thesis 6.4: a leader that a majority does not answer may have been replaced, and answers no read."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.isolate(1)
    leader.core.read_index(7)

    cluster.tick(30)

    assert answers(leader) == [(7, None)], "abandoned when it stepped down"


def test_lost_rounds_are_made_up_for() -> None:
    """Thesis 6.4: a round of heartbeats that was lost is followed by the next one, which confirms the
    read.
    """
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.drop(HeartbeatRequest)
    leader.core.read_index(7)
    cluster.stabilize()
    cluster.heal()

    cluster.tick(2)

    assert answers(leader) == [(7, 1)]


def test_a_single_voter_answers_at_once() -> None:
    """Thesis 6.4: a lone voter is its own majority, and needs no round."""
    cluster = Cluster(1)
    cluster.tick(30)

    cluster[1].core.read_index(7)
    cluster[1].run()

    assert answers(cluster[1]) == [(7, 1)]


def test_without_a_leader_a_read_is_abandoned_at_once() -> None:
    """Thesis 6.4: a read index comes from a leader; where none is known the read is given up at once."""
    node = Cluster(3)[1]

    node.core.read_index(7)
    node.run()

    assert node.reads == [ReadState(context=7, index=None)]


def test_a_lost_question_is_abandoned_after_an_election_timeout() -> None:
    """Thesis 6.4: a follower whose question is not answered within an election timeout gives the read up."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.drop(ReadIndexResponse)
    cluster[2].core.read_index(7)

    cluster.tick(10)

    assert answers(cluster[2]) == [(7, None)]


def test_a_follower_abandons_its_reads_with_their_leader() -> None:
    """Thesis 6.4: with a new leader in a later term a follower gives up reads that it asked of the
    earlier one.
    """
    cluster = Cluster(3)
    cluster.elect(1)
    cluster[2].core.read_index(7)

    cluster[2].step(append(3, 2, 5, cluster[2].log[-1].id))

    assert answers(cluster[2]) == [(7, None)]


def test_an_answer_to_an_earlier_life_is_not_taken_for_a_later_read() -> None:
    """Thesis 6.4: an index that was noted before the read arrived may be too old, so an answer meant for
    an earlier life of the process is ignored.
    """
    cluster = Cluster(3)
    leader = cluster.elect(1)
    follower = cluster[2]
    follower.core.read_index(1)
    follower.run()
    (question,) = follower.outgoing
    follower.crash()
    follower.start()
    cluster.tick(2)
    leader.step(question)
    cluster.collect()
    stale, cluster.packets = cluster.packets, []

    follower.core.read_index(1)
    follower.run()
    for packet in stale:
        cluster.deliver(packet)
    cluster.collect()
    cluster.packets = [packet for packet in cluster.packets if packet.target == 1]  # type: ignore[union-attr]
    for packet in cluster.packets:
        if isinstance(packet, HeartbeatResponse):
            leader.step(packet)
    for packet in leader.outgoing:
        follower.step(packet)

    assert answers(follower) == []


def asked(node: Node) -> list[int]:
    """Whom it asks for a round now."""
    node.run()
    beats = [beat for beat in sent(node, HeartbeatRequest) if isinstance(beat, HeartbeatRequest)]
    return [beat.target for beat in beats if beat.round]


def led_by_one() -> Cluster:
    """Three members; 1 leads, and 2 was the first to answer a round for all."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.stabilize()
    cluster[1].tick(2)
    cluster.stabilize()
    return cluster


def test_only_so_many_are_asked_as_make_a_majority() -> None:
    """Thesis 6.4: a majority that answers is enough; those are asked who were the first to answer all."""
    cluster = led_by_one()

    cluster[1].core.read_index(7)

    assert asked(cluster[1]) == [2]
    cluster.stabilize()
    assert answers(cluster[1]) == [(7, 1)]


def test_all_are_asked_where_several_members_wait() -> None:
    """Thesis 6.4: such a round serves many, and whoever answers first counts."""
    cluster = led_by_one()
    cluster[2].core.read_index(7)
    cluster[3].core.read_index(8)
    for node_id in (2, 3):
        cluster[node_id].run()
        for packet in cluster[node_id].outgoing:
            cluster[1].core.step(header(packet))
        cluster[node_id].outgoing.clear()

    assert asked(cluster[1]) == [2, 3]
    cluster.stabilize()
    assert (answers(cluster[2]), answers(cluster[3])) == ([(7, 1)], [(8, 1)])


def test_who_does_not_answer_a_read_is_passed_over_with_the_next_heartbeat() -> None:
    """Thesis 6.4: a later round confirms what an earlier one would have, and tells who answers first now."""
    cluster = led_by_one()
    cluster.isolate(2)
    cluster[1].core.read_index(7)
    cluster.stabilize()
    assert answers(cluster[1]) == []

    cluster[1].tick(2)
    cluster.stabilize()
    assert answers(cluster[1]) == [(7, 1)]

    cluster[1].core.read_index(8)
    assert asked(cluster[1]) == [3]
    cluster.stabilize()
    assert answers(cluster[1]) == [(7, 1), (8, 1)]


def test_all_are_asked_as_soon_as_who_was_asked_is_known_to_be_away() -> None:
    """Thesis 6.4: not only with the next heartbeat."""
    cluster = led_by_one()
    cluster.isolate(2)
    cluster[1].core.read_index(7)
    cluster.stabilize()
    assert answers(cluster[1]) == []

    cluster[1].core.report_unreachable(2)
    cluster.stabilize()

    assert answers(cluster[1]) == [(7, 1)]


def test_a_new_leader_asks_all_until_it_knows_who_is_near() -> None:
    """Thesis 6.4: what was found out in another term says nothing."""
    cluster = led_by_one()
    for leader in (2, 1):
        cluster[3 - leader].core.transfer_leadership(leader)
        cluster.stabilize()

    cluster[1].core.read_index(9)

    assert asked(cluster[1]) == [2, 3]
