"""Figures of one node beside those of one etcd, in the same run: ``scripts/figures`` prints a table."""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc

from connect_kv.rpc import kv_pb2 as kv
from tests.etcd import find_etcd
from tests.figures.expiry import leases_end
from tests.figures.large import large_transactions
from tests.figures.sides import (
    Figures,
    Ours,
    Side,
    Theirs,
    caller,
    channel,
    disk,
    first_answer,
    memory,
    timed,
    unary,
)
from tests.figures.watching import hot_key, idle_watches

VALUE = 256
OPERATIONS = 128
"""Puts of one transaction, the most etcd takes."""
LOADERS = 16
PAGE = 10_000
SETTLED = 0.02
"""The disk is settled when a second changes its use by less than this part."""

PARTS = ("hot", "idle", "leases", "large", "keys", "versions")


def value(rng: random.Random) -> bytes:
    """Half of it compresses, as most do."""
    return rng.randbytes(VALUE // 2) + bytes(VALUE // 2)


async def put_all(connection: grpc.aio.Channel, name: str, keys: int) -> float:
    """Put them, in transactions; puts/s."""
    rng = random.Random(name)
    call = caller(connection, "KV/Txn")
    batches = iter(range(0, keys, OPERATIONS))

    async def loader() -> None:
        for first in batches:
            puts = [
                kv.PutRequest(key=b"%s/%09d" % (name.encode(), number), value=value(rng))
                for number in range(first, min(first + OPERATIONS, keys))
            ]
            await call(kv.TxnRequest(success=[kv.RequestOp(request_put=put) for put in puts]), timeout=120)

    took = await timed(lambda: asyncio.gather(*(loader() for _ in range(LOADERS))))
    return keys / took


async def many_keys(side: Side, keys: int) -> Figures:
    """A node that holds many keys: as it was written, and started again."""
    async with channel(side) as connection:
        rate = await put_all(connection, "key", keys)
    written = memory(side)
    await side.stop()
    started = await first_answer(side)
    fresh = memory(side)
    async with channel(side) as connection:
        everything = kv.RangeRequest(key=b"\x00", range_end=b"\x00", count_only=True)
        counts = [await timed(lambda: unary(connection, "KV/Range", everything)) for _ in range(3)]
        middle = kv.RangeRequest(key=b"key/%09d" % (keys // 2), range_end=b"kez", limit=PAGE)
        part = kv.RangeRequest(key=b"key/%09d" % (keys // 10), range_end=b"kez", count_only=True)
        pages = [await timed(lambda: unary(connection, "KV/Range", middle)) for _ in range(5)]
        parts = [await timed(lambda: unary(connection, "KV/Range", part)) for _ in range(3)]
    used = memory(side)
    return {
        f"{keys:,} keys of {VALUE} bytes written in transactions of {OPERATIONS}: keys/s": f"{rate:,.0f}",
        "memory after writing, MiB: anonymous / resident": f"{written[0]:.0f} / {written[1]:.0f}",
        "start of the process to the first linearizable answer, s": f"{started:.2f}",
        "memory after the start, MiB: anonymous / resident": f"{fresh[0]:.0f} / {fresh[1]:.0f}",
        "count of everything, ms": f"{statistics.median(counts) * 1000:.1f}",
        "count of nine tenths, ms": f"{statistics.median(parts) * 1000:.0f}",
        f"page of {PAGE:,} keys with values, ms": f"{statistics.median(pages) * 1000:.0f}",
        "memory after these reads, MiB: anonymous / resident": f"{used[0]:.0f} / {used[1]:.0f}",
        "data on disk, MiB": f"{disk(side):.0f}",
    }


async def versions(side: Side, keys: int, times: int) -> Figures:
    """Each of some keys written many times, then compacted."""
    async with channel(side) as connection:
        await put_all(connection, "version", keys)
        once = await settled(side)
        for _ in range(times - 1):
            await put_all(connection, "version", keys)
        full = await settled(side)
        answer = await unary(connection, "KV/Range", kv.RangeRequest(key=b"first"))
        compaction = kv.CompactionRequest(revision=answer.header.revision, physical=True)
        took = await timed(lambda: unary(connection, "KV/Compact", compaction))
        remark = await side.give_back_space()
        after = await settled(side)
    return {
        f"{keys:,} keys: data on disk with 1 version, MiB": f"{once:.0f}",
        f"with {times} versions of each, MiB": f"{full:.0f}",
        "after compaction, MiB": f"{after:.0f} {remark}".strip(),
        "compaction with `physical`, s": f"{took:.1f}",
    }


async def settled(side: Side) -> float:
    """Use of the disk once it has stopped changing, at most a minute later."""
    before = disk(side)
    for _ in range(20):
        await asyncio.sleep(3)
        now = disk(side)
        if abs(now - before) <= SETTLED * before:
            return now
        before = now
    return before


async def figures(side: Side, options: argparse.Namespace) -> Figures:
    parts: dict[str, Callable[[], Awaitable[Figures]]] = {
        "hot": lambda: hot_key(side, options.watches, options.seconds),
        "idle": lambda: idle_watches(side, options.idle, options.seconds),
        "leases": lambda: leases_end(side, options.leases),
        "large": lambda: large_transactions(side, options.large),
        "keys": lambda: many_keys(side, options.keys),
        "versions": lambda: versions(side, options.keys // 10, 10),
    }
    found: Figures = {}
    await first_answer(side)
    for name in options.only or PARTS:
        found |= await parts[name]()
    await side.stop()
    return found


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts to measure; default: all")
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--watches", type=int, default=1_000, help="of the hot key")
    parser.add_argument("--idle", type=int, default=50_000, help="watches of keys that nobody writes")
    parser.add_argument("--leases", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=50_000, help="keys read by one transaction")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement of puts/s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="connect-kv-figures-") as name:
        directory = Path(name)
        sides: list[Side] = [Ours(directory / "ours")]
        if (program := find_etcd()) is not None:
            sides.append(Theirs(directory / "etcd", program))
        columns = []
        for side in sides:
            columns.append(await figures(side, options))
            print(side.name, columns[-1], file=sys.stderr, flush=True)
    print("| |" + "|".join(f" {side.name} " for side in sides) + "|")
    print("|---|" + "---|" * len(sides))
    for title, ours in columns[0].items():
        rest = [column.get(title, "") for column in columns[1:]]
        print(f"| {title} | " + " | ".join([ours, *rest]) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
