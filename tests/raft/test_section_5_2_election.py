"""§5.2: at most one leader in a term, and eventually one."""

import random

import pytest

from connect_kv.raft.core import RaftCore
from connect_kv.raft.messages import HeartbeatRequest, InstallSnapshot, VoteRequest, VoteResponse
from connect_kv.raft.types import ZERO, Entry, EntryId, EntryKind, Restored, Role, SnapshotMeta
from tests.raft.harness import Cluster, append, config_for, entries_of, membership_of, role_of, sent


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_a_cluster_elects_one_leader_by_itself(count: int) -> None:
    """§5.2: followers that hear from no leader elect one, and all learn which."""
    cluster = Cluster(count)

    cluster.tick(60)

    assert len(cluster.leaders) == 1
    assert {node.core.leader_id for node in cluster.nodes.values()} == set(cluster.leaders)


@pytest.mark.parametrize("count", [3, 4, 5])
def test_a_minority_elects_nobody(count: int) -> None:
    """§5.2: a candidate needs the votes of a majority of the whole cluster, not of those that are
    reachable.
    """
    cluster = Cluster(count)
    for node_id in range(count // 2 + 1, count + 1):
        cluster[node_id].crash()
        cluster.nodes[node_id].alive = False
    if count % 2:
        cluster[count // 2].crash()

    cluster.tick(100)

    assert cluster.leaders == []


def test_timeouts_differ_and_stay_in_their_range() -> None:
    """§5.2: election timeouts are random in [election, 2 * election) ticks, so that votes rarely split."""
    seen = set()
    for seed in range(200):
        membership = Restored(memberships=((0, membership_of([1, 2, 3])),))
        core = RaftCore(config_for(1), membership, random.Random(seed))
        seen.add(ticks_to_campaign(core))
    assert seen == set(range(10, 20))


def ticks_to_campaign(core: RaftCore) -> int:
    ticks = 0
    while core.role is Role.FOLLOWER:
        core.tick()
        ticks += 1
    return ticks


def test_a_new_process_asks_for_votes_soon() -> None:
    """§5.2, left on purpose: a first timeout may be shorter.

    After a restart of all nobody waits for a leader that may still be alive: the others would say so.
    """
    seen = set()
    for seed in range(200):
        membership = Restored(memberships=((0, membership_of([1, 2, 3])),))
        core = RaftCore(config_for(1, first_election_ticks=3), membership, random.Random(seed))
        seen.add(ticks_to_campaign(core))
    assert seen == set(range(3, 13))


@pytest.mark.parametrize("seed", range(20))
def test_once_it_knows_a_leader_or_has_voted_it_waits_like_any_other(seed: int) -> None:
    """§5.2: a heartbeat, or a vote given, starts a whole election timeout, also where the first is shorter.

    Otherwise a vote that is split would be split again and again, and a leader deposed by a pause.
    """
    membership = Restored(memberships=((0, membership_of([1, 2, 3])),))
    for message in (
        HeartbeatRequest(source=2, target=1, term=1, commit_index=0, round=1),
        VoteRequest(source=2, target=1, term=1, last=ZERO),
    ):
        core = RaftCore(config_for(1, first_election_ticks=3), membership, random.Random(seed))
        core.step(message)
        assert ticks_to_campaign(core) >= 10


def test_a_leader_announces_itself_with_an_entry_of_its_term() -> None:
    """§5.2, §8: a new leader makes itself known at once, and commits a no-op entry of its own term."""
    cluster = Cluster(3)

    cluster.elect(1)

    assert cluster[1].log == [Entry(EntryId(1, 1), EntryKind.NOOP)]
    assert cluster[2].core.leader_id == 1
    assert cluster[2].core.commit_index == 1


def test_heartbeats_keep_followers_quiet() -> None:
    """§5.2: followers that get heartbeats begin no election, so that leader and term stay."""
    cluster = Cluster(3)
    cluster.elect(1)

    cluster.tick(500)

    assert cluster.leaders == [1]
    assert cluster[1].core.term == 1


def test_a_node_votes_once_in_a_term_and_repeats_itself() -> None:
    """§5.2: one vote a term, first come first served; who has it is told so again when asking again."""
    node = Cluster(3)[1]
    for source, granted in ((2, True), (3, False), (2, True)):
        node.step(VoteRequest(source=source, target=1, term=1, last=ZERO))
        (answer,) = sent(node, VoteResponse)
        assert isinstance(answer, VoteResponse)
        assert answer.granted is granted
        node.outgoing.clear()


def test_a_candidate_counts_its_own_vote_only_once_it_is_on_disk() -> None:
    """§5.2, Figure 2: a candidate votes for itself, and that vote too counts only once it is on stable
    storage.
    """
    node = Cluster(3)[1]
    node.slow_disk = True
    node.core.campaign()
    node.step(VoteResponse(source=2, target=1, term=1, granted=True, pre_vote=True))
    assert role_of(node) is Role.CANDIDATE
    assert not sent(node, VoteRequest)[2:], "the real request waits for the disk"

    node.step(VoteResponse(source=2, target=1, term=1, granted=True))
    assert role_of(node) is Role.CANDIDATE

    node.persist()
    assert role_of(node) is Role.LEADER


def test_the_same_vote_twice_is_one_vote() -> None:
    """§5.2: a majority is one of servers, not of messages: a vote that arrives three times is one vote."""
    node = Cluster(5)[1]
    node.core.campaign()
    for source in (2, 3):
        node.step(VoteResponse(source=source, target=1, term=1, granted=True, pre_vote=True))
    for _ in range(3):
        node.step(VoteResponse(source=2, target=1, term=1, granted=True))
    assert role_of(node) is Role.CANDIDATE


def test_votes_of_strangers_and_of_earlier_campaigns_do_not_count() -> None:
    """§5.2: only votes of members, for the term that is asked for, make a majority."""
    node = Cluster(3)[1]
    node.core.campaign()
    node.step(VoteResponse(source=9, target=1, term=1, granted=True, pre_vote=True))
    node.step(VoteResponse(source=2, target=1, term=3, granted=True, pre_vote=True))
    assert role_of(node) is Role.PRE_CANDIDATE
    assert node.core.term == 0


def test_a_candidate_follows_a_leader_of_its_term() -> None:
    """§5.2: a candidate that hears from a leader of its own term becomes its follower."""
    node = Cluster(3)[1]
    node.core.campaign()
    node.step(VoteResponse(source=2, target=1, term=1, granted=True, pre_vote=True))

    node.step(append(3, 1, 1, ZERO))

    assert role_of(node) is Role.FOLLOWER
    assert node.core.leader_id == 3


def test_a_second_leader_in_a_term_is_not_believed() -> None:
    """§5.2, election safety: a term has one leader; a heartbeat of another one in it does not change whom
    a follower follows.
    """
    node = Cluster(3)[1]
    node.step(append(2, 1, 1, ZERO))

    node.step(HeartbeatRequest(source=3, target=1, term=1, commit_index=0, round=1))

    assert node.core.leader_id == 2


def test_who_may_not_vote_grants_nothing_and_does_not_campaign() -> None:
    """§5.2: a vote is a promise that the disk must keep, so who may not vote grants none, nor campaigns.

    The gate for a disk that may have forgotten its promises.
    """
    node = Cluster(3)[1]
    node.core.set_eligible(vote=False, campaign=False)

    node.step(VoteRequest(source=2, target=1, term=1, last=ZERO))
    (answer,) = sent(node, VoteResponse)
    assert isinstance(answer, VoteResponse)
    assert not answer.granted
    node.tick(50)
    assert role_of(node) is Role.FOLLOWER

    node.core.set_eligible(vote=True, campaign=True)
    node.tick(50)
    assert role_of(node) is Role.PRE_CANDIDATE


def test_check_quorum_a_leader_that_reaches_nobody_steps_down() -> None:
    """Thesis 6.2: a leader that has not reached a majority for an election timeout steps down.

    Its clients must look elsewhere within an election timeout or two.
    """
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.isolate(1)

    cluster.tick(20)

    assert role_of(leader) is not Role.LEADER


def test_a_leader_with_half_of_its_followers_stays() -> None:
    """Thesis 6.2: a leader that still reaches a majority, itself included, stays one, in its term."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.isolate(3)

    cluster.tick(100)

    assert role_of(leader) is Role.LEADER
    assert leader.core.term == 1


def test_a_term_has_one_leader_and_others_that_claim_it_are_not_heard() -> None:
    """§5.2, election safety: heartbeat, append and snapshot of a second leader in a term are dropped
    without an answer.
    """
    cluster = Cluster(3)
    cluster.elect(1)
    node = cluster[3]
    node.outgoing.clear()
    meta = SnapshotMeta(EntryId(1, 50), membership_of([1, 2, 3]))

    node.step(HeartbeatRequest(source=2, target=3, term=1, commit_index=1, round=7))
    node.step(InstallSnapshot(source=2, target=3, term=1, meta=meta))
    node.step(append(2, 3, 1, EntryId(1, 1), entries_of([1], 2)))

    assert not node.outgoing
    assert (node.core.leader_id, node.core.last_index) == (1, 1)


@pytest.mark.parametrize("after", [0, 1])
def test_a_candidate_whose_disk_gets_sick_stops_campaigning(after: int) -> None:
    """§5.2: who may no longer campaign returns to being a follower and begins no election.

    Before its campaign is decided, and in the pre-vote as well.
    """
    cluster = Cluster(3)
    node = cluster[1]
    node.slow_disk = bool(after)
    node.core.campaign()
    node.run()
    if after:
        node.step(VoteResponse(source=2, target=1, term=1, granted=True, pre_vote=True))
    assert role_of(node) in (Role.PRE_CANDIDATE, Role.CANDIDATE)

    node.core.set_eligible(vote=True, campaign=False)

    assert role_of(node) is Role.FOLLOWER
    node.tick(40)
    assert role_of(node) is Role.FOLLOWER
