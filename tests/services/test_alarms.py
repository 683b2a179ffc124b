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
from connect_kv.server.corruption import wrong_among
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
        await until(lambda: only.server.host.disk_size < QUOTA / 2)
        assert [one.memberID for one in await client.maintenance.alarms()] == [own]
        await client.maintenance.disarm(own, NOSPACE)
        await until(lambda: only.server.services.quota._size < QUOTA / 2)
        await client.put("small", "v")


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
