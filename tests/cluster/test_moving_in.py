"""What is in an etcd comes over whole: every revision of it, leases, users, and the hash etcd tells of it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import connect_kv
from connect_kv import errors
from connect_kv.client.etcd import connect_etcd
from connect_kv.testing.processes import ProcessCluster
from tests import moving
from tests.cluster.test_backup import command
from tests.etcd import Etcd, etcd_or_skip


@asynccontextmanager
async def cluster_of(source: Path, directory: Path, size: int = 1) -> AsyncIterator[ProcessCluster]:
    """Imported and started."""
    cluster = ProcessCluster(directory, size)
    for node in cluster.nodes:
        report = await command(
            "import-etcd", str(source), "--name", node.name, "--data-dir", str(node.data_dir),
            "--listen-peer", node.peer_address, "--initial-cluster", cluster.initial_cluster,
        )  # fmt: skip
        assert report["hash"] == report["etcd_hash"]
    async with cluster:
        yield cluster


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def check_logins(endpoints: str) -> None:
    """Passwords are those they were."""
    async with connect_kv.connect(endpoints, session=False, timeout=20) as client:
        await client.auth.enable()
        assert await client.auth.login("alice", moving.PASSWORDS["alice"], timeout=20)
        with pytest.raises(errors.Refused):
            await client.auth.login("alice", "wrong", timeout=20)
    async with connect_kv.connect(
        endpoints, session=False, timeout=20, user="alice", password=moving.PASSWORDS["alice"]
    ) as client:
        await client.put("k1", "by alice")
        with pytest.raises(errors.Refused):
            await client.put("k8", "no right")


@pytest.mark.parametrize("seed", [1, 2])
async def test_everything_an_etcd_holds_is_there_after_the_import(tmp_path: Path, seed: int) -> None:
    """From a snapshot, and from the directory once it is stopped; each revision is read in full."""
    snapshot = tmp_path / "snapshot"
    async with Etcd(tmp_path / "etcd", etcd_or_skip(), fsync=False) as etcd:
        async with connect_etcd(etcd.client_address, timeout=20) as client:
            history = moving.History(client, seed, 30, negative_leases=True)
            await history.users()
            await history.changes(400)
            with snapshot.open("wb") as file:
                async for piece in client.maintenance.snapshot():
                    file.write(piece.blob)
            theirs = await moving.holds(client)
        directory = etcd.directory / "data"
        with pytest.raises(AssertionError, match="an etcd is running on it"):
            await command("import-etcd", str(directory), "--data-dir", str(tmp_path / "refused"))
        await etcd.stop()
    assert theirs.compacted > 1
    assert len(theirs.past) > 5
    for number, source in enumerate((snapshot, directory)):
        async with cluster_of(source, tmp_path / f"new{number}", 1 + 2 * number) as cluster:
            async with connect_kv.connect(cluster.endpoints, session=False, timeout=20) as client:
                assert moving.differences(theirs, await moving.holds(client)) == []
                assert (await client.put("new", "v")).header.revision == theirs.head + 1
                for lease, (_, keys) in theirs.leases.items():
                    if keys:
                        await client.revoke_lease(lease)
                        assert await client.get(keys[0]) is None
                        break
            await check_logins(cluster.endpoints)


async def test_a_snapshot_is_taken_from_a_running_etcd_that_asks_who_calls(tmp_path: Path) -> None:
    async with Etcd(tmp_path / "etcd", etcd_or_skip(), fsync=False) as etcd:
        async with connect_etcd(etcd.client_address, timeout=20) as client:
            history = moving.History(client, 3, 30)
            await history.users()
            await history.changes(50)
            await client.auth.enable()
        arguments = ["import-etcd", "--endpoints", etcd.client_address, "--data-dir", str(tmp_path / "new")]
        with pytest.raises(AssertionError, match=r"user name is empty|permission denied"):
            await command(*arguments)
        assert not (tmp_path / "new").exists()
        report = await command(*arguments, "--user", "root:r00t")
    assert (report["users"], report["roles"], report["auth_enabled"]) == (4, 2, True)
    assert names(tmp_path) == ["etcd", "new"]


async def test_a_directory_whose_log_is_ahead_of_its_database_is_refused(tmp_path: Path) -> None:
    """An etcd that was killed has acknowledged more than its database holds."""
    async with Etcd(tmp_path / "etcd", etcd_or_skip()) as etcd:
        async with connect_etcd(etcd.client_address) as client:
            for number in range(50):
                await client.put(f"k{number}", "v")
        await etcd.kill()
        directory = etcd.directory / "data"
        with pytest.raises(AssertionError, match=r"its log goes to [0-9]+ and its database to [0-9]+: start"):
            await command("import-etcd", str(directory), "--data-dir", str(tmp_path / "new"))
        assert not (tmp_path / "new").exists()
        await etcd.start()
        await etcd.ready()
        await etcd.stop()
    report = await command("import-etcd", str(directory), "--data-dir", str(tmp_path / "new"))
    assert report["keys"] == 50
    shutil.move(directory / "member" / "wal", tmp_path / "elsewhere")
    with pytest.raises(AssertionError, match="holds no write-ahead log: name its directory"):
        await command("import-etcd", str(directory), "--data-dir", str(tmp_path / "other"))
    elsewhere = ("--wal-dir", str(tmp_path / "elsewhere"))
    assert await command("import-etcd", str(directory), "--data-dir", str(tmp_path / "other"), *elsewhere)


async def test_a_damaged_snapshot_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    etcd = Etcd(tmp_path / "etcd", etcd_or_skip(), fsync=False)
    async with etcd, connect_etcd(etcd.client_address) as client:
        await client.put("k", "v")
        pieces = [piece.blob async for piece in client.maintenance.snapshot()]
    whole = b"".join(pieces)
    path, new = tmp_path / "snapshot", tmp_path / "new"
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    for content, told in (
        (whole[:-32], "has no digest at its end"),
        (whole[:-512], "is cut short"),
        (bytes(damaged), "does not match its digest"),
        (whole[:4096] + hashlib.sha256(whole[:4096]).digest(), "is cut short"),
        (b"connect-kv" * 100, "is no database of etcd"),
    ):
        path.write_bytes(content)
        with pytest.raises(AssertionError, match=told):
            await command("import-etcd", str(path), "--data-dir", str(new))
        assert names(tmp_path) == ["etcd", "snapshot"]
    path.write_bytes(whole[:-32])
    report = await command("import-etcd", str(path), "--data-dir", str(new), "--skip-hash-check")
    assert report["keys"] == 1
