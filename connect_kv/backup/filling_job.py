"""The work of filling a new state database with a history, in pieces that processes of their own can do.

`spread`: a stretch of the history, in order of revisions, becomes tables of HISTORY and a spool of changes
by key. `gather`: parts of all spools, in order of keys, become tables of CURRENT and of INDEX. No two tables
overlap. ``python -m connect_kv.backup.filling_job`` does jobs as they come, a line of JSON each.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from connect_kv.backup.spool import WAITING_BYTES, SpoolReader, SpoolWriter
from connect_kv.errors import CorruptStorage
from connect_kv.etcd_files import records
from connect_kv.etcd_files.checksums import crc32c
from connect_kv.etcd_files.reader import BoltFile, Subtree
from connect_kv.kv.filling import KeyRange, Spread
from connect_kv.protowire import varint
from connect_kv.storage.bulk import SEQUENCE
from connect_kv.storage.tables import MadeTable, TableSeries

Told = Callable[[int], None]
"""Told bytes that were done since the last time."""

_HISTORY_PAIRS = 256
_TOLD_BYTES = 1 << 20


class Stretch(NamedTuple):
    """What became of a stretch of the history."""

    tables: list[MadeTable]
    last: int
    """Its last revision; 0 without any."""
    checksum: int
    """CRC-32C of its records, keys and values, as HashKV takes them: but for what a compaction leaves out."""
    checked: int
    """Bytes of keys and values that went into `checksum`."""


class RangesDone(NamedTuple):
    """What became of parts of the key space."""

    tables: list[MadeTable]
    live: int
    indexed: int


def spread(
    source: Path, under: Sequence[Subtree], directory: Path, name: str, bounds: Sequence[bytes], told: Told
) -> Stretch:
    """Raises CorruptStorage, ValueError, DecodeError, OSError."""
    extend = crc32c()
    checksum = checked = waiting = done = 0
    step, spool = Spread(), SpoolWriter(directory / name, bounds)
    history = TableSeries(directory, f"{name}-history", SEQUENCE)
    with BoltFile(source) as file:
        for leaf in file.leaves(records.KEY, under):
            step.leaf(leaf)
            counts = leaf if all(record for _, record in leaf) else [pair for pair in leaf if pair[1]]
            content = b"".join(chain.from_iterable(counts))
            checksum = extend(checksum, content)
            checked += len(content)
            if len(step.history) >= _HISTORY_PAIRS or step.size >= WAITING_BYTES:
                history.add(step.history)
                spool.add(step.changes)
                waiting += step.size
                step.history.clear()
                step.changes.clear()
                step.size = 0
                if waiting >= WAITING_BYTES:
                    spool.flush()
                    waiting = 0
            if checked - done >= _TOLD_BYTES:
                told(checked - done)
                done = checked
    history.add(step.history)
    spool.add(step.changes)
    spool.finish()
    told(checked - done)
    return Stretch(history.finish(), step.last, checksum, checked)


def gather(
    spools: Sequence[Path], parts: Sequence[int], directory: Path, name: str, told: Told
) -> RangesDone:
    """`parts` ascend. What hangs on leases goes into a file ``<name>-leases``, as `attachments` reads it."""
    current = TableSeries(directory, f"{name}-current", SEQUENCE)
    index = TableSeries(directory, f"{name}-index", SEQUENCE)
    readers = [SpoolReader(path) for path in spools]
    live = indexed = 0
    with (directory / f"{name}-leases").open("wb") as attached:
        for part in parts:
            keys, done = KeyRange(), 0
            for reader in readers:
                for changes in reader.part(part):
                    keys.add(changes)
                    done += sum(len(record) for _, _, record, _ in changes if record is not None)
            keys.sort()
            live += keys.live
            indexed += keys.indexed
            current.add(keys.current())
            index.add(keys.index())
            for entry in keys.attachments():
                attached.write(varint(len(entry)) + entry)
            told(done)
    for reader in readers:
        reader.close()
    return RangesDone(current.finish() + index.finish(), live, indexed)


def _do(job: Mapping[str, Any], told: Told) -> Mapping[str, Any]:
    directory, name = Path(job["directory"]), job["name"]
    if job["do"] == "gather":
        parts = gather([Path(path) for path in job["spools"]], job["parts"], directory, name, told)
        return {**parts._asdict(), "tables": _told_tables(parts.tables)}
    under = [
        Subtree(bytes.fromhex(low), page, None if high is None else bytes.fromhex(high))
        for low, page, high in job["under"]
    ]
    bounds = [bytes.fromhex(bound) for bound in job["bounds"]]
    stretch = spread(Path(job["source"]), under, directory, name, bounds, told)
    return {**stretch._asdict(), "tables": _told_tables(stretch.tables)}


def _told_tables(tables: Sequence[MadeTable]) -> list[tuple[str, int, str, str]]:
    return [(one.path, one.size, one.smallest.hex(), one.largest.hex()) for one in tables]


def _tell(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Do jobs until there are no more; what goes wrong with one is told."""
    for line in sys.stdin:
        try:
            _tell(result=_do(json.loads(line), lambda done: _tell(done=done)))
        except CorruptStorage as error:
            _tell(damaged=(error.database, error.reason))
        except (ValueError, DecodeError) as error:
            _tell(invalid=str(error))
        except OSError as error:
            _tell(failed=(error.errno, error.strerror, error.filename))


if __name__ == "__main__":
    main()
