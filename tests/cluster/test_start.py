"""What cannot run says why in one line and ends with 2; what is damaged is refused by name."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import connect_kv
from connect_kv.testing.ports import free_ports
from connect_kv.testing.processes import NodeProcess, ProcessCluster
from tests.cluster.conftest import rounds

REFUSED = 2


def single(directory: Path, *arguments: str, name: str = "default") -> NodeProcess:
    """A node that is a cluster of its own."""
    client, peer, http = free_ports(3)
    return NodeProcess(name, directory, (client, peer, http), arguments)


async def refused(node: NodeProcess) -> str:
    """Start what must not run; the one line in which it says why."""
    before = len(node.log_tail(10_000).splitlines())
    await node.start()
    code = await node.wait(30)
    lines = node.log_tail(10_000).splitlines()[before:]
    assert code == REFUSED, f"{code}: {lines}"
    said = [line for line in lines if line.startswith(("error: ", "connect-kv: "))]
    assert len(said) == 1, lines
    assert "Traceback" not in "\n".join(lines)
    return said[0]


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--initial-cluster", "a=127.0.0.1:1"], {}, ["--initial-cluster", "'default'", "not among a"]),
        ([], {"CONNECT_KV_SNAPSHOT_COUNT": "many"}, ["CONNECT_KV_SNAPSHOT_COUNT", "'many'", "whole number"]),
        (["--machine", "c=nowhere:Counter"], {}, ["machine c=nowhere:Counter", "No module named"]),
    ],
)
async def test_a_wrong_configuration_is_named(
    arguments: list[str], environment: dict[str, str], words: list[str], tmp_path: Path
) -> None:
    node = single(tmp_path, *arguments)
    node.environment.update(environment)
    line = await refused(node)
    assert all(word in line for word in words), line
    assert not node.data_dir.exists()


async def test_an_initial_cluster_that_is_out_of_date_keeps_no_node_from_starting(tmp_path: Path) -> None:
    """Not even one that does not know this node any more, or has it elsewhere."""
    node = single(tmp_path)
    await node.start()
    await node.ready()
    for outdated in ("n7=127.0.0.1:1", f"{node.name}=127.0.0.1:1,n7=127.0.0.1:2"):
        await node.stop()
        before = len(node.log_tail(10_000).splitlines())
        node.arguments = ["--initial-cluster", outdated]
        await node.start()
        await node.ready()
        said = node.log_tail(10_000).splitlines()[before:]
        (warning,) = (line for line in said if "WARNING" in line)
        assert "127.0.0.1:1" in warning
        assert f"does not list 127.0.0.1:{node.peer_port}" in warning
    await node.stop()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[members]\n", ["line 1"]),
        ('node = "n1"\n[[members]]\nname = "n1"\ncolour = "red"\n', ["colour"]),
    ],
    ids=["not TOML", "unknown key"],
)
async def test_a_wrong_file_is_named_with_line_or_key(text: str, words: list[str], tmp_path: Path) -> None:
    file = tmp_path / "Connect.toml"
    file.write_text(text)
    line = await refused(single(tmp_path, "--config", str(file)))
    assert all(word in line for word in [str(file), *words]), line


async def test_ports_and_directories_in_use_are_named(tmp_path: Path) -> None:
    running = single(tmp_path)
    await running.start()
    try:
        await running.ready()
        for attribute in ("client_port", "peer_port", "http_port"):
            other = single(tmp_path, name="other")
            setattr(other, attribute, getattr(running, attribute))
            line = await refused(other)
            assert f"127.0.0.1:{getattr(running, attribute)}" in line
            assert "address already in use" in line.lower()
            assert not other.data_dir.exists()
        other = single(tmp_path)
        assert str(running.data_dir / "log") in (line := await refused(other))
        assert "another process holds it" in line
        assert await running.http("/readyz") == 200
    finally:
        await running.kill()


async def test_a_directory_of_another_member_or_cluster_is_refused(tmp_path: Path) -> None:
    async with ProcessCluster(tmp_path) as cluster:
        n1, n2, n3 = cluster.nodes
        for node in (n1, n2):
            await node.kill()
        own = n1.data_dir
        n1.data_dir = n2.data_dir
        assert "belongs to member n2, not n1" in await refused(n1)
        n1.data_dir = own
        await n2.start()
        await n2.ready()
        async with ProcessCluster(tmp_path / "other", size=1) as other:
            stranger = other.nodes[0]
            assert stranger.name == n1.name
            await stranger.stop()
            n1.data_dir = stranger.data_dir
            line = await refused(n1)
            assert "another cluster" in line
            assert str(n1.data_dir) in line
        assert await n3.http("/readyz") == 200


async def test_a_wiped_directory_is_refused(tmp_path: Path) -> None:
    """It does not vote twice: the member must be removed and added again."""
    async with ProcessCluster(tmp_path) as cluster:
        leader = await cluster.leader()
        wiped = next(node for node in cluster.nodes if node is not leader)
        await wiped.kill()
        shutil.rmtree(wiped.data_dir)
        line = await refused(wiped)
        assert "another data directory" in line
        assert "remove it from the cluster and add it again" in line
        async with cluster.client() as client:
            await client.put("still", "there")


async def write_some(directory: Path) -> tuple[NodeProcess, set[str]]:
    """A node with keys on disk, killed; and the keys."""
    node = single(directory)
    await node.start()
    await node.ready()
    async with connect_kv.connect(node.client_address) as client:
        await asyncio.gather(*(client.put(f"k{number:03}", b"v" * 500) for number in range(200)))
    await node.kill()
    return node, {f"k{number:03}" for number in range(200)}


def newest(directory: Path, pattern: str) -> Path:
    return max(directory.glob(pattern), key=lambda path: (len(path.name), path.name))


async def test_a_write_ahead_log_cut_short_at_any_byte_recovers(tmp_path: Path) -> None:
    """Silently, up to some write: what is there is a prefix of what was written one after another."""
    node = single(tmp_path)
    await node.start()
    await node.ready()
    async with connect_kv.connect(node.client_address, session=False) as client:
        for number in range(60):
            await client.put(f"k{number:03}", b"v" * 100)
    await node.kill()
    whole = node.data_dir.rename(tmp_path / "whole")
    rng = random.Random(4)
    # The state's log is cut with the log's: the state never holds what the log does not.
    for _ in range(rounds(6)):
        shutil.copytree(whole, node.data_dir)
        for database in ("state/1", "log"):
            file = newest(node.data_dir / database, "*.log")
            data = file.read_bytes()
            kept = rng.randint(len(data) // 2, len(data)) if database == "log" else 0
            file.write_bytes(data[:kept])
        await node.start()
        await node.ready()
        async with connect_kv.connect(node.client_address, session=False) as client:
            found = [one.key.decode() for one in await client.get_prefix("k")]
            assert found == [f"k{number:03}" for number in range(len(found))]
            await client.put("after", "the cut")
        await node.kill()
        assert "ERROR" not in node.log_tail(1000)
        shutil.rmtree(node.data_dir)


Damage = Callable[[Path], Path]


def flip_in_log(data_dir: Path) -> Path:
    """A byte in the middle of the write-ahead log: what comes after it was acknowledged."""
    return flip(newest(data_dir / "log", "*.log"))


def flip_in_manifest(data_dir: Path) -> Path:
    return flip(newest(data_dir / "log", "MANIFEST-*"))


def remove_current(data_dir: Path) -> Path:
    (data_dir / "state" / "1" / "CURRENT").unlink()
    return data_dir / "state" / "1"


def remove_current_of_log(data_dir: Path) -> Path:
    (data_dir / "log" / "CURRENT").unlink()
    return data_dir / "log"


def remove_log(data_dir: Path) -> Path:
    """What it promised is gone; it must not begin anew and delete the state."""
    shutil.rmtree(data_dir / "log")
    return data_dir / "log"


def remove_state(data_dir: Path) -> Path:
    shutil.rmtree(data_dir / "state")
    return data_dir / "state" / "1"


def flip(file: Path) -> Path:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x55
    file.write_bytes(data)
    return file.parent


@pytest.mark.parametrize(
    "damage",
    [flip_in_log, flip_in_manifest, remove_current, remove_current_of_log, remove_log, remove_state],
)
async def test_other_damage_is_refused_by_name(damage: Damage, tmp_path: Path) -> None:
    node, _ = await write_some(tmp_path)
    database = damage(node.data_dir)
    await node.start()
    assert await node.wait(30) not in (0, None)
    said = [line for line in node.log_tail(1000).splitlines() if line.startswith("connect-kv: ")]
    assert len(said) == 1, node.log_tail()
    assert str(database) in said[0]
    assert "docs/operations.md" in said[0]
    assert not any((node.data_dir / "state").glob("[!1]*"))
    assert "Traceback" not in node.log_tail(1000)
