"""What an operation costs with more and more keys, and with a longer and longer history: one node each."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import grpc.aio

from benchmarks import loads
from benchmarks.many_keys import start_to_answer
from benchmarks.pairs import PAIRS
from benchmarks.run import BenchmarkRun
from benchmarks.systems import MEBIBYTE, ConnectKv, Etcd, KeyValueSystem
from connect_kv.rpc.kv_pb2 import RangeRequest, RangeResponse
from connect_kv.testing.processes import until

FIRST = 10_000
ETCD_KEYS = 1_000_000
"""It takes a gigabyte of memory for each million: it is not asked for more."""
LOADING_SECONDS = 1200.0
IDLE_SHARE = 0.1
"""The share of a processor below which a member counts as idle."""
SETTLE_SECONDS = 60.0
HOT_KEYS = 1000
CALLERS = ("--callers", "100", "--clients", "1")


async def keys(run: BenchmarkRun) -> None:
    """Puts and reads of random keys among so many, by 100 callers; the process with so many."""
    for system, door in _systems(run):
        system.keep = run.keep is not None
        async with system:
            for step in _steps(run.keys if system.name == ConnectKv.name else min(run.keys, ETCD_KEYS)):
                present = await _count(system.addresses[0])
                if present >= step + PAIRS:
                    continue
                await _add(run, system, door, present, step)
                await _settled(system)
                space = ("--key-space", str(step), "--door", door, *CALLERS)
                # A session reads 10,000 keys in a tenth of a second: too few for ticks of 10 ms.
                reads = 100_000 if door == "session" else 10_000
                for name, total in (("put", 10_000), ("range", reads)):
                    counts = ("--total", str(run.some(total)))
                    row = f"{name}, {step:,} keys"
                    await run.attempt(row, system, loads.bench(system, name, *counts, *space))
                process = {**system.memory(), "disk": _disk(system.directory)}
                process["seconds"] = await start_to_answer(system)
                run.notebook.note(f"node and its start, {step:,} keys", system.name, process)


async def history(run: BenchmarkRun) -> None:
    """Puts of 1,000 keys by 1,000 callers, a tenth of the history at a time."""
    part = max(1000, run.keys // 10)
    for system, door in _systems(run):
        async with system:
            options = ("--key-space", str(HOT_KEYS), "--door", door, "--callers", "1000", "--clients", "1")
            for tenth in range(1, 11):
                load = loads.bench(system, "put", *options, "--total", str(part), timeout=LOADING_SECONDS)
                if tenth in (1, 5, 10):
                    await run.attempt(f"puts up to revision {tenth * part:,}", system, load)
                else:
                    await load


def _steps(keys: int) -> list[int]:
    """Powers of ten, and what was asked for."""
    powers = [FIRST * 10**power for power in range(8)]
    return sorted({*(step for step in powers if step <= keys), keys})


def _systems(run: BenchmarkRun) -> list[tuple[KeyValueSystem, str]]:
    where = run.keep or run.directory
    return [
        (ConnectKv(where / "ours", 1), "session"),
        (Etcd(where / "etcd", run.etcd, 1), "unary"),
    ]


async def _add(run: BenchmarkRun, system: KeyValueSystem, door: str, present: int, wanted: int) -> None:
    """Load what is missing, in transactions."""
    if present >= wanted:
        return
    counts = ("--total", str(-(-(wanted - present) // PAIRS)), "--first", str(present), "--door", door)
    await loads.bench(system, "txn", "--callers", "16", "--clients", "1", *counts, timeout=LOADING_SECONDS)


async def _settled(system: KeyValueSystem) -> None:
    """What was loaded is still being merged: that is part of its loading, not of what comes next."""

    async def idle() -> bool:
        before = system.cpu_seconds()
        await asyncio.sleep(1)
        return system.cpu_seconds() - before < IDLE_SHARE

    await until(idle, SETTLE_SECONDS, f"{system.name} to settle")


async def _count(address: str) -> int:
    async with grpc.aio.insecure_channel(address) as channel:
        get = channel.unary_unary(
            "/etcdserverpb.KV/Range",
            request_serializer=RangeRequest.SerializeToString,
            response_deserializer=RangeResponse.FromString,
        )
        everything = RangeRequest(key=b"\0", range_end=b"\0", count_only=True)
        answer: RangeResponse = await get(everything, timeout=120)
        return answer.count


def _disk(directory: Path) -> float:
    """MiB of everything under it."""
    sizes = (
        os.stat(Path(place) / name).st_blocks * 512
        for place, _, names in os.walk(directory)
        for name in names
    )
    return sum(sizes) / MEBIBYTE
