"""§5.3: followers' logs become the leader's, and what a majority has is committed."""

from collections.abc import Sequence

import pytest

from connect_kv.errors import NotLeader, Overloaded
from connect_kv.raft.messages import (
    AppendRequest,
    AppendResponse,
    HeartbeatRequest,
    HeartbeatResponse,
    VoteResponse,
)
from connect_kv.raft.progress import ProgressState
from connect_kv.raft.types import ZERO, Entry, EntryId, EntryKind
from tests.raft.harness import Cluster, Node, Packet, accepted, append, entries_of, sent


def test_a_proposal_reaches_everybody() -> None:
    """§5.3: a command is appended by the leader, replicated, and applied by all in the order of the log."""
    cluster = Cluster(3)
    leader = cluster.elect(1)

    first = leader.propose(b"a", b"b")
    cluster.stabilize()

    assert first == EntryId(1, 2)
    for node in cluster.nodes.values():
        assert [entry.data for entry in node.state] == [b"", b"a", b"b"]


def test_only_the_leader_takes_proposals() -> None:
    """§5.3, §8: only a leader takes commands; a follower refuses and names its leader."""
    cluster = Cluster(3)
    cluster.elect(1)

    with pytest.raises(NotLeader) as refused:
        cluster[2].propose(b"a")
    assert refused.value.leader_id == 1


def test_the_leader_sends_while_it_writes_and_counts_itself_only_after() -> None:
    """Thesis 10.2.1: a leader sends entries while its own disk writes, and counts its own copy only
    afterwards.
    """
    cluster = Cluster(3)
    leader = cluster.elect(1)
    leader.slow_disk = True
    leader.propose(b"a")
    assert len(sent(leader, AppendRequest)) == 2

    leader.step(accepted(2, 1, 1, 2))
    assert leader.core.commit_index == 1
    leader.persist()
    assert leader.core.commit_index == 2


def test_a_majority_of_followers_commits_before_the_leaders_disk() -> None:
    """Thesis 10.2.1: a majority of followers commits an entry even before it is on the leader's own disk."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    leader.slow_disk = True
    leader.propose(b"a")

    leader.step(accepted(2, 1, 1, 2))
    leader.step(accepted(3, 1, 1, 2))

    assert leader.core.commit_index == 2
    assert leader.core.apply_index == 1, "applied is only what is on disk here too"


def test_a_follower_acknowledges_only_what_is_on_disk() -> None:
    """§5.3, Figure 2: a follower answers an append only once the entries are on stable storage."""
    node = Cluster(3)[1]
    node.slow_disk = True

    node.step(append(2, 1, 1, ZERO, entries_of([1, 1])))

    assert not sent(node, AppendResponse)
    node.persist()
    assert sent(node, AppendResponse) == [accepted(1, 2, 1, 2)]


def test_a_rewritten_tail_is_not_counted_by_the_write_it_replaced() -> None:
    """§5.3: an entry counts as stored only if it is the one that was written.

    The disk finishes a write whose entries were truncated meanwhile: they prove nothing.
    """
    node = Cluster(3)[1]
    node.slow_disk = True
    node.step(append(2, 1, 1, ZERO, entries_of([1, 1, 1])))
    node.step(append(3, 1, 2, EntryId(1, 1), entries_of([2], 2)))

    node.persist(1)
    assert node.core.status().persisted_index == 1
    node.persist()
    assert node.core.status().persisted_index == 2


@pytest.mark.parametrize(
    ("terms", "prev", "hint"),
    [
        ([], EntryId(1, 3), EntryId(0, 1)),
        ([1, 1], EntryId(2, 5), EntryId(0, 3)),
        ([1, 2, 2, 2], EntryId(3, 4), EntryId(2, 2)),
        ([1, 1, 1], EntryId(2, 2), EntryId(1, 1)),
    ],
)
def test_a_mismatch_is_answered_with_where_to_look(terms: list[int], prev: EntryId, hint: EntryId) -> None:
    """§5.3: a rejection tells the follower's last entry that can still match: below the term in conflict,
    so that a whole term is passed over.
    """
    node = Cluster(3, logs=[terms, [], []])[1]

    node.step(append(2, 1, 4, prev, entries_of([4], prev.index + 1)))

    (answer,) = sent(node, AppendResponse)
    assert isinstance(answer, AppendResponse)
    assert (answer.accepted, answer.prev_index, answer.hint) == (False, prev.index, hint)


def in_term_7(cluster: Cluster) -> None:
    """Everybody has heard of term 7, and of no leader since."""
    for node_id, node in cluster.nodes.items():
        node.step(VoteResponse(source=9, target=node_id, term=7, granted=False))


FIGURE_7 = {
    "a": [1, 1, 1, 4, 4, 5, 5, 6, 6],
    "b": [1, 1, 1, 4],
    "c": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "d": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "e": [1, 1, 1, 4, 4, 4, 4],
    "f": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}


@pytest.mark.parametrize("case", FIGURE_7)
def test_figure_7_the_leader_repairs_every_log(case: str) -> None:
    """§5.3, Figure 7: whatever a follower misses or has too much, its log becomes the leader's."""
    leaders = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]
    cluster = Cluster(3, logs=[leaders, FIGURE_7[case], [1]])
    in_term_7(cluster)
    cluster.isolate(2)
    leader = cluster.elect(1)
    cluster.heal()

    cluster.tick(4)

    assert leader.log == cluster[2].log == cluster[3].log
    assert [entry.term for entry in leader.log] == [*leaders, 8]


def test_back_off_skips_a_whole_term_at_once() -> None:
    """§5.3: the leader passes over all entries of a conflicting term with one rejection, not one for each
    entry.
    """
    cluster = Cluster(2, logs=[[1] * 4 + [5, 5, 6, 6], [1] * 4 + [4] * 50])
    leader, follower = cluster[1], cluster[2]
    in_term_7(cluster)
    probes = 0

    def count(packet: Packet) -> bool:
        nonlocal probes
        probes += isinstance(packet, AppendResponse) and not packet.accepted
        return False

    cluster.dropped = count
    cluster.elect(1)

    assert leader.log == follower.log
    assert probes <= 2


def test_entries_the_follower_has_are_not_truncated_by_an_old_append() -> None:
    """§5.3, Figure 2: only an entry in conflict is deleted, with what follows it.

    A delayed append that ends earlier says nothing about what comes after it.
    """
    node = Cluster(3)[1]
    node.step(append(2, 1, 1, ZERO, entries_of([1, 1, 1])))

    node.step(append(2, 1, 1, ZERO, entries_of([1])))

    assert node.core.last_index == 3


def test_a_follower_commits_no_further_than_what_it_checked() -> None:
    """§5.3, Figure 2: commitIndex is the smaller of the leader's and the last entry that this append has
    checked.
    """
    node = Cluster(3, logs=[[1, 1, 1], [], []])[1]

    node.step(append(2, 1, 2, EntryId(1, 1), commit_index=3))

    assert node.core.commit_index == 1


def test_the_commit_index_of_a_heartbeat_is_what_the_member_matches() -> None:
    """§5.3: a heartbeat checks no entry, so it names to each follower no more than what is known to match
    there.
    """
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.isolate(3)
    leader.propose(b"a")
    cluster.stabilize()
    assert leader.core.commit_index == 2

    leader.tick(2)

    beats = {
        beat.target: beat for beat in sent(leader, HeartbeatRequest) if isinstance(beat, HeartbeatRequest)
    }
    assert beats[2].commit_index == 2
    assert beats[3].commit_index == 1


def told(leader: Node) -> list[tuple[int, int]]:
    """(member, commit index) of each message so far that only tells it."""
    messages = [message for ready in leader.readies for message in ready.messages]
    beats = [message for message in messages if isinstance(message, HeartbeatRequest)]
    return [(beat.target, beat.commit_index) for beat in beats if not beat.round]


def quiet_leader() -> tuple[Cluster, Node]:
    """One that has told what it committed, and tells nothing by itself from now on."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.stabilize()
    leader.tells_commits = False
    return cluster, leader


def test_a_commit_travels_with_the_next_append_or_heartbeat() -> None:
    """§5.3: followers learn the commit index from the next append or heartbeat; nothing is sent only for
    it.
    """
    cluster, leader = quiet_leader()
    before = told(leader)
    leader.propose(b"a")
    cluster.stabilize()
    assert (leader.core.commit_index, cluster[2].core.commit_index) == (2, 1)

    leader.propose(b"b")
    cluster.stabilize()
    assert (leader.core.commit_index, cluster[2].core.commit_index) == (3, 2)
    assert not leader.core.await_commit(2)

    cluster.tick(2)
    assert cluster[2].core.commit_index == cluster[3].core.commit_index == 3
    assert told(leader) == before


def test_a_commit_that_is_awaited_is_told_at_once_and_only_where_it_is() -> None:
    """§5.3: where a commit is awaited it is told with a message of its own, once, when it happens or at
    once if it has.
    """
    cluster, leader = quiet_leader()
    before = told(leader)

    leader.propose(b"a")
    assert not leader.core.await_commit(2, by=3)  # not yet
    cluster.stabilize()
    assert told(leader) == [*before, (3, 2)]
    assert (cluster[2].core.commit_index, cluster[3].core.commit_index) == (1, 2)

    assert leader.core.await_commit(2)
    cluster.stabilize()
    assert told(leader) == [*before, (3, 2), (2, 2)]
    assert not leader.core.await_commit(2)


def test_only_a_leader_tells_and_only_members() -> None:
    """§5.3: the commit index comes from the leader, and goes to members only."""
    cluster, leader = quiet_leader()
    leader.propose(b"a")
    cluster.stabilize()

    assert not cluster[2].core.await_commit(2)
    assert not leader.core.await_commit(2, by=9)


def progress_of(leader: Node, node_id: int) -> tuple[ProgressState, int, int]:
    follower = next(follower for follower in leader.core.status().followers if follower.node_id == node_id)
    return follower.state, follower.match_index, follower.next_index


def test_tiny_appends_wait_for_the_one_under_way() -> None:
    """Thesis 10.2.2: small entries gather behind the append that is under way, until there is enough of
    them or it is acknowledged.
    """
    cluster = Cluster(3, limits={"small_append_bytes": 200})
    leader = cluster.elect(1)
    for _ in range(4):
        leader.propose(b"tiny")
    assert len([a for a in sent(leader, AppendRequest) if a.target == 2]) == 1

    leader.propose(b"x" * 200)
    assert len([a for a in sent(leader, AppendRequest) if a.target == 2]) == 2

    leader.propose(b"tiny")
    leader.outgoing.clear()
    leader.step(accepted(2, 1, 1, leader.core.last_index - 1))
    assert [a.target for a in sent(leader, AppendRequest)] == [2], "the acknowledgement lets it go"


def test_appends_are_cut_at_the_limit_and_the_window_bounds_them() -> None:
    """Thesis 10.2.2: appends are pipelined, each of bounded size, and only so many before an
    acknowledgement.
    """
    limits = {"max_append_bytes": 150, "small_append_bytes": 1, "max_inflight_appends": 3}
    cluster = Cluster(3, limits=limits)
    leader = cluster.elect(1)

    leader.propose(*[b"x" * 100] * 9)

    appends = [a for a in sent(leader, AppendRequest) if isinstance(a, AppendRequest) and a.target == 2]
    assert [len(a.entries) for a in appends] == [1, 1, 1]
    cluster.stabilize()
    assert cluster[2].core.commit_index == 10


def test_a_lost_append_is_found_by_heartbeats_alone() -> None:
    """§5.3: a leader sends lost entries again until all followers have them, also if nothing new is
    proposed.
    """
    cluster = Cluster(3)
    leader = cluster.elect(1)
    leader.propose(b"a")
    leader.outgoing.clear()

    cluster.tick(6)

    assert cluster[2].core.commit_index == cluster[3].core.commit_index == 2


def test_a_lost_acknowledgement_costs_no_second_copy_of_the_entries() -> None:
    """§5.3: where only the acknowledgement was lost, an append without entries finds out what matches."""
    cluster = Cluster(2)
    leader = cluster.elect(1)
    leader.propose(b"a")
    cluster.drop(AppendResponse)
    cluster.stabilize()
    cluster.heal()
    resent: list[Entry] = []

    def watch(packet: Packet) -> bool:
        if isinstance(packet, AppendRequest):
            resent.extend(packet.entries)
        return False

    cluster.dropped = watch
    cluster.tick(6)

    assert leader.core.commit_index == 2
    assert resent == []


def test_a_probe_waits_for_its_answer_or_a_heartbeats() -> None:
    """Thesis 10.2.2: where a connection broke the leader stops pipelining: one append at a time, until
    one is acknowledged.
    """
    cluster = Cluster(3)
    leader = cluster.elect(1)
    leader.core.report_unreachable(2)
    leader.propose(b"a")
    assert [a.target for a in sent(leader, AppendRequest)] == [3]
    leader.outgoing.clear()

    leader.step(HeartbeatResponse(source=2, target=1, term=1, round=0))
    assert [a.target for a in sent(leader, AppendRequest)] == [2]
    leader.outgoing.clear()
    leader.propose(b"b")
    assert sent(leader, AppendRequest) == []
    assert progress_of(leader, 2) == (ProgressState.PROBE, 1, 2)

    leader.step(accepted(2, 1, 1, 2))
    assert progress_of(leader, 2) == (ProgressState.REPLICATE, 2, 4)


def test_old_rejections_move_nothing_below_what_matches() -> None:
    """§5.3: matchIndex only grows; a rejection that is older than an acknowledgement moves neither it nor
    nextIndex.
    """
    cluster = Cluster(3)
    leader = cluster.elect(1)
    leader.propose(b"a", b"b")
    cluster.stabilize()

    for prev_index in (0, 1, 3):
        leader.step(
            AppendResponse(
                source=2, target=1, term=1, accepted=False, prev_index=prev_index, hint=EntryId(0, 1)
            )
        )

    assert progress_of(leader, 2) == (ProgressState.REPLICATE, 3, 4)


def test_an_acknowledgement_beyond_the_log_is_dropped() -> None:
    """§5.3: nobody can have what the leader has not; such an acknowledgement commits nothing."""
    cluster = Cluster(3)
    leader = cluster.elect(1)

    leader.step(accepted(2, 1, 1, 99))

    assert leader.core.commit_index == 1


def test_too_many_uncommitted_bytes_are_refused_until_some_are_committed() -> None:
    """§5.3: a leader without a majority appends only up to a bound of bytes, and takes commands again
    after a commit.
    """
    cluster = Cluster(3, limits={"max_uncommitted_bytes": 1000})
    leader = cluster.elect(1)
    cluster.isolate(1)
    leader.propose(b"x" * 2000)  # one alone may be larger than the limit
    with pytest.raises(Overloaded):
        leader.propose(b"y")

    cluster.heal()
    leader.core.report_unreachable(2)
    cluster.tick(4)
    leader.propose(b"y")


def test_entries_that_left_memory_are_read_from_the_log_store() -> None:
    """§5.3: a follower may be behind by more than the leader holds in memory, and gets the entries from
    its stored log.
    """
    cluster = Cluster(3, limits={"window_entries": 4, "max_append_bytes": 200})
    leader = cluster.elect(1)
    cluster.isolate(3)
    for _ in range(30):
        leader.propose(b"x" * 20)
        cluster.stabilize()
    assert leader.core.entries(1, 2, 100) is None

    cluster.heal()
    cluster.tick(5)

    assert any(ready.log_reads for ready in leader.readies)
    assert cluster[3].state == leader.state


def reading(cluster: Cluster) -> Node:
    """A leader that has asked for older entries, which 3 needs, and waits for them."""
    leader = cluster.elect(1)
    cluster.isolate(3)
    for _ in range(30):
        leader.propose(b"x" * 20)
        cluster.stabilize()
    cluster.heal()
    leader.answers_reads = False
    while not leader.log_reads:
        cluster.tick()
    return leader


def small_windows() -> Cluster:
    return Cluster(3, limits={"window_entries": 4, "max_append_bytes": 200})


def answer(leader: Node, entries: Sequence[Entry]) -> None:
    leader.core.entries_loaded(leader.log_reads.pop(0).target, entries)
    leader.answers_reads = True


def test_older_entries_are_asked_for_once_while_they_are_read() -> None:
    """§5.3: while stored entries are read for a follower, they are not asked for again, and arrive in the
    end.
    """
    cluster = small_windows()
    leader = reading(cluster)

    leader.propose(b"y")
    cluster.tick(10)

    assert len(leader.log_reads) == 1
    answer(leader, leader.disk.read(leader.log_reads[0].start, leader.log_reads[0].end))
    cluster.stabilize()
    assert cluster[3].state == leader.state


@pytest.mark.parametrize("what", ["nothing", "others", "of another term"])
def test_older_entries_that_do_not_fit_any_more_are_not_sent(what: str) -> None:
    """§5.3: what a leader sends is of its own log as it stands when it sends.

    The log may have been compacted or replaced while they were read.
    """
    cluster = small_windows()
    leader = reading(cluster)
    start, end = leader.log_reads[0].start, leader.log_reads[0].end
    wrong = {
        "nothing": [],
        "others": leader.disk.read(start + 1, end),
        "of another term": entries_of([7] * (end - start), start),
    }[what]

    answer(leader, wrong)
    leader.run()
    appends = [one.entries for one in sent(leader, AppendRequest) if isinstance(one, AppendRequest)]
    assert not wrong or tuple(wrong) not in appends

    cluster.tick(10)
    assert cluster[3].state == leader.state


def test_what_was_compacted_while_older_entries_were_read_needs_a_snapshot() -> None:
    """§7: a follower gets a snapshot if what it needs was compacted while it was read from the log."""
    cluster = small_windows()
    leader = reading(cluster)
    start, end = leader.log_reads[0].start, leader.log_reads[0].end
    entries = leader.disk.read(start, end)
    leader.make_durable()
    leader.compact(end - 1)

    answer(leader, entries)
    cluster.tick(10)

    assert cluster[3].state == leader.state
    assert cluster[3].core.first_index > start


def test_entries_nobody_asked_for_are_not_sent() -> None:
    """§5.3: entries go to a follower because its nextIndex asks for them; others that are read go to
    nobody.
    """
    cluster = Cluster(3)
    leader = cluster.elect(1)
    before = len(sent(leader, AppendRequest))

    leader.core.entries_loaded(3, entries_of([1, 1], 1))
    leader.core.entries_loaded(99, entries_of([1, 1], 1))
    leader.run()

    assert len(sent(leader, AppendRequest)) == before


@pytest.mark.parametrize(
    "message",
    [
        append(1, 3, 1, EntryId(1, 1), entries_of([1, 1], 3)),
        append(1, 3, 1, EntryId(1, 1), [*entries_of([1], 2), *entries_of([1], 4)]),
        append(1, 3, 1, EntryId(1, 1), entries_of([1, 0], 2)),
        append(1, 3, 1, EntryId(1, 1), entries_of([2], 2)),
        append(1, 3, 1, EntryId(2, 1)),
        append(1, 3, 1, EntryId(1, 1), [Entry(EntryId(1, 2), EntryKind.MEMBERSHIP, b"none")]),
    ],
    ids=[
        "a gap before",
        "a gap within",
        "a term that falls",
        "a later term",
        "a later term before",
        "damaged",
    ],
)
def test_an_append_that_no_leader_sends_is_dropped(message: AppendRequest) -> None:
    """§5.3, log matching: entries with a gap, a term that falls or is beyond the leader's, or damage,
    come from no leader and are dropped unanswered.
    """
    cluster = Cluster(3)
    cluster.elect(1)
    node = cluster[3]
    last = node.core.last_index
    node.outgoing.clear()

    node.step(message)

    assert node.core.last_index == last
    assert not node.outgoing


def test_the_memory_window_keeps_what_is_not_committed() -> None:
    """§5.3: entries that are not committed must still be sent, so all stay in memory, beyond its usual
    window.
    """
    cluster = Cluster(3, limits={"window_entries": 4})
    leader = cluster.elect(1)
    cluster.isolate(1)

    for _ in range(40):
        leader.propose(b"x")

    assert leader.core.entries(2, 42, 1 << 20) is not None
