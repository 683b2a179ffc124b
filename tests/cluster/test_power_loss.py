"""What a node acknowledged is there after the power failed, whatever of the unsynced data the disk kept."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import connect_kv
from connect_kv.testing.ports import free_ports
from connect_kv.testing.processes import DidNotStart, NodeProcess
from tests.cluster import power_loss
from tests.cluster.conftest import needs, rounds

WRITERS = 20


@dataclass(frozen=True, slots=True)
class Recording:
    """A node's file operations, and when each of its writes was acknowledged (seconds since 1970)."""

    root: Path
    operations: list[power_loss.Operation]
    acknowledged: dict[str, float]


def one_node(directory: Path, data_dir: Path) -> NodeProcess:
    client, peer, http = free_ports(3)
    node = NodeProcess("default", directory, (client, peer, http), [])
    node.data_dir = data_dir
    return node


async def record(
    directory: Path, writes: int, value_bytes: int, program: str = "connect_kv.cli.main"
) -> Recording:
    """Run a node under strace while callers write numbered keys; then kill it."""
    trace = directory / "trace"
    node = one_node(directory, directory / "data")
    node.wrapper = power_loss.tracer(trace)
    node.program = program
    await node.start()
    await node.ready(60)
    acknowledged: dict[str, float] = {}
    rng = random.Random(1)
    async with connect_kv.connect(node.client_address) as client:

        async def writer(number: int) -> None:
            for count in range(writes // WRITERS):
                key = f"k{number}-{count}"
                await client.put(key, rng.randbytes(value_bytes), timeout=60)
                # The clock strace stamps with: an answer seen now was sent after what it had recorded by now.
                acknowledged[key] = time.time()

        await asyncio.gather(*(writer(number) for number in range(WRITERS)))
    await node.kill()
    return Recording(node.data_dir, power_loss.read_trace(trace, node.data_dir), acknowledged)


async def survivors(directory: Path, data_dir: Path) -> set[str] | str:
    """The keys a node finds in such a directory, or the line with which it refuses to start."""
    node = one_node(directory, data_dir)
    await node.start()
    try:
        await node.ready()
        async with connect_kv.connect(node.client_address, session=False) as client:
            found = await client.range("k", "l", keys_only=True, timeout=30)
            return {one.key.decode() for one in found.kvs}
    except DidNotStart:
        assert not node.running
        assert node.returncode not in (0, None)
        return node.log_tail(3)
    finally:
        await node.kill()
        node.log_file.unlink()


@dataclass(slots=True)
class Verdict:
    """What came of the power failures."""

    failures: int = 0
    lost: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


async def fail_at(recording: Recording, directory: Path, cases: int, *, worst: bool = False) -> Verdict:
    """Restart from that many directories the disk may have held; stops at the first loss."""
    rng = random.Random(2)
    verdict = Verdict()
    for moment in power_loss.moments(recording.operations, cases, rng):
        model = power_loss.DiskModel(recording.root)
        for operation in recording.operations[:moment]:
            model.apply(operation)
        now = recording.operations[moment - 1].time
        copy = directory / "after"
        model.write_after_power_loss(copy, rng, worst=worst)
        found = await survivors(directory, copy)
        shutil.rmtree(copy, ignore_errors=True)
        verdict.failures += 1
        if isinstance(found, str):
            verdict.refused.append(found)
            continue
        verdict.lost = [
            key for key, time in recording.acknowledged.items() if time < now and key not in found
        ]
        if verdict.lost:
            break
    return verdict


async def test_nothing_acknowledged_is_lost_when_the_power_fails(tmp_path: Path) -> None:
    needs("strace")
    recording = await record(tmp_path, writes=1200, value_bytes=6000)
    verdict = await fail_at(recording, tmp_path, rounds(12))
    print(
        f"{verdict.failures} power failures, {len(verdict.refused)} refused by name: {set(verdict.refused)}"
    )
    assert not verdict.lost, f"{len(verdict.lost)} acknowledged writes lost, such as {verdict.lost[:3]}"
    assert not any("Traceback" in line for line in verdict.refused)
    assert len(verdict.refused) <= verdict.failures / 4


async def test_the_test_notices_a_log_that_is_not_synced(tmp_path: Path) -> None:
    needs("strace")
    recording = await record(tmp_path, writes=400, value_bytes=6000, program="tests.cluster.unsynced")
    verdict = await fail_at(recording, tmp_path, 10, worst=True)
    assert verdict.lost or len(verdict.refused) > verdict.failures / 2
