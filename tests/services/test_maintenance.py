"""What an operator asks of a member: hashes, backups, space, leadership."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import grpc
import pytest

import connect_kv
from connect_kv.backup import restoring, stopped
from connect_kv.client.client import Client
from connect_kv.config import InitialMember
from connect_kv.errors import Compacted, Refused, RefusedToStart
from connect_kv.rpc import maintenance_pb2
from tests.services.cluster import Member, agree, configs, running
from tests.services.conftest import until


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[list[Member]]:
    async with running(configs(tmp_path, 3)) as members:
        yield members


def client_of(*members: Member) -> Client:
    return connect_kv.connect([one.server.client_address for one in members], session=False)


async def settled(members: list[Member]) -> None:
    """Everybody has applied what the leader has."""
    for member in members:
        await member.server.node.read_barrier()


async def test_hashes_are_equal_on_all_members_also_while_old_history_is_cleaned_up(
    three: list[Member],
) -> None:
    async with client_of(*three) as client:
        for number in range(300):
            await client.put(f"k{number % 7}", f"{number}")
        await client.delete("k3")
        for compact in (0, 150, 290):
            if compact:
                await client.compact(compact)
            await settled(three)
            found = [await client.maintenance.hash_kv(address) for address in client.endpoints]
            assert len({(one.hash, one.compact_revision, one.hash_revision) for one in found}) == 1
            assert found[0].compact_revision == (compact or -1)
            whole = [
                await one.call(
                    "/etcdserverpb.Maintenance/Hash",
                    maintenance_pb2.HashRequest(),
                    maintenance_pb2.HashResponse,
                )
                for one in three
            ]
            assert len({one.hash for one in whole}) == 1
        past = [await client.maintenance.hash_kv(address, revision=295) for address in client.endpoints]
        assert len({one.hash for one in past}) == 1
        assert past[0].hash != found[0].hash
        with pytest.raises(Compacted):
            await client.maintenance.hash_kv(revision=100)
        with pytest.raises(Refused, match="future revision"):
            await client.maintenance.hash_kv(revision=1000)


async def test_leadership_moves_to_a_voter_and_only_from_the_leader(three: list[Member]) -> None:
    leader = next(one for one in three if one.server.node.is_leader)
    other = next(one for one in three if one is not leader)
    target = other.server.node.identity.node_id
    async with client_of(*three) as client:
        with pytest.raises(connect_kv.ConnectKvError, match="not leader"):
            await client.maintenance.move_leader(other.server.client_address, target)
        with pytest.raises(Refused, match="bad leader transferee"):
            await client.maintenance.move_leader(leader.server.client_address, 1234)
        await client.maintenance.move_leader(leader.server.client_address, target)
        await until(lambda: agree(three))
        assert other.server.node.is_leader


@pytest.mark.parametrize("package", ["etcdserverpb", "connect_kv.v1"])
async def test_downgrade_is_refused_by_name(tmp_path: Path, package: str) -> None:
    async with running(configs(tmp_path, 1)) as (only,):
        for action in maintenance_pb2.DowngradeRequest.DowngradeAction.values():
            request = maintenance_pb2.DowngradeRequest(action=action, version="3.5")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await only.call(
                    f"/{package}.Maintenance/Downgrade", request, maintenance_pb2.DowngradeResponse
                )
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert f"{package}.Maintenance/Downgrade" in str(refused.value.details())


async def test_space_comes_back_after_deletes_and_a_compaction(tmp_path: Path) -> None:
    async with running(configs(tmp_path, 1)) as (only,), client_of(only) as client:
        value = bytes(range(256)) * 64
        for number in range(400):
            await client.put(f"k{number}", value)
        await client.maintenance.defragment(only.server.client_address)
        full = (await client.status()).dbSize
        assert full > 400 * len(value)
        revision = (await client.delete("k", prefix=True)).header.revision
        await client.compact(revision, physical=True)
        await until(lambda: only.server.host.disk_size < full / 4)
        assert await client.get("k1") is None


async def test_space_that_a_reader_held_comes_back_without_a_call(tmp_path: Path) -> None:
    (config,) = configs(tmp_path, 1)
    async with (
        running([config]) as (only,),
        connect_kv.connect(only.server.client_address) as client,
    ):
        host = only.server.host
        value = bytes(range(256)) * 16
        await asyncio.gather(*(client.put(f"k{number}", value) for number in range(2000)))
        reader = await host.snapshot()
        revision = (await client.delete("k", prefix=True)).header.revision
        await client.compact(revision, physical=True)
        await client.maintenance.defragment(only.server.client_address)
        await until(lambda: host._space._task is None)
        assert host.disk_size > 8 << 20
        reader.close()
        await until(lambda: host.disk_size < 2 << 20)


async def test_a_backup_taken_while_writes_go_on_is_restored_elsewhere(
    three: list[Member], tmp_path: Path
) -> None:
    """The file is whole as etcd's clients check it, and the new cluster has the saved state and new ids."""
    file = tmp_path / "backup"
    async with client_of(*three) as client:
        lease = (await client.grant_lease(1000))[0]
        for number in range(100):
            await client.put(f"k{number}", f"{number}", lease=lease if number < 5 else 0)

        async def write() -> None:
            for number in range(100):
                await client.put(f"more{number}", "x")

        writing = asyncio.create_task(write())
        async with aclosing(client.maintenance.snapshot()) as pieces:
            blobs = [piece async for piece in pieces]
        await writing
        data = b"".join(one.blob for one in blobs)
        assert len(data) % 512 == 32
        assert sha256(data[:-32]).digest() == data[-32:] == blobs[-1].blob
        left = len(data) - 32
        for one in blobs[:-1]:
            left -= len(one.blob)
            assert one.remaining_bytes == left
        assert (left, blobs[-1].remaining_bytes) == (0, 0)
        file.write_bytes(data)
        found = await stopped.contents(file)
        saved = await client.maintenance.hash_kv(revision=found.revision)
        assert found.compacted == -1
        assert 100 <= found.keys <= 200
        old = three[0].server.node.identity

    wanted = configs(tmp_path / "restored", 3)
    for config in wanted:
        await restoring.restore(file, config)
    async with running(wanted) as members, client_of(*members) as client:
        identity = members[0].server.node.identity
        assert identity.cluster_id != old.cluster_id
        assert identity.node_id != old.node_id
        for address in client.endpoints:
            restored = await client.maintenance.hash_kv(address, revision=found.revision)
            assert restored.hash == saved.hash
        assert (await client.lease_time_to_live(lease, keys=True)).keys == [b"k%d" % at for at in range(5)]
        assert (await client.put("new", "v")).header.revision == found.revision + 1


async def test_a_bumped_revision_leaves_nothing_to_mistake_for_the_old_history(tmp_path: Path) -> None:
    (config,) = configs(tmp_path / "old", 1)
    async with running([config]) as (only,), client_of(only) as client:
        revision = (await client.put("k", "v")).header.revision
    file = tmp_path / "backup"
    await stopped.save_stopped(config.data_dir, file, {})
    (new,) = configs(tmp_path / "new", 1)
    await restoring.restore(file, new, bump_revision=1_000_000)
    async with running([new]) as (only,), client_of(only) as client:
        found = await client.get("k")
        assert found is not None
        assert found.mod_revision == revision
        with pytest.raises(Compacted):
            await client.get("k", revision=revision)
        assert (await client.put("k", "w")).header.revision == revision + 1_000_001


async def test_a_revision_that_leaves_no_room_for_more_is_refused(tmp_path: Path) -> None:
    (config,) = configs(tmp_path / "old", 1)
    async with running([config]) as (only,), client_of(only) as client:
        await client.put("k", "v")
    file = tmp_path / "backup"
    await stopped.save_stopped(config.data_dir, file, {})
    (new,) = configs(tmp_path / "new", 1)
    for bump in (1 << 62, (1 << 63) - 8, 1 << 80):
        with pytest.raises(RefusedToStart, match="is the largest"):
            await restoring.restore(file, new, bump_revision=bump)
        assert not new.data_dir.exists()
    await restoring.restore(file, new, bump_revision=(1 << 62) - 2)
    async with running([new]) as (only,), client_of(only) as client:
        assert (await client.put("k", "w")).header.revision == (1 << 62) + 1


async def test_a_damaged_backup_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (config,) = configs(tmp_path / "old", 1)
    async with running([config]) as (only,), client_of(only) as client:
        await client.put("k", "v" * 10_000)
    file = tmp_path / "backup"
    await stopped.save_stopped(config.data_dir, file, {})
    whole = file.read_bytes()
    target = replace(
        config,
        data_dir=tmp_path / "new",
        initial_cluster=(InitialMember(name=config.name, peer_address=config.peer_address),),
    )
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (whole[:-1], whole[: len(whole) // 2], bytes(flipped), b"x" * 544, b""):
        file.write_bytes(damaged)
        with pytest.raises(connect_kv.StorageError):
            await restoring.restore(file, target)
        assert not target.data_dir.exists()
        with pytest.raises(connect_kv.StorageError):
            await stopped.contents(file)
