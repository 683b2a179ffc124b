"""Members come and go while the cluster runs (thesis 4)."""

import asyncio
from dataclasses import replace

import pytest

from connect_kv.errors import MemberRemoved, NodeStopped, NotLeader, RefusedToStart, Unavailable
from connect_kv.interfaces import Identity
from connect_kv.node.membership import AddressBook, PeerVersions, added_id, has_majority, verify_hello
from connect_kv.peer_protocol import Hello, HelloVerdict
from connect_kv.raft.membership import MembershipChange
from connect_kv.raft.types import Member, Membership
from tests.node.cluster import Trio, eventually, put


async def test_a_member_is_added_as_a_learner_and_promoted(trio: Trio) -> None:
    leader = await trio.start()
    await put(leader, 1)
    fourth = trio.host("n4")
    node_id = await trio.add_learner(leader, fourth)
    await fourth.join(*trio.followers(leader))
    await trio.same_state([1])
    membership = await leader.node.change_membership(MembershipChange().promote(node_id))
    assert node_id in membership.voters
    await eventually(lambda: fourth.node.status().confirmed)
    assert await put(fourth, 2) == [2]
    await trio.same_state([1, 2])


async def test_a_new_member_behind_a_compacted_log_starts_from_a_snapshot(trio: Trio) -> None:
    leader = await trio.start(keep_entries=10, durable_seconds=0.5)
    for number in range(60):
        await put(leader, number)
    await eventually(lambda: leader.log.first_index > 20)
    fourth = trio.host("n4")
    await trio.add_learner(leader, fourth)
    await fourth.join(leader)
    await trio.same_state(range(60))
    assert fourth.metrics.snapshots_installed == 1
    await fourth.kill()
    await fourth.start()
    await trio.same_state(range(60))


async def test_a_member_nobody_added_may_not_join(trio: Trio) -> None:
    leader = await trio.start()
    with pytest.raises(RefusedToStart, match="add it there first"):
        await trio.host("n4").join(leader)


async def test_a_member_whose_adding_is_not_committed_may_not_join_yet(trio: Trio) -> None:
    leader = await trio.start()
    fourth = trio.host("n4")
    trio.network.partition(
        [leader.address, fourth.address], [host.address for host in trio.followers(leader)]
    )
    adding = asyncio.ensure_future(trio.add_learner(leader, fourth))
    await asyncio.sleep(0.1)
    with pytest.raises(RefusedToStart, match="add it there first"):
        await fourth.join(leader)
    trio.network.heal()
    await adding


async def test_a_voter_may_join_while_its_adding_cannot_be_committed_without_it(trio: Trio) -> None:
    leader = await trio.start()
    removed, dead = trio.followers(leader)
    await leader.node.change_membership(MembershipChange().remove(removed.id))
    await dead.kill()
    fourth = trio.host("n4")
    member = Member(node_id=0, name=fourth.name, peer_address=fourth.address)
    adding = asyncio.ensure_future(leader.node.change_membership(MembershipChange().add_voter(member)))
    await asyncio.sleep(0.1)
    await fourth.join(leader)
    await eventually(lambda: fourth.id in leader.node.membership.voters)
    await asyncio.gather(adding, return_exceptions=True)


async def test_a_voter_whose_log_is_yet_to_come_helps_to_elect_who_sends_it(trio: Trio) -> None:
    """Thesis 4.1: a server votes whatever its log holds. Two of four voters would elect nobody for ever."""
    leader = await trio.start()
    dead, other = trio.followers(leader)
    await dead.kill()
    fourth = trio.host("n4")
    member = Member(node_id=0, name=fourth.name, peer_address=fourth.address)
    adding = asyncio.ensure_future(leader.node.change_membership(MembershipChange().add_voter(member)))
    await eventually(lambda: leader.node.leader_id is None and other.node.leader_id is None)
    await fourth.join(leader)
    await trio.agreed([leader, other, fourth])
    await asyncio.gather(adding, return_exceptions=True)


async def test_a_member_restarted_before_its_log_came_asks_again_who_the_others_are(trio: Trio) -> None:
    leader = await trio.start()
    dead, other = trio.followers(leader)
    fourth = trio.host("n4")
    trio.network.partition([leader.address], [fourth.address])
    await trio.add_learner(leader, fourth)
    await fourth.join(other)
    await fourth.kill()
    await dead.kill()
    change = MembershipChange().promote(fourth.id)
    promoting = asyncio.ensure_future(leader.node.change_membership(change))
    await eventually(lambda: leader.node.leader_id is None and other.node.leader_id is None)
    trio.network.heal()
    await fourth.join(leader)
    await trio.agreed([leader, other, fourth])
    await asyncio.gather(promoting, return_exceptions=True)


async def test_a_removed_follower_ends_with_member_removed(trio: Trio) -> None:
    leader = await trio.start()
    follower = trio.followers(leader)[0]
    membership = await leader.node.change_membership(MembershipChange().remove(follower.id))
    assert follower.id in membership.removed
    assert isinstance(await follower.node.failed, MemberRemoved)
    with pytest.raises(NodeStopped):
        await put(follower, 1)
    assert await put(leader, 1) == [1]


async def test_a_removed_leader_answers_and_ends_and_the_others_go_on(trio: Trio) -> None:
    leader = await trio.start()
    await put(leader, 1)
    await leader.node.change_membership(MembershipChange().remove(leader.id))
    assert isinstance(await leader.node.failed, MemberRemoved)
    others = trio.followers(leader)
    await trio.agreed(others)
    assert await put(others[0], 2) == [2]


async def test_a_member_removed_while_it_was_down_learns_it_at_its_return(trio: Trio) -> None:
    leader = await trio.start()
    follower = trio.followers(leader)[0]
    await follower.kill()
    await leader.node.change_membership(MembershipChange().remove(follower.id))
    await follower.start()
    assert isinstance(await follower.node.failed, MemberRemoved)


async def test_replacing_a_member_in_one_step_returns_after_the_joint_phase(trio: Trio) -> None:
    leader = await trio.start()
    old = trio.followers(leader)[0]
    fourth = trio.host("n4")
    node_id = await trio.add_learner(leader, fourth)
    await fourth.join(leader)
    change = MembershipChange().promote(node_id).remove(old.id)
    membership = await leader.node.change_membership(change)
    assert not membership.joint
    assert membership.voters == {
        leader.id,
        node_id,
        next(h.id for h in trio.hosts[:3] if h not in (leader, old)),
    }


async def test_a_follower_does_not_change_the_membership(trio: Trio) -> None:
    leader = await trio.start()
    follower = trio.followers(leader)[0]
    with pytest.raises(NotLeader) as raised:
        await follower.node.change_membership(MembershipChange().remove(leader.id))
    assert raised.value.leader_id == leader.id


async def test_a_lagging_member_follows_a_leader_it_has_never_heard_of(trio: Trio) -> None:
    """While it was down, one was added that now leads; the others say where it is."""
    leader = await trio.start()
    lagging = trio.followers(leader)[0]
    await lagging.kill()
    fourth = trio.host("n4")
    node_id = await trio.add_learner(leader, fourth)
    await fourth.join(leader)
    await leader.node.change_membership(MembershipChange().promote(node_id))
    await eventually(lambda: fourth.node.status().confirmed)
    await leader.node.transfer_leadership(node_id)
    await put(fourth, 1)
    await lagging.start()
    await trio.same_state([1])


async def test_all_members_highest_command_is_known_once_all_were_heard(trio: Trio) -> None:
    await trio.hosts[0].start()
    assert trio.hosts[0].node.common_highest_command == 0
    await trio.hosts[1].start(highest_command=40)
    await trio.hosts[2].start()
    await eventually(lambda: trio.hosts[0].node.common_highest_command == 40)


async def test_leadership_is_handed_to_the_member_asked_for(trio: Trio) -> None:
    leader = await trio.start()
    successor = trio.followers(leader)[1]
    await leader.node.transfer_leadership(successor.id)
    assert leader.node.leader_id == successor.id
    with pytest.raises(NotLeader):
        await leader.node.transfer_leadership(leader.id)
    results = await asyncio.gather(*(put(host, 1) for host in trio.hosts))
    assert sorted(result for (result,) in results) == [1, 2, 3]


IDENTITY = Identity(cluster_id=7, node_id=1, name="n1", directory_id=b"d1")
HELLO = Hello(
    cluster_id=7,
    source=2,
    target=1,
    directory_id=b"d2",
    protocol=1,
    oldest_protocol=1,
    highest_command=9,
)


@pytest.mark.parametrize(
    ("hello", "removed", "noted", "verdict"),
    [
        (HELLO, (), None, HelloVerdict.WELCOME),
        (HELLO, (), b"d2", HelloVerdict.WELCOME),
        (HELLO, (), b"other", HelloVerdict.AMNESIA),
        (HELLO, (2,), b"other", HelloVerdict.REMOVED),
        (replace(HELLO, cluster_id=8), (), None, HelloVerdict.WRONG_CLUSTER),
        (replace(HELLO, target=3), (), None, HelloVerdict.WRONG_MEMBER),
        (replace(HELLO, protocol=0), (), None, HelloVerdict.INCOMPATIBLE),
        (replace(HELLO, protocol=3, oldest_protocol=2), (), None, HelloVerdict.INCOMPATIBLE),
    ],
)
def test_a_hello_is_judged(
    hello: Hello, removed: tuple[int, ...], noted: bytes | None, verdict: HelloVerdict
) -> None:
    assert verify_hello(hello, IDENTITY, removed, noted) is verdict


def test_added_ids_differ_by_cluster_index_and_position() -> None:
    ids = {added_id(c, i, p) for c in (1, 2) for i in (5, 6) for p in (0, 1)}
    assert len(ids) == 8
    assert all(0 < id < 1 << 64 for id in ids)


def test_a_majority_is_of_both_sets_in_joint_consensus() -> None:
    joint = Membership(voters=frozenset({1, 2, 3}), voters_outgoing=frozenset({3, 4, 5}))
    assert has_majority(joint, {2, 3, 4})
    assert not has_majority(joint, {1, 2, 3})
    assert not has_majority(Membership(), {1})


def member(node_id: int, address: str) -> Member:
    return Member(node_id=node_id, name=f"n{node_id}", peer_address=address)


def test_the_address_book_prefers_what_is_in_force_and_forgets_the_removed() -> None:
    book = AddressBook(1)
    book.hear(Membership(members=(member(2, "old:1"), member(4, "d:1")), voters=frozenset({2, 4})))
    in_force = Membership(members=(member(1, "a:1"), member(2, "b:1")), voters=frozenset({1, 2}))
    assert book.update(in_force, Membership())
    assert book.addresses == {2: "b:1", 4: "d:1"}
    assert not book.update(in_force, in_force)
    assert book.update(replace(in_force, removed=frozenset({4})), in_force)
    assert book.addresses == {2: "b:1"}


def test_nobody_may_use_a_command_before_all_members_were_heard() -> None:
    versions = PeerVersions(1, 49)
    both = Membership(members=(member(1, "a:1"), member(2, "b:1")), voters=frozenset({1, 2}))
    assert versions.common(both) == 0
    versions.note(2, HELLO)
    assert versions.common(both) == 9


async def test_leadership_that_nobody_takes_stays(trio: Trio) -> None:
    leader = await trio.start()
    await leader.node.transfer_leadership(leader.id)
    away = trio.followers(leader)[0]
    trio.network.isolate(away.address)
    with pytest.raises(Unavailable, match="did not take over"):
        await leader.node.transfer_leadership(away.id)
    assert leader.node.is_leader
    assert await put(leader, 1) == [1]
