"""A disk that is full or broken ends its node with a word why; nothing is acknowledged on a guess."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from connect_kv.testing.processes import NodeProcess, ProcessCluster
from tests.cluster.conftest import needs
from tests.cluster.workload import Workload, check_nothing_lost

MACHINES = {"counter": "tests.cluster.machines:Counter"}
MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with more room than the low-water mark of free space (512 MiB)."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600m", "tmpfs", str(place)], capture_output=True, text=True
    )
    if mounted.returncode:
        print(f"\nSKIPPED: NO FILE SYSTEM CAN BE MOUNTED HERE: {mounted.stderr.strip()}", file=sys.stderr)
        pytest.skip(f"mount: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill_up(file: Path) -> None:
    """Take all the room there is."""
    try:
        with file.open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(MIB))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def ends_with(node: NodeProcess, database: Path, words: str) -> None:
    """It failed, and its last line names the database and the reason."""
    assert node.returncode == 1, node.log_tail()
    said = [line for line in node.log_tail(1000).splitlines() if line.startswith("connect-kv: ")]
    assert len(said) == 1, node.log_tail()
    assert str(database) in said[0]
    assert words in said[0]
    assert "docs/operations.md" in said[0]


async def the_others_go_on(cluster: ProcessCluster, failing: NodeProcess, workload: Workload) -> None:
    """Wait until it has ended by itself, then check that all that was acknowledged is there."""
    await failing.wait(60)
    await workload.progress(100)
    await workload.stop()
    assert not workload.errors
    assert await check_nothing_lost(workload) == workload.increments
    assert all(node.running for node in cluster.nodes if node is not failing)


async def test_a_full_disk_ends_its_node_which_comes_back_once_there_is_room(
    tmp_path: Path, small_disk: Path
) -> None:
    cluster = ProcessCluster(tmp_path, machines=MACHINES)
    failing, other = cluster.nodes[:2]
    failing.data_dir = small_disk / "n1"
    filler = small_disk / "filler"
    async with cluster:
        async with Workload(cluster, callers=10, value=b"v" * 10_000) as workload:
            await workload.progress(100)
            fill_up(filler)
            await the_others_go_on(cluster, failing, workload)
        ends_with(failing, failing.data_dir, "No space left on device")
        filler.unlink()
        await failing.start()
        await failing.ready()
        await other.kill()
        assert await check_nothing_lost(workload) == workload.increments


async def test_a_failed_fsync_ends_the_leader_and_the_others_go_on(tmp_path: Path) -> None:
    """Every fdatasync of the leader fails from some moment on, as on a broken disk."""
    strace = needs("strace")
    cluster = ProcessCluster(tmp_path, machines=MACHINES)
    failing = cluster.nodes[0]
    failing.wrapper = [
        strace, "-f", "-qq", "-o", "/dev/null", "--seccomp-bpf",
        "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=60+",
    ]  # fmt: skip
    for other in cluster.nodes[1:]:
        # They campaign later, so that the one with the broken disk leads.
        other.arguments += ["--election-ms", "4000"]
    async with cluster:
        assert await cluster.leader() is failing
        async with Workload(cluster, callers=10) as workload:
            await the_others_go_on(cluster, failing, workload)
    ends_with(failing, failing.data_dir / "log", "Input/output error")
