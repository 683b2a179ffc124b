"""Thesis 4: changes of membership, one member at a time or through joint consensus."""

from dataclasses import replace

import pytest

from connect_kv.errors import MembershipRefused
from connect_kv.raft.errors import RaftInvariantError
from connect_kv.raft.membership import MembershipChange, MembershipHistory, changed, check_invariants
from connect_kv.raft.messages import AppendResponse
from connect_kv.raft.types import Entry, EntryId, EntryKind, Membership, Role
from tests.raft.harness import (
    Cluster,
    Node,
    Packet,
    append,
    entries_of,
    header,
    member,
    membership_of,
    role_of,
)


def ends(packet: Packet) -> tuple[int, int]:
    return header(packet).source, header(packet).target


def change(node: Node, wanted: MembershipChange) -> EntryId:
    id = node.core.propose_membership(wanted)
    node.run()
    return id


def test_a_change_rules_from_the_moment_it_is_appended() -> None:
    """Thesis 4.1: a server goes by the latest membership in its log, committed or not."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.add(4)

    id = change(leader, MembershipChange().add_voter(member(4)))

    assert leader.core.membership.voters == {1, 2, 3, 4}
    assert leader.core.membership_index == id.index > leader.core.commit_index
    cluster.stabilize()
    assert cluster[4].core.membership.voters == {1, 2, 3, 4}
    assert leader.core.commit_index == id.index


def test_a_change_that_is_truncated_rules_no_more() -> None:
    """Thesis 4.1: a server whose log loses a membership entry falls back to the one before it."""
    node = Cluster(3)[1]
    four = Entry(EntryId(1, 2), EntryKind.MEMBERSHIP, membership_of([1, 2, 3, 4]).encode())
    node.step(append(2, 1, 1, EntryId(0, 0), [*entries_of([1]), four]))
    assert node.core.membership.voters == {1, 2, 3, 4}

    node.step(append(3, 1, 2, EntryId(1, 1), entries_of([2], 2)))

    assert node.core.membership.voters == {1, 2, 3}


def test_one_change_at_a_time_and_none_before_the_leader_has_committed() -> None:
    """Thesis 4.1: a change waits until the one before it is committed, and until the leader has committed
    an entry of its own term.
    """
    cluster = Cluster(3)
    leader = cluster[1]
    cluster.drop(AppendResponse)
    cluster.elect(1)
    with pytest.raises(MembershipRefused, match="the leader is new"):
        change(leader, MembershipChange().remove(3))

    cluster.heal()
    cluster.tick(4)
    change(leader, MembershipChange().remove(3))
    with pytest.raises(MembershipRefused, match="under way"):
        change(leader, MembershipChange().remove(2))


def test_a_learner_gets_the_log_and_does_not_count() -> None:
    """Thesis 4.2.1: a learner gets the log, but neither commits entries by its copy nor campaigns."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.add(4)
    change(leader, MembershipChange().add_learner(member(4)))
    cluster.stabilize()
    assert cluster[4].state == leader.state

    cluster.isolate(2, 3)
    leader.propose(b"a")
    cluster.stabilize()
    assert cluster[4].core.last_index > leader.core.commit_index
    cluster[4].tick(100)
    assert role_of(cluster[4]) is Role.FOLLOWER


def test_a_learner_is_promoted() -> None:
    """Thesis 4.2.1: a learner that has caught up becomes a voter by a further change."""
    cluster = Cluster(1)
    leader = cluster.elect(1)
    cluster.add(2)
    change(leader, MembershipChange().add_learner(member(2)))
    cluster.stabilize()

    change(leader, MembershipChange().promote(2))
    cluster.stabilize()

    assert cluster[2].core.membership == membership_of([1, 2])
    assert leader.core.commit_index == leader.core.last_index


def test_several_at_once_go_through_joint_consensus_which_ends_by_itself() -> None:
    """§6, thesis 4.3: several changes at once pass through a joint membership, which the leader ends as
    soon as it is committed.
    """
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.add(4)
    cluster.add(5)

    change(leader, MembershipChange().add_voter(member(4)).add_voter(member(5)).remove(2).remove(3))
    assert leader.core.membership.joint
    cluster.stabilize()

    assert leader.core.membership.voters == {1, 4, 5}
    assert not leader.core.membership.joint
    assert leader.core.membership.removed == {2, 3}
    assert cluster[5].state == leader.state


@pytest.mark.parametrize("cut_off", [(2, 3), (4, 5)])
def test_joint_consensus_needs_both_majorities(cut_off: tuple[int, int]) -> None:
    """§6, thesis 4.3: in a joint membership nothing is committed without a majority of the old and one of
    the new voters.
    """
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.add(4)
    cluster.add(5)
    cluster.isolate(*cut_off)

    id = change(leader, MembershipChange().add_voter(member(4)).add_voter(member(5)).remove(2).remove(3))
    cluster.stabilize()

    assert leader.core.commit_index < id.index


def test_a_new_leader_ends_the_joint_phase_it_finds() -> None:
    """§6, thesis 4.3: whoever leads after a crash in the joint phase brings it to its end."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.add(4)
    wanted = MembershipChange().add_voter(member(4)).remove(1).remove(3)
    change(leader, wanted)
    cluster.collect()
    for packet in cluster.packets:
        cluster.deliver(packet)
    leader.crash()
    cluster.packets.clear()

    cluster.tick(80)

    (new,) = cluster.leaders
    assert not cluster[new].core.membership.joint


def test_a_leader_that_removes_itself_steps_down_once_that_is_committed() -> None:
    """Thesis 4.2.2: a leader that is removed leads until that is committed, then steps down, and never
    campaigns again.
    """
    cluster = Cluster(3)
    leader = cluster.elect(1)

    change(leader, MembershipChange().remove(1))
    assert role_of(leader) is Role.LEADER
    cluster.stabilize()

    assert role_of(leader) is Role.FOLLOWER
    assert len(cluster.leaders) == 1, "its successor needs no timeout"
    cluster.tick(100)
    assert role_of(leader) is Role.FOLLOWER


def test_who_is_left_out_by_an_uncommitted_change_may_still_be_needed_to_lead() -> None:
    """Thesis 4.2.2: a server may have to lead although the latest membership in its own log leaves it out.

    Only 2 and 3 have the end of the joint phase, which makes them learners; 1 cannot win without them.
    """
    cluster = Cluster(3)
    leader = cluster.elect(2)
    change(leader, MembershipChange().demote(2).demote(3))
    cluster.collect()
    packets, cluster.packets = cluster.packets, []
    for packet in packets:
        cluster.deliver(packet)
    cluster.collect()
    cluster.cut((2, 1), (3, 1))
    cluster.stabilize()
    assert leader.core.membership.voters == {1}
    assert cluster[1].core.membership.joint
    leader.crash()
    cluster.packets.clear()
    cluster.heal()
    leader.start()

    cluster.tick(100)

    assert cluster.leaders == [1]
    assert cluster[1].core.membership.learners == {2, 3}


def test_a_removed_member_does_not_disturb_the_others() -> None:
    """Thesis 4.2.3: a removed server that hears of nothing any more deposes nobody and raises no term."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.isolate(3)
    change(leader, MembershipChange().remove(3))
    cluster.stabilize()
    cluster.heal()

    cluster.tick(200)

    assert cluster.leaders == [1]
    assert leader.core.term == 1


def test_a_single_voter_commits_by_itself_and_grows() -> None:
    """§5.3, thesis 4.1: a lone voter is its own majority, and grows by a change of members."""
    cluster = Cluster(1)
    cluster.tick(30)
    cluster[1].propose(b"a")
    assert cluster[1].core.commit_index == 2
    cluster.add(2)

    change(cluster[1], MembershipChange().add_voter(member(2)))
    cluster.stabilize()

    assert cluster[2].state == cluster[1].state


def test_a_lone_voter_adds_one_that_has_not_started_and_then_needs_it() -> None:
    """Thesis 4.1, left on purpose: an added voter counts only once its addition is committed.

    By the new majority alone the change itself would wait for a process nobody can start yet.
    """
    cluster = Cluster(1)
    leader = cluster.elect(1)
    id = change(leader, MembershipChange().add_voter(member(2)))
    assert leader.core.commit_index == id.index

    leader.propose(b"a")
    assert leader.core.commit_index == id.index
    cluster.add(2)
    cluster.stabilize()

    assert leader.core.commit_index == id.index + 1
    assert cluster[2].state == leader.state


def test_after_a_restart_a_lone_voter_needs_the_one_it_added() -> None:
    """Thesis 4.1: elections go by the latest membership in the log, also that of a voter that was alone.

    What it committed since may rest on the other, whose vote must be asked.
    """
    cluster = Cluster(1)
    leader = cluster.elect(1)
    change(leader, MembershipChange().add_voter(member(2)))
    leader.crash()
    leader.start()
    cluster.tick(100)
    assert not cluster.leaders

    cluster.add(2)
    cluster.tick(100)

    assert cluster.leaders == [1]
    assert cluster[2].state == leader.state


@pytest.mark.parametrize(("away", "goes_on"), [((3, 4), False), ((3,), True)])
def test_an_addition_is_committed_by_the_majority_before_it_and_what_follows_by_its_own(
    away: tuple[int, ...], goes_on: bool
) -> None:
    """Thesis 4.1, left on purpose: an addition is committed by a majority of the members before it, all
    later entries by one of the members after it.
    """
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.add(4)
    cluster.isolate(*away)

    id = change(leader, MembershipChange().add_voter(member(4)))
    cluster.stabilize()
    assert leader.core.commit_index == id.index

    leader.propose(b"a")
    cluster.stabilize()
    assert leader.core.commit_index == id.index + goes_on


def test_an_addition_that_a_new_leader_finds_counts_at_once() -> None:
    """Thesis 4.1: an added voter counts from the entry on, unless the leader itself appended it.

    Only who appended it knows that nothing was added after it.

    1 added 4, committed that with 3, which 2 does not know, and then added 5, of which only 1 and 5 know.
    If 2 could commit by a majority of three, 1, 4 and 5 could still elect 5, which would truncate that.
    """
    cluster = Cluster(3)
    cluster.add(4)
    four = Entry(EntryId(1, 2), EntryKind.MEMBERSHIP, membership_of([1, 2, 3, 4]).encode())
    cluster[2].step(append(1, 2, 1, EntryId(0, 0), [*entries_of([1]), four], commit_index=1))
    cluster.isolate(1)
    cluster[2].tick(20)
    cluster.drop(AppendResponse)
    cluster.elect(2)

    cluster.dropped = lambda packet: 1 in ends(packet) or ends(packet) == (4, 2)
    cluster.tick(4)
    assert cluster[3].core.last_index == cluster[2].core.last_index == 3
    assert cluster[2].core.commit_index == 1

    cluster.isolate(1)
    cluster.tick(4)
    assert cluster[2].core.commit_index == 3


def test_a_removal_needs_the_majority_that_stays() -> None:
    """Thesis 4.1: a removal is committed by a majority of the members that stay.

    Otherwise what is committed along with it could be on one disk that stays, and one that goes.
    """
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.isolate(2)

    id = change(leader, MembershipChange().remove(3))
    cluster.stabilize()
    assert leader.core.commit_index < id.index

    cluster.heal()
    cluster.tick(4)
    assert leader.core.commit_index == id.index


@pytest.mark.parametrize(
    "wanted",
    [
        MembershipChange(),
        MembershipChange().add_voter(member(2)),
        MembershipChange().add_learner(member(0)),
        MembershipChange().promote(2),
        MembershipChange().promote(9),
        MembershipChange().demote(4),
        MembershipChange().remove(9),
        MembershipChange().remove(1).remove(2).remove(3),
        MembershipChange().update(member(9)),
        MembershipChange().remove(3).add_voter(member(3)),
    ],
)
def test_changes_that_make_no_sense_are_refused(wanted: MembershipChange) -> None:
    """Thesis 4.1: a change that changes nothing, names no member, contradicts itself or leaves no voter
    is refused.
    """
    cluster = Cluster(4, membership=membership_of([1, 2, 3], [4]))
    leader = cluster.elect(1)

    with pytest.raises(MembershipRefused):
        change(leader, wanted)


def test_an_address_belongs_to_one_member() -> None:
    """Thesis 4.1: a majority is one of processes, so no two members have one address.

    Otherwise one process would be counted as two.
    """
    taken = replace(member(4), peer_address=member(2).peer_address)
    for wanted in (
        MembershipChange().add_voter(taken),
        MembershipChange().add_learner(taken),
        MembershipChange().update(replace(member(3), peer_address=member(2).peer_address)),
    ):
        with pytest.raises(MembershipRefused, match="is the address of member 2"):
            changed(membership_of([1, 2, 3]), wanted)


def test_no_change_is_made_to_a_joint_membership() -> None:
    """§6, thesis 4.3: a joint membership is left before another change is made."""
    two = MembershipChange().add_voter(member(4)).add_voter(member(5))
    joint = changed(membership_of([1, 2, 3]), two)
    assert joint.joint

    with pytest.raises(MembershipRefused, match="still under way"):
        changed(joint, MembershipChange().remove(1))


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        (replace(membership_of([1, 2]), members=(member(1),)), "members are exactly those named"),
        (replace(membership_of([1]), voters=frozenset(), learners=frozenset([1])), "there is a voter"),
        (replace(membership_of([1, 2]), learners=frozenset([2])), "a learner is not a voter"),
        (
            replace(membership_of([1, 2]), learners_next=frozenset([2])),
            "only outgoing voters become learners",
        ),
        (
            replace(membership_of([1]), voters_outgoing=frozenset([1]), learners_next=frozenset([1])),
            "does not stay a voter",
        ),
        (replace(membership_of([1, 2]), removed=frozenset([2])), "a removed member is gone"),
        (replace(membership_of([1]), voters_outgoing=frozenset([1])), "ends by itself"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_parts_of_a_membership_fit_together(wrong: Membership, rule: str) -> None:
    """§6, thesis 4.3: a membership has a voter, and who is voter, learner, outgoing or removed
    contradicts none of the others.
    """
    check_invariants(membership_of([1, 2], [3]))
    with pytest.raises(RaftInvariantError, match=rule):
        check_invariants(wrong)


def test_the_membership_at_each_index_is_known_from_the_start_of_the_log() -> None:
    """Thesis 4.1, §7: each index has the membership of the last change at or before it, from the first
    one that is kept.
    """
    history = MembershipHistory(((5, membership_of([1])), (9, membership_of([1, 2]))))
    assert history.at(8) == membership_of([1])
    with pytest.raises(RaftInvariantError, match="nothing is known at index 4"):
        history.at(4)
    with pytest.raises(RaftInvariantError, match="at its start"):
        MembershipHistory(())
