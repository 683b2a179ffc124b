"""Compaction of the log, and followers that need a snapshot because of it (§7)."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from connect_kv.errors import CorruptStorage, StorageError
from connect_kv.node.history import AppliedHistory
from connect_kv.raft.membership import MembershipChange
from connect_kv.raft.types import ZERO, Entry, EntryId, EntryKind, Membership, Restored, SnapshotMeta
from tests.node.cluster import Host, Trio, eventually, put
from tests.node.fakes import TallySource

SMALL = {"keep_entries": 10, "durable_seconds": 0.5}


async def test_the_log_is_compacted_behind_the_durable_index(trio: Trio) -> None:
    leader = await trio.start(**SMALL)
    for number in range(100):
        await put(leader, number)
    await eventually(lambda: leader.log.first_index > 50)
    status = leader.node.status()
    assert status.raft.first_index == leader.log.first_index
    assert leader.log.first_index <= status.durable_index + 1
    assert leader.node.last_applied - leader.log.first_index >= 9


async def test_a_follower_behind_the_compacted_log_gets_a_snapshot(trio: Trio) -> None:
    leader = await trio.start(**SMALL)
    follower = trio.followers(leader)[0]
    await put(leader, -0)
    await follower.kill()
    for number in range(1, 100):
        await put(leader, number)
    await eventually(lambda: leader.log.first_index > 50)
    await follower.start(**SMALL)
    await trio.same_state(range(100))
    assert follower.metrics.snapshots_installed == 1
    assert await put(follower, 100) == [101]
    await trio.same_state(range(101))


async def test_what_a_snapshot_brought_survives_power_loss(trio: Trio) -> None:
    leader = await trio.start(**SMALL)
    follower = trio.followers(leader)[0]
    await follower.kill()
    for number in range(100):
        await put(leader, number)
    await eventually(lambda: leader.log.first_index > 50)
    await follower.start(**SMALL)
    await trio.same_state(range(100))
    await follower.kill(power=True)
    await follower.start(**SMALL)
    await trio.same_state(range(100))


async def test_writes_go_on_while_a_snapshot_is_sent_and_its_successors_are_kept(
    trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = await trio.start(**SMALL)
    follower = trio.followers(leader)[0]
    await follower.kill()
    for number in range(100):
        await put(leader, number)
    await eventually(lambda: leader.log.first_index > 50)
    gate = asyncio.Event()
    monkeypatch.setattr(TallySource, "gate", gate)
    await follower.start(**SMALL)
    await asyncio.sleep(1)
    for number in range(100, 200):
        await put(leader, number)
    await asyncio.sleep(5)
    gate.set()
    await trio.same_state(range(200))
    assert leader.metrics.snapshots_sent == [True]


async def test_a_snapshot_stream_that_breaks_is_sent_again(
    trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = await trio.start(**SMALL)
    follower = trio.followers(leader)[0]
    await follower.kill()
    for number in range(100):
        await put(leader, number)
    await eventually(lambda: leader.log.first_index > 50)
    gate = asyncio.Event()
    monkeypatch.setattr(TallySource, "gate", gate)
    await follower.start(**SMALL)
    await asyncio.sleep(1)
    trio.network.cut(leader.address, follower.address)
    gate.set()
    await eventually(lambda: leader.metrics.snapshots_sent[:1] == [False])
    trio.network.heal()
    await trio.same_state(range(100))


async def behind(trio: Trio) -> Host:
    """A follower that has just started again and needs a snapshot."""
    leader = await trio.start(**SMALL)
    follower = trio.followers(leader)[0]
    await follower.kill()
    for number in range(100):
        await put(leader, number)
    await eventually(lambda: leader.log.first_index > 50)
    await follower.start(**SMALL)
    return follower


async def test_a_snapshot_that_is_not_whole_is_refused_and_sent_again(trio: Trio) -> None:
    follower = await behind(trio)
    follower.state.stage_fails_with = CorruptStorage("state/2", "a chunk is missing")
    await trio.same_state(range(100))
    assert not follower.node.failed.done()


async def test_a_member_that_takes_no_snapshot_is_not_flooded_with_them(
    trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may be gigabytes: after a failure the next one waits, at most two election timeouts."""
    follower = await behind(trio)

    async def refuse(meta: SnapshotMeta, chunks: AsyncIterator[bytes]) -> str:
        raise CorruptStorage("state/2", "a chunk is missing")

    with monkeypatch.context() as patch:
        patch.setattr(follower.state, "stage", refuse)
        leader = await trio.agreed()
        await asyncio.sleep(20)
        sent = list(leader.metrics.snapshots_sent)
    assert 5 <= len(sent) <= 15
    assert not any(sent)
    await trio.same_state(range(100))


async def test_a_disk_that_cannot_take_a_snapshot_ends_the_node(trio: Trio) -> None:
    follower = await behind(trio)
    follower.state.stage_fails_with = StorageError("state/2", "no space left on device")
    error = await follower.node.failed
    assert isinstance(error, StorageError)
    assert error.database == "state/2"


def entry(index: int, data: bytes = b"x" * 36, term: int = 1) -> Entry:
    return Entry(EntryId(term, index), EntryKind.COMMAND, data)


def applied(count: int) -> AppliedHistory:
    """A history of `count` slices of one entry of 100 bytes."""
    history = AppliedHistory(Restored(), 0)
    for index in range(1, count + 1):
        history.note([entry(index)])
    return history


def test_compaction_keeps_the_entries_asked_for() -> None:
    assert applied(50).behind(entries=10, size=1 << 20, limit=50) == EntryId(1, 40)


def test_compaction_keeps_no_more_bytes_than_allowed() -> None:
    target = applied(50).behind(entries=1000, size=500, limit=50)
    assert target == EntryId(1, 45)


def test_compaction_never_passes_the_limit() -> None:
    assert applied(50).behind(entries=10, size=1 << 20, limit=20) == EntryId(1, 20)


def test_nothing_is_compacted_while_everything_is_to_be_kept() -> None:
    assert applied(9).behind(entries=10, size=1 << 20, limit=9) is None


@pytest.mark.parametrize("count", [1, 50, 1000, 12_345])
def test_the_log_from_before_a_restart_is_compacted_like_what_came_after(count: int) -> None:
    """Otherwise a node that is restarted often enough would keep all of its log for ever."""
    restored = Restored(
        compacted=EntryId(1, 7),
        last=EntryId(2, 7 + count),
        term_starts=((8, 1), (8 + count // 2, 2)) if count > 1 else ((8, 2),),
        log_bytes=100 * count,
    )
    history = AppliedHistory(restored, 7 + count)
    assert history.size == 100 * count
    parts = count // 50 + 1
    for wanted in ({"entries": count // 2, "size": 1 << 40}, {"entries": 1 << 40, "size": 50 * count}):
        target = history.behind(**wanted, limit=7 + count)
        assert target is not None or count == 1
        if target is not None:
            assert abs(target.index - 7 - count // 2) <= parts
            assert target.term == (2 if target.index >= 8 + count // 2 else 1)
    history.compacted(7 + count)
    assert history.size == 0


async def test_restarts_do_not_make_the_log_grow(trio: Trio) -> None:
    """Each life is too short to have anything to compact of its own."""
    leader = await trio.start(**SMALL)
    for _ in range(6):
        for number in range(8):
            await put(leader, number)
        for host in trio.hosts:
            await host.kill()
        leader = await trio.start(**SMALL)
    await eventually(lambda: all(host.core.last_index - host.log.first_index < 25 for host in trio.hosts))


def test_the_term_of_the_restored_state_is_known() -> None:
    restored = Restored(
        last=EntryId(5, 30),
        term_starts=((1, 2), (10, 4), (20, 5)),
        memberships=((0, Membership()),),
    )
    assert AppliedHistory(restored, 9).applied == EntryId(2, 9)
    assert AppliedHistory(restored, 10).applied == EntryId(4, 10)
    assert AppliedHistory(restored, 30).applied == EntryId(5, 30)
    assert AppliedHistory(Restored(), 0).applied == ZERO


def test_memberships_are_those_in_force_at_an_index() -> None:
    history = applied(5)
    changed = Membership(voters=frozenset({1}))
    history.note([Entry(EntryId(1, 6), EntryKind.MEMBERSHIP, changed.encode())])
    history.note([entry(7)])
    assert history.membership_at(5) == Membership()
    assert history.membership_at(6) == history.membership_at(7) == changed
    history.compacted(7)
    assert history.membership == changed


async def test_much_that_is_applied_is_forced_to_disk_at_once(trio: Trio) -> None:
    leader = await trio.start(durable_bytes=100, durable_seconds=3600)
    for number in range(20):
        await put(leader, number)
    await eventually(lambda: leader.node.status().durable_index > 1, within=10)


async def test_who_leads_no_more_sends_no_more(trio: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = await behind(trio)
    await follower.kill()
    leader = await trio.agreed()
    for number in range(100, 200):
        await put(leader, number)
    await eventually(lambda: leader.log.first_index > 150)
    ends: list[str] = []

    async def endless(offer: object, chunks: object) -> None:
        ends.append("begun")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    with monkeypatch.context() as patch:
        patch.setattr(leader.transport, "send_snapshot", endless)
        await follower.start(**SMALL)
        await eventually(lambda: "begun" in ends)
        leader.node._driver._sender.start(follower.id)  # one at a time
        await asyncio.sleep(1)
        assert ends == ["begun"]
        trio.network.isolate(leader.address)
        await eventually(lambda: not leader.node.is_leader)
        await eventually(lambda: ends == ["begun", "cancelled"])
    trio.network.heal()
    await trio.same_state(range(200))


async def test_for_a_member_that_was_removed_no_log_is_kept(
    trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = await behind(trio)
    leader = await trio.agreed()
    monkeypatch.setattr(leader.transport, "send_snapshot", never_ends)
    await eventually(lambda: leader.node._driver._sender.held() is not None)
    await leader.node.change_membership(MembershipChange().remove(follower.id))
    await eventually(lambda: leader.node._driver._sender.held() is None)


async def never_ends(offer: object, chunks: object) -> None:
    await asyncio.Event().wait()
