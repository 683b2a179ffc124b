"""NOSPACE and CORRUPT on real disks: raised, what they stop, and how an operator ends them."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import connect_kv
from connect_kv.client import txn
from connect_kv.client.client import Client
from connect_kv.errors import Refused
from connect_kv.kv import layout
from connect_kv.storage.leveldb_binding import plyvel
from connect_kv.testing.processes import NodeProcess, ProcessCluster, until
from tests.cluster.conftest import scaled
from tests.cluster.test_members import replace

MIB = 1 << 20


async def command(cluster: ProcessCluster, *words: str) -> Any:
    """Run ``connect-kv`` as an operator does; its JSON answer."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "connect_kv.cli.main", *words,
        "-o", "json", "--timeout", "20",
        "--endpoints", ",".join(node.client_address for node in cluster.nodes),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return json.loads(out)


def on_disk(node: NodeProcess) -> int:
    """Bytes in the files of its state."""
    return sum(file.stat().st_size for file in (node.data_dir / "state").rglob("*") if file.is_file())


async def refused(client: Client, why: str) -> bool:
    """Whether a put is refused for that reason."""
    try:
        await client.put("small", "v")
    except Refused as error:
        return why in error.message
    return False


async def fill(client: Client, value: bytes, most: int) -> int:
    """Put until it is refused for lack of space; how many bytes were put, at most `most`."""
    done = 0
    while done < most:
        try:
            await asyncio.gather(*(client.put(f"k/{done + at}", value) for at in range(10)))
        except Refused as error:
            if "database space exceeded" not in error.message:
                raise
            return done
        done += 10 * len(value)
    raise AssertionError("nothing was refused")


async def test_space_comes_back_after_deletes_a_compaction_and_a_defragmentation(tmp_path: Path) -> None:
    """Members refuse puts, take deletes, shrink on disk, and take puts again once the alarm is ended."""
    quota = int(scaled(32, 512)) * MIB
    value = bytes(range(256)) * 400
    arguments = ["--quota-bytes", str(quota)]
    async with ProcessCluster(tmp_path, arguments=arguments) as cluster:
        async with connect_kv.connect(cluster.endpoints) as client:
            filled = await fill(client, value, 4 * quota)
        full = [on_disk(node) for node in cluster.nodes]
        for node in cluster.nodes:
            async with connect_kv.connect(node.client_address) as client:
                await until(lambda: refused(client, "database space exceeded"), 20, "the alarm here")
                assert await client.get("k/0") is not None
            assert await node.http("/health") == 503
            assert await node.http("/health?exclude=NOSPACE") == 200
            assert await node.http("/readyz") == 200
        assert {one["alarm"] for one in await command(cluster, "alarm", "list")} == {"NOSPACE"}
        async with connect_kv.connect(cluster.endpoints) as client:
            revision = (await client.delete("k/", prefix=True)).header.revision
        await command(cluster, "compact", str(revision))
        await command(cluster, "defrag")

        async def shrunk() -> bool:
            return all(on_disk(node) < before / 4 for node, before in zip(cluster.nodes, full, strict=True))

        await until(shrunk, 60, "the space to come back")
        assert await command(cluster, "alarm", "disarm")
        assert await command(cluster, "alarm", "list") == []
        async with connect_kv.connect(cluster.endpoints) as client:

            async def taken() -> bool:
                # Each member measures once a second.
                return not await refused(client, "database space exceeded")

            await until(taken, 20, "a put to be taken")
        assert [await node.http("/health") for node in cluster.nodes] == [200] * 3
        after = [on_disk(node) for node in cluster.nodes]
        hashes = {one["hash"] for one in await command(cluster, "hash")}
    assert len(hashes) == 1
    print(
        f"full after {filled / MIB:.0f} MiB of values (quota {quota / MIB:.0f} MiB); "
        f"on disk {in_mib(full)} MiB, then {in_mib(after)} MiB"
    )


def in_mib(sizes: list[int]) -> str:
    return ", ".join(f"{size / MIB:.1f}" for size in sizes)


def change_a_value(node: NodeProcess, space: bytes) -> None:
    """There in a stopped node's database, behind its back; LevelDB's own checksums are right."""
    (state,) = (node.data_dir / "state").iterdir()
    database = plyvel.DB(str(state))
    try:
        with database.iterator(start=space, stop=bytes([space[0] + 1])) as records:
            key, record = next(records)
        database.put(key, record[:-1] + bytes([record[-1] ^ 1]), sync=True)
    finally:
        database.close()


@pytest.mark.parametrize("space", [layout.HISTORY, layout.CURRENT], ids=["history", "current values"])
async def test_a_member_with_other_data_is_found_and_replaced(tmp_path: Path, space: bytes) -> None:
    """The alarm CORRUPT stops writes on all until the member is replaced and the alarm ended."""
    arguments = ["--corruption-check-seconds", "1"]
    async with ProcessCluster(tmp_path, arguments=arguments, spares=1) as cluster:
        async with connect_kv.connect(cluster.endpoints) as client:
            for number in range(50):
                await client.put(f"k/{number}", f"{number}")
        assert len({one["hash"] for one in await command(cluster, "hash")}) == 1
        leader = await cluster.leader()
        bad = next(node for node in cluster.nodes if node is not leader)
        await bad.stop()
        change_a_value(bad, space)
        await bad.start()  # it may be named before it is ready

        async def raised() -> Any:
            return await command(cluster, "alarm", "list")

        (alarm,) = await until(raised, 30, "the alarm")
        members = {one["id"]: one["name"] for one in await command(cluster, "member", "list")}
        assert (alarm["alarm"], members[alarm["member"]]) == ("CORRUPT", bad.name)
        for node in cluster.nodes:
            async with connect_kv.connect(node.client_address) as client:
                await until(lambda: refused(client, "corrupt cluster"), 20, "the alarm here")
            assert await node.http("/readyz") == 503
            assert await node.http("/readyz?exclude=data_corruption") == 200

        async def found() -> bool:
            return "the newest change of b'k/0' is not its current value" in bad.log_file.read_text()

        await until(found, 20, "the member to find it itself, which the leader may have done before")
        if space == layout.HISTORY:

            async def told() -> bool:
                leader = await cluster.leader()
                return "a member's data differs from the others'" in leader.log_file.read_text()

            await until(told, 20, "the leader to find it, too")
        (new,) = cluster.spares
        async with connect_kv.connect(cluster.endpoints, session=False) as client:
            await replace(cluster, client, bad, new)
        await command(cluster, "alarm", "disarm")
        async with connect_kv.connect(cluster.endpoints) as client:
            await client.put("small", "v")
            assert len(await client.get_prefix("k/")) == 50
        assert len({one["hash"] for one in await command(cluster, "hash")}) == 1


async def test_members_that_are_well_are_never_named(tmp_path: Path) -> None:
    """Compared again and again while keys, leases and compactions come and go, and one is killed."""
    arguments = ["--corruption-check-seconds", "1"]
    async with ProcessCluster(tmp_path, arguments=arguments) as cluster:
        loop = asyncio.get_running_loop()
        end = loop.time() + scaled(8, 60)
        warm = asyncio.Event()

        async def use(caller: int) -> None:
            turn = 0
            async with connect_kv.connect(cluster.endpoints) as client:
                while loop.time() < end or not warm.is_set():
                    turn += 1
                    if turn == 10:
                        warm.set()
                    lease, _ = await client.grant_lease(60)
                    keys = [f"{caller}/{number}" for number in range(turn % 40)]
                    await asyncio.gather(*(client.put(key, "v" * turn, lease=lease) for key in keys))
                    await client.transaction(
                        success=[txn.put(f"{caller}/x", "1"), txn.put(f"{caller}/y", "2"), txn.delete("x")]
                    )
                    if turn % 3 == 0:
                        await client.revoke_lease(lease)
                    if turn % 5 == 0:
                        last = await client.delete(f"{caller}/", prefix=True)
                        with suppress(connect_kv.Compacted, Refused):  # another caller was quicker
                            await client.compact(last.header.revision)

        async def hurt() -> None:
            await warm.wait()
            await cluster.nodes[0].kill()
            await cluster.nodes[0].start()

        await asyncio.gather(hurt(), *(use(caller) for caller in range(4)))
        assert await command(cluster, "alarm", "list") == []
        told = "".join(node.log_file.read_text() for node in cluster.nodes)
        assert "does not follow from its history" not in told
        assert "differs from the others" not in told
        assert len({one["hash"] for one in await command(cluster, "hash")}) == 1
