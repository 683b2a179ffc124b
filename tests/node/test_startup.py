"""Whose directory it is, and whether it may be used (DESIGN: amnesia is refused)."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from connect_kv.errors import MemberRemoved, RefusedToStart
from connect_kv.interfaces import Identity
from connect_kv.node.snapshots import SnapshotRefused
from connect_kv.node.startup import bootstrap, initial_cluster, join, restarted, start_from
from connect_kv.node.workers import InlineWorker
from connect_kv.peer_protocol import Description, Hello, HelloReply, HelloVerdict, SnapshotOffer
from connect_kv.raft.membership import MembershipChange
from connect_kv.raft.types import EntryId, Member, Membership, Restored, SnapshotMeta
from connect_kv.storage.log_store import EngineLogStore
from connect_kv.storage.memory import MemoryDisk
from tests.node.cluster import Trio, eventually, put

MEMBERS = [Member(node_id=0, name=f"n{i}", peer_address=f"h{i}:2380") for i in (1, 2, 3)]


async def test_a_wiped_directory_is_refused(trio: Trio) -> None:
    leader = await trio.start()
    await put(leader, 1)
    wiped = trio.followers(leader)[0]
    await wiped.kill()
    wiped.wipe()
    await wiped.start()
    error = await wiped.node.failed
    assert isinstance(error, RefusedToStart)
    assert "remove it from the cluster" in str(error)
    assert not wiped.node.status().confirmed


async def test_a_wiped_member_may_not_join_again_under_its_old_address(trio: Trio) -> None:
    leader = await trio.start()
    wiped = trio.followers(leader)[0]
    await wiped.kill()
    wiped.wipe()
    with pytest.raises(RefusedToStart, match="another data directory"):
        await wiped.join(leader)


async def test_a_wiped_member_returns_after_it_was_removed_and_added(trio: Trio) -> None:
    leader = await trio.start()
    await put(leader, 1)
    wiped = trio.followers(leader)[0]
    old = wiped.id
    await wiped.kill()
    wiped.wipe()
    await leader.node.change_membership(MembershipChange().remove(old))
    assert await trio.add_learner(leader, wiped) != old
    await wiped.join(leader)
    await trio.same_state([1])


async def test_a_node_votes_only_once_a_majority_noted_its_directory(trio: Trio) -> None:
    first, second = trio.hosts[:2]
    await first.start()
    assert not first.node.status().confirmed
    await second.start()
    await eventually(lambda: first.node.status().confirmed and second.node.status().confirmed)
    await trio.agreed()


async def test_a_wiped_node_does_not_vote_by_the_word_of_one_that_never_met_it(trio: Trio) -> None:
    """n3 was noted by n1 alone, and n1 is down: n2 cannot know that this n3 is not the one that voted."""
    first, second, third = trio.hosts
    await first.start()
    await third.start()
    if await trio.agreed([first, third]) is third:
        await third.node.transfer_leadership(first.id)
    trio.network.cut(second.address, third.address)
    trio.network.cut(third.address, second.address)
    await second.start()
    await put(first, 1)
    await trio.same_state([1], [second])
    await third.kill()
    third.wipe()
    trio.network.heal()
    await first.kill()
    await third.start()
    loop = asyncio.get_running_loop()
    later = loop.time() + 20
    await eventually(lambda: loop.time() > later)
    assert not third.node.status().confirmed
    await first.start()
    assert isinstance(await third.node.failed, RefusedToStart)


async def test_a_confirmed_node_votes_at_once_after_a_restart(trio: Trio) -> None:
    await trio.start()
    await trio.hosts[0].kill(power=True)
    await trio.hosts[0].start()
    assert trio.hosts[0].node.status().confirmed


async def test_a_single_node_cluster_needs_nobody(trio: Trio) -> None:
    trio.initial = trio.initial[:1]
    alone = trio.hosts[0]
    await alone.start()
    assert await put(alone, 1) == [1]


async def test_a_member_of_another_cluster_is_not_heard(trio: Trio) -> None:
    leader = await trio.start()
    stranger = trio.hosts[0] if trio.hosts[0] is not leader else trio.hosts[1]
    await stranger.kill()
    stranger.wipe()
    trio.initial = [replace(member, name=member.name.upper()) for member in trio.initial]
    stranger.name = stranger.name.upper()
    await stranger.start()
    others = [host for host in trio.running if host is not stranger]
    await trio.agreed(others)
    await put(others[0], 1)
    assert not stranger.node.status().confirmed
    assert stranger.state.numbers == []


def test_ids_depend_on_nothing_but_the_initial_cluster() -> None:
    shuffled = list(MEMBERS)
    random.Random(1).shuffle(shuffled)
    assert initial_cluster(MEMBERS) == initial_cluster(shuffled)
    assert initial_cluster(MEMBERS)[0] != initial_cluster(MEMBERS, "other")[0]
    cluster_id, membership = initial_cluster(MEMBERS)
    assert len({cluster_id, *membership.voters}) == 4
    assert all(0 < id < 1 << 64 for id in membership.voters)


@pytest.mark.parametrize(
    "members",
    [
        [],
        [MEMBERS[0], MEMBERS[0]],
        [MEMBERS[0], replace(MEMBERS[1], peer_address=MEMBERS[0].peer_address)],
        [replace(MEMBERS[0], name="")],
    ],
)
def test_a_contradictory_initial_cluster_is_refused(members: list[Member]) -> None:
    with pytest.raises(RefusedToStart, match="initial cluster"):
        initial_cluster(members)


IDENTITY = Identity(cluster_id=7, node_id=1, name="n1", directory_id=b"d")


def test_a_directory_is_that_of_one_member() -> None:
    restarted(IDENTITY, name="n1")
    with pytest.raises(RefusedToStart, match="belongs to member n1, not n2"):
        restarted(IDENTITY, name="n2")


def test_a_directory_of_another_cluster_is_refused() -> None:
    _, others = initial_cluster([Member(node_id=0, name="n1", peer_address="elsewhere:2380")])
    with pytest.raises(RefusedToStart, match=r"another cluster .*elsewhere:2380"):
        restarted(IDENTITY, name="n1", peer_address="h1:2380", configured=MEMBERS, membership=others)


@pytest.mark.parametrize(
    ("configured", "members", "difference"),
    [
        (MEMBERS, MEMBERS, None),
        ([], [*MEMBERS, Member(node_id=0, name="n4", peer_address="h4:2380")], None),
        (MEMBERS, [*MEMBERS, Member(node_id=0, name="n4", peer_address="h4:2380")], "does not list h4:2380"),
        (MEMBERS, MEMBERS[:2], "lists h3:2380"),
        (
            MEMBERS[:1],
            [Member(node_id=0, name="n1", peer_address="new:1")],
            "lists h1:2380 and does not list new:1",
        ),
        # All have moved since; this one is where the log says.
        (
            MEMBERS,
            [Member(node_id=0, name=f"n{number}", peer_address=f"new:{number}") for number in (1, 2)],
            "lists h1:2380, h2:2380, h3:2380 and does not list new:1, new:2",
        ),
    ],
)
def test_an_initial_cluster_that_is_out_of_date_gets_one_warning(
    configured: list[Member],
    members: list[Member],
    difference: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, membership = initial_cluster(members)
    restarted(IDENTITY, name="n1", peer_address="new:1", configured=configured, membership=membership)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (difference is not None)
    assert all(f"it {difference};" in line for line in said)


THREE = Membership(voters=frozenset({1, 2, 3}))
COMPACTED = Restored(
    compacted=EntryId(1, 50), last=EntryId(1, 80), memberships=((50, THREE),), term_starts=((51, 1),)
)


def test_a_state_that_reaches_the_log_is_used() -> None:
    restored = start_from(COMPACTED, node_id=1, last_applied=60, state_lost=False)
    assert (restored.last_applied, restored.needs_snapshot) == (60, False)


def test_a_lost_state_is_fetched_from_the_leader() -> None:
    assert start_from(COMPACTED, node_id=1, last_applied=0, state_lost=True).needs_snapshot


def test_a_lost_state_is_rebuilt_from_a_whole_log() -> None:
    whole = Restored(last=EntryId(1, 80), memberships=((0, THREE),), term_starts=((1, 1),))
    assert not start_from(whole, node_id=1, last_applied=0, state_lost=True).needs_snapshot


def test_a_cluster_of_one_with_a_lost_state_refuses() -> None:
    alone = replace(COMPACTED, memberships=((50, Membership(voters=frozenset({1}))),))
    with pytest.raises(RefusedToStart, match="restore a backup"):
        start_from(alone, node_id=1, last_applied=0, state_lost=True)


def test_a_removed_member_does_not_start() -> None:
    removed = replace(THREE, voters=frozenset({2, 3}), removed=frozenset({1}))
    restored = replace(COMPACTED, memberships=((50, THREE), (60, removed)))
    with pytest.raises(MemberRemoved):
        start_from(restored, node_id=1, last_applied=60, state_lost=False)
    assert start_from(restored, node_id=1, last_applied=59, state_lost=False)


async def test_a_name_that_is_not_in_the_initial_cluster_is_refused() -> None:
    log = EngineLogStore.open(MemoryDisk(random.Random(1)), Path("/n9"))
    with pytest.raises(RefusedToStart, match="n9 is not among its members n1, n2, n3"):
        await bootstrap(
            log=log,
            worker=InlineWorker(),
            name="n9",
            members=MEMBERS,
            token="",
            rng=random.Random(1),
            state_name="1",
        )
    assert log.identity is None


class Answers:
    """A transport whose members answer with these verdicts; None does not answer."""

    def __init__(self, verdicts: dict[str, HelloVerdict | None]) -> None:
        self.verdicts = verdicts
        self.asked: list[str] = []

    async def describe(self, address: str, asker: Hello, peer_address: str) -> Description:
        self.asked.append(address)
        verdict = self.verdicts[address]
        if verdict is None:
            raise ConnectionRefusedError("nobody there")
        _, membership = initial_cluster(MEMBERS, "")
        return Description(
            cluster_id=7, node_id=1, membership=membership, leader_id=None, term=1,
            hello=HelloReply(verdict=verdict, detail="because"),
        )  # fmt: skip


async def joining(verdicts: dict[str, HelloVerdict | None]) -> list[str]:
    """Whom a joining member asked, in this order."""
    transport: Any = Answers(verdicts)
    log = EngineLogStore.open(MemoryDisk(random.Random(1)), Path("/n3"))
    await join(
        log=log, worker=InlineWorker(), transport=transport, name="n3", peer_address="h3:2380",
        ask=[*verdicts, "h3:2380"], rng=random.Random(1), state_name="1",
    )  # fmt: skip
    return list(transport.asked)


async def test_a_joining_member_asks_until_one_knows_it_and_not_itself() -> None:
    verdicts = {"h1:2380": None, "h2:2380": HelloVerdict.UNKNOWN_MEMBER, "h4:2380": HelloVerdict.WELCOME}
    assert await joining(verdicts) == ["h1:2380", "h2:2380", "h4:2380"]


@pytest.mark.parametrize(
    ("verdict", "error", "said"),
    [
        (None, RefusedToStart, "no member of the running cluster answers: h1:2380: nobody there"),
        (HelloVerdict.UNKNOWN_MEMBER, RefusedToStart, "add it there first"),
        (HelloVerdict.AMNESIA, RefusedToStart, "another data directory"),
        (HelloVerdict.REMOVED, MemberRemoved, "was removed from its cluster"),
        (HelloVerdict.WRONG_CLUSTER, RefusedToStart, "refuses this member: WRONG_CLUSTER because"),
    ],
)
async def test_a_member_that_may_not_join_is_told_why(
    verdict: HelloVerdict | None, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        await joining({"h1:2380": verdict})


async def test_a_starting_member_of_another_cluster_or_a_removed_one_is_told_so(trio: Trio) -> None:
    leader = await trio.start()
    removed = trio.followers(leader)[0]
    hello = removed.node._driver.peers.introduce(leader.id)
    described = await removed.transport.describe(
        leader.address, replace(hello, cluster_id=hello.cluster_id ^ 1), removed.address
    )
    assert described.hello.verdict is HelloVerdict.WRONG_CLUSTER
    await leader.node.change_membership(MembershipChange().remove(removed.id))
    described = await removed.transport.describe(leader.address, hello, removed.address)
    assert described.hello.verdict is HelloVerdict.REMOVED


async def test_who_is_not_a_member_has_nothing_carried_out_and_brings_no_snapshot(trio: Trio) -> None:
    leader = await trio.start()
    stranger = trio.followers(leader)[0]
    peers = leader.node._driver.peers
    hello = stranger.node._driver.peers.introduce(leader.id)
    strange = replace(hello, cluster_id=hello.cluster_id ^ 1)
    with pytest.raises(PermissionError, match="WRONG_CLUSTER"):
        await peers.answer(strange, "Method", b"")
    offer = SnapshotOffer(
        hello=strange,
        term=99,
        meta=SnapshotMeta(EntryId(99, 99), Membership()),
        snapshot_id=1,
        approximate_bytes=1,
    )

    async def chunks() -> AsyncIterator[bytes]:
        raise AssertionError("nothing is read of it")
        yield b""

    with pytest.raises(SnapshotRefused, match="WRONG_CLUSTER"):
        await peers.receive_snapshot(offer, chunks())
    assert leader.node.is_leader
