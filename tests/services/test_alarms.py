"""The space quota and the comparison of members: what raises an alarm, and what it stops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import connect_kv
from connect_kv.client import txn
from connect_kv.errors import Refused
from connect_kv.kv import layout
from connect_kv.rpc.maintenance_pb2 import CORRUPT, NOSPACE
from connect_kv.server.composition import KvServer, Seams
from connect_kv.server.corruption import wrong_among
from connect_kv.storage.leveldb import LevelDbDisk
from connect_kv.storage.overlay import Overlay
from tests.services.cluster import Member, configs, running
from tests.services.conftest import until

QUOTA = 4 << 20


@pytest.mark.parametrize("session", [True, False])
async def test_a_full_store_takes_deletes_until_space_came_back(tmp_path: Path, session: bool) -> None:
    (config,) = configs(tmp_path, 1)
    async with (
        running([replace(config, quota_bytes=QUOTA)]) as (only,),
        connect_kv.connect(only.server.client_address, session=session) as client,
    ):
        own = only.server.node.identity.node_id
        value = bytes(range(256)) * 200

        async def fill() -> None:
            for number in range(2 * QUOTA // len(value)):
                await client.put(f"k{number}", value)

        with pytest.raises(Refused, match="database space exceeded") as refused:
            await fill()
        assert refused.value.code == 8
        await until(lambda: only.server.host.cluster.active(NOSPACE))
        with pytest.raises(Refused, match="database space exceeded"):
            await client.put("small", "v")
        with pytest.raises(Refused, match="database space exceeded"):
            await client.grant_lease(10)
        with pytest.raises(Refused, match="database space exceeded"):
            await client.transaction(success=[txn.put("small", "v")])
        assert await client.get("k0") is not None
        revision = (await client.delete("k", prefix=True)).header.revision
        await client.compact(revision, physical=True)
        await client.maintenance.defragment(only.server.client_address)
        assert [one.memberID for one in await client.maintenance.alarms()] == [own]
        await client.maintenance.disarm(own, NOSPACE)
        # At once: what was measured before is no reason to refuse.
        await client.put("small", "v")
        assert not only.server.host.cluster.active(NOSPACE)


async def damage(member: Member, space: bytes) -> None:
    """Change the first record there on one member's disk, as no command would."""
    host = member.server.host
    async with host._turn:
        overlay = Overlay(host._writer.engine)
        (key, record), *_ = overlay.iterate(space, bytes([space[0] + 1]))
        overlay.put(key, record[:-1] + bytes([record[-1] ^ 1]))
        await host._writer.write(overlay.changes)


@pytest.mark.parametrize("space", [layout.HISTORY, layout.CURRENT], ids=["history", "current values"])
@pytest.mark.parametrize("leads", [False, True], ids=["follower", "leader"])
async def test_a_member_whose_data_differs_is_found_and_writes_stop(
    tmp_path: Path, space: bytes, leads: bool
) -> None:
    wanted = [replace(one, corruption_check_seconds=1) for one in configs(tmp_path, 3)]
    async with running(wanted) as members, connect_kv.connect(members[0].server.client_address) as client:
        for number in range(10):
            await client.put(f"k{number}", "value")
        bad = next(one for one in members if one.server.node.is_leader == leads)
        await bad.server.node.read_barrier()
        await damage(bad, space)
        await until(lambda: members[0].server.host.cluster.active(CORRUPT))
        raised = await client.maintenance.alarms()
        assert [one.memberID for one in raised] == [bad.server.node.identity.node_id]
        with pytest.raises(Refused, match="corrupt cluster") as refused:
            await client.put("k", "v")
        assert refused.value.code == 15
        assert await client.get("k1") is not None


async def test_a_member_alone_finds_what_does_not_follow_from_its_history(tmp_path: Path) -> None:
    (config,) = configs(tmp_path, 1)
    async with (
        running([replace(config, corruption_check_seconds=1)]) as (only,),
        connect_kv.connect(only.server.client_address) as client,
    ):
        await client.put("k", "value")
        await damage(only, layout.CURRENT)
        await until(lambda: only.server.host.cluster.active(CORRUPT))
        with pytest.raises(Refused, match="corrupt cluster"):
            await client.put("k", "v")


def test_the_majority_is_right_and_without_one_the_leader() -> None:
    assert wrong_among({1: 7, 2: 7, 3: 7}, 1) == frozenset()
    assert wrong_among({1: 7, 2: 7, 3: 8}, 1) == {3}
    assert wrong_among({1: 8, 2: 7, 3: 7}, 1) == {1}
    assert wrong_among({1: 8, 2: 7}, 1) == {2}
    assert wrong_among({1: 8}, 1) == frozenset()


class Filling(LevelDbDisk):
    """A disk whose free space a test sets."""

    free = 100 << 20

    def free_bytes(self, path: Path) -> tuple[int, int]:
        return self.free, 10 << 30


def on(disk: Filling, member: Member) -> Member:
    """That member on that disk, which is looked at often."""
    tune = lambda config: replace(config, space_seconds=0.05)  # noqa: E731
    member.server = KvServer(member.config, seams=Seams(disk=disk, tune=tune))
    return member


async def test_a_disk_that_is_still_full_when_the_alarm_is_ended_raises_it_again(tmp_path: Path) -> None:
    disk = Filling()
    only = on(disk, Member(configs(tmp_path, 1)[0]))
    await only.start()
    try:
        async with connect_kv.connect(only.server.client_address) as client:
            own = only.server.node.identity.node_id
            active = only.server.host.cluster.active
            await until(lambda: active(NOSPACE))
            await client.maintenance.disarm(own, NOSPACE)
            await until(lambda: active(NOSPACE))

            disk.free = 5 << 30
            await until(lambda: not only.server._low)
            await client.maintenance.disarm(own, NOSPACE)
            await client.put("k", "v")
            assert not active(NOSPACE)
    finally:
        await only.stop()


async def test_an_alarm_whose_reason_went_away_before_it_could_be_raised_is_not(tmp_path: Path) -> None:
    """Without a leader it could not be; when there is one, space has long been made."""
    disk = Filling()
    first, *others = (Member(config) for config in configs(tmp_path, 3))
    await on(disk, first).start()
    try:
        await until(lambda: first.server._raising)
        disk.free = 5 << 30
        await until(lambda: not first.server._low)
        for one in others:
            await one.start()
        async with connect_kv.connect(first.server.client_address) as client:
            await client.put("k", "v")
            await until(lambda: not first.server._raising)
            assert not await client.maintenance.alarms()
    finally:
        for one in (first, *others):
            await one.stop()
