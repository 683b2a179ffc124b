"""§5.4.2: entries of earlier terms are committed only along with one of the leader's own."""

from connect_kv.raft.messages import HeartbeatRequest
from tests.raft.harness import Cluster, accepted


def test_figure_8_an_old_entry_on_a_majority_is_not_committed_by_counting() -> None:
    """§5.4.2, Figure 8: an entry of an earlier term is committed by one of the leader's own term after
    it, never by counting its copies.
    """
    cluster = Cluster(3, logs=[[1, 2], [1, 2], [1]])
    leader = cluster.elect(1)
    assert leader.core.term == 3
    cluster = Cluster(5, logs=[[1, 2], [1], [1], [1, 3], [1]])
    leader = cluster[1]
    leader.step(HeartbeatRequest(source=4, target=1, term=3, commit_index=0, round=0))
    cluster.isolate(4, 5)
    leader.tick(11)
    leader.core.campaign()
    cluster.cut((1, 4), (1, 5))
    cluster.collect()
    while cluster.packets and leader.core.leader_id != 1:
        cluster.deliver(cluster.packets.pop(0))
        cluster.collect()
    term = leader.core.term
    assert term == 4

    leader.step(accepted(2, 1, term, 2))
    leader.step(accepted(3, 1, term, 2))
    assert leader.core.commit_index == 0

    leader.step(accepted(2, 1, term, 3))
    leader.step(accepted(3, 1, term, 3))
    assert leader.core.commit_index == 3


def test_a_new_leader_commits_what_its_predecessor_left() -> None:
    """§5.4.2: what an earlier leader left uncommitted is committed along with the new leader's first
    entry.
    """
    cluster = Cluster(3)
    old = cluster.elect(1)
    cluster.isolate(3)
    old.propose(b"a")
    cluster.collect()
    for packet in cluster.packets:
        if packet.target == 2:  # type: ignore[union-attr]
            cluster[2].step(packet)
    old.crash()
    cluster.heal()
    cluster.packets.clear()

    cluster.tick(60)

    (leader,) = cluster.leaders
    assert leader == 2
    assert [entry.data for entry in cluster[3].state] == [b"", b"a", b""]
