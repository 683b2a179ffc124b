"""§7: compaction, and snapshots for who is too far behind."""

import pytest

from connect_kv.raft.errors import RaftInvariantError
from connect_kv.raft.messages import InstallSnapshot
from connect_kv.raft.progress import ProgressState
from connect_kv.raft.types import EntryId, SnapshotMeta
from tests.raft.harness import Cluster, Node, Snapshot, accepted, append, entries_of, membership_of


def behind(cluster: Cluster) -> Node:
    """3 misses what 1 and 2 committed and compacted."""
    leader = cluster.elect(1)
    cluster.isolate(3)
    for _ in range(5):
        leader.propose(b"x")
        cluster.stabilize()
    for node_id in (1, 2):
        cluster[node_id].make_durable()
        cluster[node_id].compact(5)
    cluster.heal()
    return leader


def test_a_follower_behind_the_log_gets_a_snapshot_and_then_entries() -> None:
    """§7: a follower that needs discarded entries gets a snapshot, and then the entries after it."""
    cluster = Cluster(3)
    leader = behind(cluster)

    cluster.tick(4)

    assert cluster[3].core.first_index == 7
    assert cluster[3].state == leader.state
    leader.propose(b"y")
    cluster.stabilize()
    assert cluster[3].state == leader.state


def test_nothing_is_sent_beside_a_snapshot_and_a_failed_one_is_sent_again() -> None:
    """§7: a snapshot that did not arrive is sent again, until the follower has it."""
    cluster = Cluster(3)
    leader = behind(cluster)
    cluster.dropped = lambda packet: isinstance(packet, Snapshot)
    cluster.tick(2)
    cluster.collect()

    snapshots = sum(len(ready.snapshots) for ready in leader.readies)
    cluster.tick(4)
    assert sum(len(ready.snapshots) for ready in leader.readies) > snapshots

    cluster.heal()
    cluster.tick(6)
    assert cluster[3].state == leader.state


def test_the_news_that_a_snapshot_arrived_may_be_lost() -> None:
    """§7: after a snapshot replication goes on with entries, also if nobody reported its arrival.

    The driver never says so, and the acknowledgement is lost: the leader asks by itself.
    """
    cluster = Cluster(3)
    leader = behind(cluster)
    cluster.dropped = lambda packet: isinstance(packet, Snapshot)
    while not any(isinstance(packet, Snapshot) for packet in cluster.packets):
        leader.tick()
        cluster.collect()
        packets, cluster.packets = cluster.packets, []
        for packet in packets:
            if isinstance(packet, Snapshot):
                cluster[3].step(packet)
                cluster[3].outgoing.clear()
                cluster.packets = [packet]
                break
            cluster.deliver(packet)
    cluster.packets.clear()
    cluster.heal()
    states = [follower.state for follower in leader.core.status().followers]
    assert states == [ProgressState.REPLICATE, ProgressState.SNAPSHOT]

    cluster.tick(12)

    assert leader.core.status().followers[1].state is ProgressState.REPLICATE


def snapshot(last: EntryId, term: int = 2) -> InstallSnapshot:
    return InstallSnapshot(source=2, target=1, term=term, meta=SnapshotMeta(last, membership_of([1, 2, 3])))


def test_a_snapshot_of_what_the_log_has_is_not_installed() -> None:
    """§7: a snapshot of a prefix of the log leaves the entries after it in place.

    It would drop entries after it that this node has acknowledged.
    """
    node = Cluster(3)[1]
    node.step(append(2, 1, 2, EntryId(0, 0), entries_of([1, 1, 1])))
    node.outgoing.clear()

    node.step(snapshot(EntryId(1, 2)))

    assert not any(ready.install for ready in node.readies)
    assert (node.core.last_index, node.core.commit_index) == (3, 2)
    assert node.outgoing == [accepted(1, 2, 2, 2)]


def test_a_snapshot_that_contradicts_the_log_replaces_it() -> None:
    """§7: a snapshot whose last entry is not in the log replaces the whole log."""
    node = Cluster(3, logs=[[1, 1, 1, 1], [], []])[1]

    node.step(Snapshot(snapshot(EntryId(2, 3)), ()))

    assert (node.core.first_index, node.core.last_index, node.core.commit_index) == (4, 3, 3)
    assert node.disk.entries == []


def test_nothing_is_applied_between_the_installation_and_its_end_on_disk() -> None:
    """§7: a snapshot is the state from which applying goes on, so nothing is applied before it is stored."""
    node = Cluster(3)[1]
    node.slow_disk = True
    node.step(Snapshot(snapshot(EntryId(2, 3)), ()))
    node.step(append(2, 1, 2, EntryId(2, 3), entries_of([2], 4), commit_index=4))
    assert node.core.apply_index == 0

    node.applies = False
    node.persist()

    assert node.core.apply_index == 4
    assert node.core.status().applied_index == 3


def test_a_follower_whose_window_was_lost_gets_a_snapshot_once_the_log_is_compacted() -> None:
    """§7: a follower whose next entry is discarded gets a snapshot, also where acknowledgements are awaited.

    Nobody says that the appends were lost, and what a probe would compare is gone.
    """
    cluster = Cluster(3, limits={"max_inflight_appends": 2, "small_append_bytes": 1})
    leader = cluster.elect(1)
    cluster.isolate(3)
    for _ in range(10):
        leader.propose(b"x")
        cluster.stabilize()
    for node_id in (1, 2):
        cluster[node_id].make_durable()
        cluster[node_id].compact(11)
    cluster.heal()

    cluster.tick(10)

    assert cluster[3].state == leader.state


def test_only_what_is_applied_is_compacted() -> None:
    """§7: the state stands in for discarded entries, so only applied ones are discarded."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    leader.applies = False
    leader.propose(b"a")
    cluster.stabilize()

    with pytest.raises(RaftInvariantError, match="only applied entries are compacted"):
        leader.core.compacted(EntryId(1, 2))


def test_terms_and_memberships_are_known_after_compaction() -> None:
    """§7: last included index and term, and the latest membership in them, are kept when entries are
    discarded.
    """
    cluster = Cluster(1, logs=[[1, 1, 2, 2, 3]])
    cluster.tick(30)
    node = cluster[1]
    node.make_durable()

    node.compact(4)

    assert node.core.entry_id(4) == EntryId(2, 4)
    assert node.core.entry_id(3) is None
    assert node.core.membership_at(4) == membership_of([1])
    node.crash()
    node.start(recent=0)
    assert node.core.entry_id(5) == EntryId(3, 5)


def test_a_member_without_its_state_keeps_its_log_and_gets_a_snapshot() -> None:
    """§7: a member that lost its state, not its log, still acknowledges entries, and gets a snapshot.

    Even if nothing can be committed without its acknowledgement.
    """
    cluster = Cluster(3)
    behind(cluster)
    cluster.tick(10)
    cluster[3].crash()
    cluster[2].make_durable()
    cluster[2].compact(5)
    cluster[2].crash()
    cluster[2].lose_state()
    cluster[2].start()
    assert cluster[2].core.status().needs_snapshot

    cluster[1].propose(b"z")
    cluster.tick(30)

    assert cluster[1].core.role.value == "leader"
    assert not cluster[2].core.status().needs_snapshot
    assert cluster[2].state == cluster[1].state


def test_a_snapshot_of_a_term_that_has_not_begun_is_not_taken() -> None:
    """§7, §5.1: a snapshot holds nothing of a term later than its leader's; one that claims to is dropped."""
    cluster = Cluster(3)
    cluster.elect(1)
    node = cluster[3]
    meta = SnapshotMeta(EntryId(2, 50), membership_of([1, 2, 3]))
    node.outgoing.clear()

    node.step(InstallSnapshot(source=1, target=3, term=1, meta=meta))

    assert node.core.last_index == 1
    assert not node.outgoing
