"""A backup made by a process of its own is the one that the member would have made itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from connect_kv import errors
from connect_kv.backup import restoring, stopped
from connect_kv.backup import running as backup_running
from connect_kv.client.client import Client
from connect_kv.etcd_files import records
from connect_kv.etcd_files.reader import BoltFile
from connect_kv.testing.processes import until
from tests.moving import History, differences, holds
from tests.services.cluster import configs, running
from tests.services.test_maintenance import client_of


async def save(client: Client, path: Path) -> list[int]:
    """Returns what was said to be still to come, piece by piece."""
    remaining = []
    with path.open("wb") as file:
        async for piece in client.maintenance.snapshot():
            file.write(piece.blob)
            remaining.append(piece.remaining_bytes)
    return remaining


def copies(directory: Path) -> list[Path]:
    return list(directory.glob("state/copy-*"))


async def test_both_ways_make_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (config,) = configs(tmp_path / "saved", 1)
    async with running([config]) as (only,), client_of(only) as client:
        await History(client, 5, 60, negative_leases=True).changes(200)
        await save(client, tmp_path / "alone")
        monkeypatch.setattr(backup_running, "ALONE_BYTES", 0)
        remaining = await save(client, tmp_path / "other")
        assert copies(config.data_dir) == []
    whole = (tmp_path / "other").stat().st_size - 32
    assert remaining[0] == whole - backup_running.BLOB_BYTES
    assert remaining[-2:] == [0, 0]
    with BoltFile(tmp_path / "alone") as alone, BoltFile(tmp_path / "other") as other:
        other.check_digest()
        for bucket in records.BUCKETS:
            assert list(alone.items(bucket)) == list(other.items(bucket))


async def test_it_is_as_of_one_moment_while_others_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blob that is read first comes after the state was frozen: what is written from then on is not
    in it.
    """
    monkeypatch.setattr(backup_running, "ALONE_BYTES", 0)
    (config,) = configs(tmp_path / "saved", 1)
    async with running([config]) as (only,), client_of(only) as client:
        for number in range(300):
            await client.put(f"k{number}", bytes(1000))
        before = await holds(client)
        snapshot = client.maintenance.snapshot()
        blobs = [(await anext(snapshot)).blob]
        for number in range(300):
            await client.put(f"k{number}", bytes(2000))
        blobs += [piece.blob async for piece in snapshot]
    path = tmp_path / "backup"
    path.write_bytes(b"".join(blobs))
    assert (await stopped.contents(path)).revision == before.head
    (config,) = configs(tmp_path / "restored", 1)
    await restoring.restore(path, config)
    async with running([config]) as (only,), client_of(only) as client:
        assert differences(before, await holds(client)) == []


async def test_one_that_is_left_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_running, "ALONE_BYTES", 0)
    (config,) = configs(tmp_path / "saved", 1)
    async with running([config]) as (only,), client_of(only) as client:
        for number in range(50):
            await client.put(f"k{number}", bytes(100_000))
        snapshot = client.maintenance.snapshot()
        await anext(snapshot)
        assert len(copies(config.data_dir)) == 1
        await snapshot.aclose()

        async def gone() -> bool:
            return not copies(config.data_dir)

        await until(gone, 20, "the copy to be deleted")


async def test_a_process_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_running, "ALONE_BYTES", 0)
    (config,) = configs(tmp_path / "saved", 1)
    async with running([config]) as (only,), client_of(only) as client:
        await client.put("k", "v")

        async def damaged(copy: Path) -> None:
            (copy / "CURRENT").unlink()

        real = only.server.host.copy

        async def copy(least: int) -> object:
            found = await real(least)
            assert found is not None
            await damaged(found.path)
            return found

        monkeypatch.setattr(only.server.host, "copy", copy)
        with pytest.raises(errors.ConnectKvError):
            await save(client, tmp_path / "backup")
        assert copies(config.data_dir) == []
        await client.put("k", "it goes on")


async def test_what_a_member_left_is_gone_once_it_starts(tmp_path: Path) -> None:
    (config,) = configs(tmp_path / "saved", 1)
    async with running([config]):
        pass
    left = config.data_dir / "state" / "copy-77"
    left.mkdir()
    (left / "000001.log").write_bytes(b"")
    async with running([config]):
        assert not left.exists()
