"""LevelDB's write-ahead log files, as far as we must look at them ourselves. A MANIFEST has the same form.

LevelDB takes a last record that reaches beyond the end of its file for one that was cut short and
drops it, and all that follows it in the block, silently. That is right after a power failure. A
damaged length field looks the same, and would silently cost acknowledged writes; so before a
database is opened, a tail that LevelDB would drop is looked at more closely: whole records in it
mean damage.

The files of one database follow each other; what a power failure took from the end of one, and not from
the next, is a gap that can be seen before LevelDB hides it.

A file is blocks of 32 KiB, a record is ``crc32c (4) | length (2) | type (1) | data``, little-endian,
never across blocks.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from connect_kv.errors import CorruptStorage

_BLOCK = 32768
_HEADER = 7
_FULL, _FIRST, _LAST = 1, 2, 4
_BATCH = struct.Struct("<QI")
"""How a batch begins."""


def files(path: Path) -> list[str]:
    """Names of the write-ahead logs in a database's directory, oldest first."""
    return sorted(
        (name for name in os.listdir(path) if name.endswith(".log")), key=lambda name: (len(name), name)
    )


def check(path: Path) -> None:
    """Raise CorruptStorage if opening the database would silently drop what is not merely cut short."""
    manifests = [file.name for file in path.glob("MANIFEST-*")]
    for name in (*files(path), *manifests):
        plausible = _starts_edit if name in manifests else _starts_batch
        block = _last_block(path / name)
        at = _cut(block)
        if at is not None and _holds_whole_record(block, at, plausible):
            raise CorruptStorage(
                str(path), f"{name}: a record's length is damaged near its end; see docs/operations.md"
            )


def after_gap(path: Path, needed: int, last_sequence: int) -> list[str]:
    """Files that begin after a batch that is in none of them, and all files after such a one, oldest first.

    LevelDB starts a file without syncing the one before, so a power failure may take the end of that
    and leave the next; batches bear sequence numbers, which tell. Files before number `needed` are in
    tables already. `last_sequence` is the MANIFEST's: written when `needed` was the newest file.
    """
    names = [name for name in files(path) if int(name.removesuffix(".log")) >= needed]
    follows: int | None = None
    for position, name in enumerate(names):
        batches = _batches(path / name)
        first = next(batches, None)
        if position and first is not None and first[0] != (last_sequence + 1 if follows is None else follows):
            return names[position:]
        for sequence, count in chain(() if first is None else (first,), batches):
            follows = sequence + count
    return []


def _batches(path: Path) -> Iterator[tuple[int, int]]:
    """(sequence number, count of changes) of each whole batch. Checksums are LevelDB's to verify."""
    data = path.read_bytes()
    at, head = 0, b""
    while at + _HEADER <= len(data):
        if _BLOCK - at % _BLOCK < _HEADER:
            at += _BLOCK - at % _BLOCK
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        start, at = at + _HEADER, at + _HEADER + length
        if at > len(data) or kind == 0:
            return
        if kind in (_FULL, _FIRST):
            head = b""
        if len(head) < _BATCH.size:
            head += data[start : min(at, start + _BATCH.size - len(head))]
        if kind in (_FULL, _LAST) and len(head) == _BATCH.size:
            yield _BATCH.unpack(head)


def _last_block(path: Path) -> bytes:
    """The last block, if it is not full: LevelDB reports a bad length in a full one by itself."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(size - size % _BLOCK)
        return file.read()


def _cut(block: bytes) -> int | None:
    """Where the first record starts that reaches beyond the end, if one does."""
    at = 0
    while at + _HEADER <= len(block):
        length, kind = int.from_bytes(block[at + 4 : at + 6], "little"), block[at + 6]
        if kind == 0 and length == 0:
            return None
        if at + _HEADER + length > len(block):
            return at
        at += _HEADER + length
    return None


def _holds_whole_record(block: bytes, at: int, plausible: Callable[[bytes], bool]) -> bool:
    """Whether the tail that seems cut is, or contains, a record that is whole.

    A checksum takes long here, so `plausible` looks at the start of a record's data first.
    """
    if block[at + 6] <= _LAST and _matches(block, at, len(block) - at - _HEADER):
        return True
    for start in range(at + 1, len(block) - _HEADER):
        if block[start + 6] not in (_FULL, _FIRST):
            continue
        length = int.from_bytes(block[start + 4 : start + 6], "little")
        if not length or start + _HEADER + length > len(block):
            continue
        if plausible(block[start + _HEADER : start + _HEADER + 13]) and _matches(block, start, length):
            return True
    return False


def _starts_batch(data: bytes) -> bool:
    """``sequence (8) | count (4) | kind of the first change``: neither number is ever that large."""
    return len(data) == 13 and data[6:8] == b"\0\0" and data[11] == 0 and data[12] in (0, 1)


def _starts_edit(data: bytes) -> bool:
    """A MANIFEST's record starts with a tag."""
    return 1 <= data[0] <= 9


def _matches(block: bytes, start: int, length: int) -> bool:
    # Loaded here: a member that has not failed looks at no record itself.
    from google_crc32c import value

    masked = int.from_bytes(block[start : start + 4], "little")
    crc: int = value(block[start + 6 : start + _HEADER + length])
    return masked == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
