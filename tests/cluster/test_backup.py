"""Backups by the command: under load, restored elsewhere, and from what a lost majority left."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import connect_kv
from connect_kv.testing.processes import NodeProcess, ProcessCluster
from tests.cluster.conftest import scaled
from tests.cluster.test_snapshot import fill
from tests.cluster.workload import Workload, check_nothing_lost

MIB = 1 << 20

MACHINES = {"counter": "tests.cluster.machines:Counter"}
MACHINE = [word for name, target in MACHINES.items() for word in ("--machine", f"{name}={target}")]


async def command(*words: str) -> Any:
    """Run ``connect-kv``; its JSON answer."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "connect_kv.cli.main", *words, "-o", "json",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return json.loads(out)


async def restore(file: Path, cluster: ProcessCluster) -> None:
    """Into the directories of a new cluster."""
    for node in cluster.nodes:
        await command(
            "snapshot", "restore", str(file), "--name", node.name, "--data-dir", str(node.data_dir),
            "--listen-peer", node.peer_address, "--initial-cluster", cluster.initial_cluster,
        )  # fmt: skip


async def test_a_backup_under_load_is_restored_into_another_cluster(tmp_path: Path) -> None:
    """At its revision both clusters have the same hash."""
    file = tmp_path / "backup"
    async with ProcessCluster(tmp_path / "old", machines=MACHINES) as cluster:
        async with Workload(cluster, 10) as workload:
            await workload.progress(300)
            saved = await command("snapshot", "save", str(file), "--endpoints", cluster.endpoints)
            before = dict(workload.acknowledged)
            await workload.progress(100)
            await workload.stop()
        async with connect_kv.connect(cluster.endpoints) as client:
            old = await client.maintenance.hash_kv(revision=saved["revision"])
    new = ProcessCluster(tmp_path / "new", machines=MACHINES)
    await restore(file, new)
    async with new, connect_kv.connect(new.endpoints) as client:
        for node in new.nodes:
            found = await client.maintenance.hash_kv(node.client_address, revision=saved["revision"])
            assert found.hash == old.hash
        assert len(await client.get_prefix("w/")) <= len(before) + 10
        assert (await client.put("new", "v")).header.revision > saved["revision"]


async def test_a_large_backup_is_restored(tmp_path: Path) -> None:
    """In little time and memory: what the commands take is printed, and the hashes are equal."""
    size, value_bytes = int(scaled(64 * MIB, 1024 * MIB)), 256 << 10
    file = tmp_path / "backup"
    arguments = ["--quota-bytes", str(4096 * MIB)]
    async with ProcessCluster(tmp_path / "old", 1, arguments=arguments) as cluster:
        async with cluster.client() as client:
            await fill(client, size // value_bytes, value_bytes)
            old = await client.maintenance.hash_kv(timeout=60)
        saved, saving = await timed("snapshot", "save", str(file), "--endpoints", cluster.endpoints)
    new = ProcessCluster(tmp_path / "new", 1, arguments=arguments)
    (node,) = new.nodes
    shutil.rmtree(tmp_path / "old")
    _, restoring = await timed(
        "snapshot", "restore", str(file), "--name", node.name, "--data-dir", str(node.data_dir),
        "--listen-peer", node.peer_address, "--initial-cluster", new.initial_cluster,
    )  # fmt: skip
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with new, connect_kv.connect(new.endpoints) as client:
        starting = loop.time() - started
        found = await client.maintenance.hash_kv(revision=saved["revision"], timeout=60)
        assert found.hash == old.hash
        assert saved["keys"] == size // value_bytes
    print(
        f"{size / MIB:.0f} MiB of values, a file of {file.stat().st_size / MIB:.0f} MiB: saved and checked "
        f"in {saving:.1f} s, restored in {restoring:.1f} s, serving {starting:.1f} s after its start"
    )


async def timed(*words: str) -> tuple[Any, float]:
    """A command's answer, and the seconds it took with its start."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    return await command(*words), loop.time() - started


async def furthest(nodes: list[NodeProcess]) -> NodeProcess:
    """The stopped node whose log is the most complete."""
    found = []
    for node in nodes:
        last = (await command("inspect", str(node.data_dir)))["last"]
        found.append(((last["term"], last["index"]), node.name, node))
    return max(found)[2]


async def test_a_lost_majority_is_rebuilt_from_one_directory(tmp_path: Path) -> None:
    """All nodes die at once, two disks are gone: what was acknowledged is in the third."""
    file = tmp_path / "backup"
    async with ProcessCluster(tmp_path / "old", machines=MACHINES) as cluster:
        async with Workload(cluster, 10) as workload:
            await workload.progress(300)
            await asyncio.gather(*(node.kill() for node in cluster.nodes))
        left = await furthest(cluster.nodes)
        for node in cluster.nodes:
            if node is not left:
                shutil.rmtree(node.data_dir)
        await command("snapshot", "save", str(file), "--data-dir", str(left.data_dir), *MACHINE)
    new = ProcessCluster(tmp_path / "new", machines=MACHINES)
    await restore(file, new)
    async with new:
        workload.cluster = new
        # What was under way when all died may have been done.
        workload.unknown_increments += workload.callers
        await check_nothing_lost(workload)
