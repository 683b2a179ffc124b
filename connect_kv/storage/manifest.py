"""LevelDB's MANIFEST, as far as we must look at it: which write-ahead log does it still need, and which
tables are there?

Like every log, a MANIFEST that ends early is read up to there without a word. If it lost what had
been synced, it speaks of a write-ahead log that has long been turned into a table and deleted, and
LevelDB would neither miss that log nor keep the table. The file it names must exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from connect_kv.errors import CorruptStorage
from connect_kv.protowire import read_varint, varint
from connect_kv.storage.tables import MadeTable

BLOCK = 32768
HEADER = 7
"""Of a piece of a record: checksum, length, kind."""
_FIRST_NAMED = b"MANIFEST-000001\n"
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_COMPARATOR, _LOG, _NEXT_FILE, _LAST_SEQUENCE, _COMPACT_POINTER = 1, 2, 3, 4, 5
_DELETED_FILE, _NEW_FILE, _PREVIOUS_LOG = 6, 7, 9
_TRAILER = 8

T = TypeVar("T")


class Table(NamedTuple):
    """One file of sorted keys."""

    number: int
    """Names its file."""
    level: int
    smallest: bytes
    largest: bytes


def check(path: Path) -> None:
    """Raise CorruptStorage if the log that the MANIFEST needs is gone. For a database made before."""
    needed, _ = read(path)
    if needed and not (path / f"{needed:06}.log").exists():
        raise _damaged(path, f"its write-ahead log {needed:06}.log is missing, or the MANIFEST's end is")


def creation_was_interrupted(path: Path) -> bool:
    """Whether LevelDB got no further than the first MANIFEST, which it does not sync.

    Opening a new database goes on to a second one, and nothing is written to it before. Without this a
    machine that loses its power in that moment would leave a directory that no start can use.
    """
    try:
        named = (path / "CURRENT").read_bytes()
    except FileNotFoundError:
        return False
    return named == _FIRST_NAMED and not holds_data(path)


def holds_data(path: Path) -> bool:
    """Whether anything was ever written: a table, or a write-ahead log with something in it."""
    return any(file.stat().st_size for file in path.iterdir() if file.suffix in (".ldb", ".sst", ".log"))


def read(path: Path) -> tuple[int, int]:
    """What `numbers` finds in the database's MANIFEST. Raises CorruptStorage."""
    return _read(path, numbers)


def lowest_tables(path: Path, start: bytes, stop: bytes) -> tuple[bytes, bytes] | None:
    """The first and last key within tables of the lowest level that has any in ``[start, stop)``.

    Of a database that is open, too: it only ever adds to its MANIFEST. Raises CorruptStorage.
    """
    found = [table for table in _read(path, tables) if table.largest >= start and table.smallest < stop]
    if not found:
        return None
    level = max(table.level for table in found)
    lowest = [table for table in found if table.level == level]
    first, last = min(table.smallest for table in lowest), max(table.largest for table in lowest)
    return max(first, start), min(last, stop)


def _read(path: Path, look: Callable[[bytes], T]) -> T:
    name = (path / "CURRENT").read_text(errors="replace").strip()
    if "/" in name or not (path / name).is_file():
        raise _damaged(path, f"CURRENT names {name!r}, which does not exist")
    try:
        return look((path / name).read_bytes())
    except (IndexError, ValueError) as error:
        raise _damaged(path, f"{name} cannot be read: {error}") from error


def numbers(manifest: bytes) -> tuple[int, int]:
    """(the oldest write-ahead log that holds what is in no table yet, the last sequence number then).

    Each is 0 if it names none. Checksums are LevelDB's to verify. Raises ValueError or IndexError for
    what is no MANIFEST.
    """
    number = sequence = 0
    for record in _records(manifest):
        at = 0
        while at < len(record):
            tag, at = read_varint(record, at)
            if tag == _LOG:
                number, at = read_varint(record, at)
            elif tag == _LAST_SEQUENCE:
                sequence, at = read_varint(record, at)
            else:
                at = _skip(tag, record, at)
    return number, sequence


def tables(manifest: bytes) -> list[Table]:
    """Those there are, in no order. Raises ValueError or IndexError for what is no MANIFEST."""
    found: dict[int, Table] = {}
    for record in _records(manifest):
        at = 0
        while at < len(record):
            tag, at = read_varint(record, at)
            if tag == _NEW_FILE:
                level, at = read_varint(record, at)
                number, at = read_varint(record, at)
                smallest, at = _key(record, read_varint(record, at)[1])
                largest, at = _key(record, at)
                found[number] = Table(number, level, smallest, largest)
            elif tag == _DELETED_FILE:
                number, at = read_varint(record, read_varint(record, at)[1])
                found.pop(number, None)  # what only changes its level is added after that, in the same record
            else:
                at = _skip(tag, record, at)
    return list(found.values())


def next_file(path: Path) -> int:
    """The number that LevelDB would give its next file. Raises CorruptStorage."""
    return _read(path, _next_file)


def _next_file(manifest: bytes) -> int:
    found = 0
    for record in _records(manifest):
        at = 0
        while at < len(record):
            tag, at = read_varint(record, at)
            if tag == _NEXT_FILE:
                found, at = read_varint(record, at)
            else:
                at = _skip(tag, record, at)
    return found


def new_table(level: int, number: int, table: MadeTable) -> bytes:
    """As part of a record: there is one more."""
    keys = b"".join(varint(len(key)) + key for key in (table.smallest, table.largest))
    return bytes((_NEW_FILE, level)) + varint(number) + varint(table.size) + keys


def next_file_is(number: int) -> bytes:
    """As part of a record: what `next_file` is after it."""
    return bytes((_NEXT_FILE,)) + varint(number)


def kind_of_piece(*, first: bool, last: bool) -> int:
    """What the header of a piece of a record says of it."""
    if first:
        return _FULL if last else _FIRST
    return _LAST if last else _MIDDLE


def _records(data: bytes) -> Iterator[bytes]:
    """Whole records; one that is cut off ends them."""
    parts: list[bytes] = []
    at = 0
    while at < len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6 : at + 7]
        at += HEADER + length
        if at > len(data) or kind in (b"", b"\x00"):
            return
        if kind[0] in (_FULL, _FIRST):
            parts = []
        parts.append(data[at - length : at])
        if kind[0] in (_FULL, _LAST):
            yield b"".join(parts)


def _skip(tag: int, record: bytes, at: int) -> int:
    if tag in (_LOG, _NEXT_FILE, _LAST_SEQUENCE, _PREVIOUS_LOG):
        return read_varint(record, at)[1]
    if tag == _COMPARATOR:
        return _skip_bytes(record, at)
    if tag == _COMPACT_POINTER:
        return _skip_bytes(record, read_varint(record, at)[1])
    if tag == _DELETED_FILE:
        return read_varint(record, read_varint(record, at)[1])[1]
    if tag == _NEW_FILE:
        for _ in range(3):
            at = read_varint(record, at)[1]
        return _skip_bytes(record, _skip_bytes(record, at))
    raise ValueError(f"unknown tag {tag}")


def _key(record: bytes, at: int) -> tuple[bytes, int]:
    """A key as its user knows it: without the eight bytes that say when it was written."""
    length, at = read_varint(record, at)
    return record[at : at + length - _TRAILER], at + length


def _skip_bytes(record: bytes, at: int) -> int:
    length, at = read_varint(record, at)
    return at + length


def _damaged(path: Path, reason: str) -> CorruptStorage:
    return CorruptStorage(str(path), f"{reason}; see docs/operations.md")
