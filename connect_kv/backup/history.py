"""The history of keys, from a file of etcd's into a new state database.

LevelDB is given whole tables: putting each key three times would take several times as long. The history is
in order already; keys are brought into order through spools on disk, a range of them at a time, so that
memory does not grow with the file. Ranges are chosen by a look at some of the pages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from connect_kv.backup.fillers import fillers, processors
from connect_kv.backup.filling_job import RangesDone, Stretch, gather, spread
from connect_kv.etcd_files import records
from connect_kv.etcd_files.checksums import crc32c, joined
from connect_kv.etcd_files.reader import BoltFile, Subtree
from connect_kv.interfaces import Worker
from connect_kv.kv.scan import T, Walk
from connect_kv.protowire import read_varint
from connect_kv.rpc.kv_pb2 import KeyValue
from connect_kv.storage.bulk import adopt
from connect_kv.storage.engine import Engine
from connect_kv.storage.tables import MadeTable

PART_BYTES = 6 << 20
"""Of a range of keys: so much of it is in memory, and as much again of what is made of it."""
ALONE_BYTES = 16 << 20
"""A file up to this size is read by this process."""
_BATCH_RECORDS = 4096
_STRETCHES = 64
"""A tree is divided among processes at about so many places."""
_SAMPLES_PER_PART = 4
_LEAST_SAMPLES, _MOST_SAMPLES = 64, 2048
"""Pages that are looked at."""

Told = Callable[[int], None]


@dataclass(slots=True)
class Loaded:
    """What was put into a database."""

    last: int = 0
    """Revision of the last record; 0 without any."""
    live: int = 0
    indexed: int = 0
    checksum: int = 0
    """CRC-32C of the records, as HashKV takes them: but for what a compaction leaves out."""
    spools: list[Path] = field(default_factory=list)
    """Files with what hangs on leases."""

    def attachments(self) -> Iterator[bytes]:
        """Entries of LEASE_KEYS, which are not in the database yet."""
        for path in self.spools:
            data, at = path.read_bytes(), 0
            while at < len(data):
                size, at = read_varint(data, at)
                yield data[at : at + size]
                at += size


async def load_history(file: BoltFile, database: Path, work: Path, told: Told) -> Loaded:
    """Put it into a new database, which is closed, with what follows from it; but for `attachments`.

    `work` is an empty directory of the same file system, for files that are of no use afterwards. `told`
    is given bytes as they are done; at the end, about twice those of the records. On disk on return.
    Raises ValueError, DecodeError, CorruptStorage, StorageError, OSError.
    """
    bounds = _bounds(file)
    if file.content_bytes <= ALONE_BYTES:
        stretches = [spread(file.path, (), work, "s0", bounds, told)]
        parts = [gather([work / "s0"], range(len(bounds) + 1), work, "g0", told)]
    else:
        stretches, parts = await _beside_each_other(file, bounds, work, told)
    tables = [table for stretch in stretches for table in stretch.tables]
    adopt(database, tables + [table for part in parts for table in part.tables])
    extend = crc32c()
    loaded = Loaded(checksum=extend(0, records.KEY))
    for stretch in stretches:
        loaded.last = stretch.last or loaded.last
        loaded.checksum = joined(loaded.checksum, stretch.checksum, stretch.checked)
    for number, part in enumerate(parts):
        loaded.live += part.live
        loaded.indexed += part.indexed
        loaded.spools.append(work / f"g{number}-leases")
    return loaded


async def _beside_each_other(
    file: BoltFile, bounds: Sequence[bytes], work: Path, told: Told
) -> tuple[list[Stretch], list[RangesDone]]:
    subtrees = file.subtrees(records.KEY, _STRETCHES)
    ranges = range(len(bounds) + 1)
    count = max(1, min(processors(), len(subtrees)))
    spools = [work / f"s{number}" for number in range(count)]
    hexed = [bound.hex() for bound in bounds]
    async with AsyncExitStack() as stack:
        crew = await fillers(stack, count, told)
        stretches = await asyncio.gather(
            *(
                one.do(
                    do="spread",
                    source=str(file.path),
                    under=[_named(subtree) for subtree in _share(subtrees, number, count)],
                    directory=str(work),
                    name=f"s{number}",
                    bounds=hexed,
                )
                for number, one in enumerate(crew)
            )
        )
        parts = await asyncio.gather(
            *(
                one.do(
                    do="gather",
                    spools=[str(path) for path in spools],
                    parts=list(_share(ranges, number, count)),
                    directory=str(work),
                    name=f"g{number}",
                )
                for number, one in enumerate(crew)
            )
        )
    return (
        [Stretch(**{**one, "tables": _tables(one["tables"])}) for one in stretches],
        [RangesDone(**{**one, "tables": _tables(one["tables"])}) for one in parts],
    )


def _share(whole: Sequence[Any], number: int, count: int) -> Sequence[Any]:
    return whole[len(whole) * number // count : len(whole) * (number + 1) // count]


def _named(subtree: Subtree) -> tuple[str, int, str | None]:
    return subtree.low.hex(), subtree.page, None if subtree.high is None else subtree.high.hex()


def _tables(told: Sequence[tuple[str, int, str, str]]) -> list[MadeTable]:
    return [
        MadeTable(path, size, bytes.fromhex(first), bytes.fromhex(last)) for path, size, first, last in told
    ]


def _bounds(file: BoltFile) -> list[bytes]:
    """Keys that divide those of the file into ranges of about PART_BYTES."""
    count = -(-file.content_bytes // PART_BYTES)
    if count <= 1:
        return []
    samples = min(max(_SAMPLES_PER_PART * count, _LEAST_SAMPLES), _MOST_SAMPLES)
    subtrees = file.subtrees(records.KEY, samples)
    sizes: dict[bytes, int] = {}
    for number in range(min(samples, len(subtrees))):
        subtree = subtrees[len(subtrees) * number // min(samples, len(subtrees))]
        for _, record in next(file.leaves(records.KEY, [subtree]), []):
            key = KeyValue.FromString(record).key
            sizes[key] = sizes.get(key, 0) + len(record)
    bounds: list[bytes] = []
    share, passed = sum(sizes.values()) / count, 0
    for key in sorted(sizes):
        if passed >= share * (len(bounds) + 1):
            bounds.append(key)
        passed += sizes[key]
    return bounds


async def write_attachments(loaded: Loaded, engine: Engine, worker: Worker) -> None:
    """Put what hangs on leases into the database, which is open. Not synced."""
    entries = loaded.attachments()
    while changes := {entry: b"" for entry in islice(entries, _BATCH_RECORDS)}:
        await worker.run(partial(engine.batch(changes).write, sync=False))


def ended(walk: Walk[T]) -> T:
    """Its result, without pauses: nobody else is to run."""
    while True:
        try:
            next(walk)
        except StopIteration as end:
            result: T = end.value
            return result
