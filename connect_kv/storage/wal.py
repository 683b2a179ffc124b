"""LevelDB's write-ahead log files, as far as we must look at them ourselves.

LevelDB takes a last record that reaches beyond the end of its file for one that was cut short and
drops it, and all that follows it in the block, silently. That is right after a power failure. A
damaged length field looks the same, and would silently cost acknowledged writes; so before a
database is opened, a tail that LevelDB would drop is looked at more closely: whole records in it
mean damage.

A file is blocks of 32 KiB, a record is ``crc32c (4) | length (2) | type (1) | data``, little-endian,
never across blocks; data of a first or full record starts with ``sequence (8) | count (4)``.
"""

from __future__ import annotations

import os
from pathlib import Path

from connect_kv.errors import CorruptStorage

_BLOCK = 32768
_HEADER = 7
_FULL, _FIRST, _LAST = 1, 2, 4
_POLYNOMIAL = 0x82F63B78


def files(path: Path) -> list[str]:
    """Names of the write-ahead logs in a database's directory, oldest first."""
    return sorted(
        (name for name in os.listdir(path) if name.endswith(".log")), key=lambda name: (len(name), name)
    )


def check(path: Path) -> None:
    """Raise CorruptStorage if opening the database would silently drop what is not merely cut short."""
    names = files(path)
    if not names and not _being_created(path):
        raise CorruptStorage(str(path), "its write-ahead log is missing; see docs/operations.md")
    for name in names:
        block = _last_block(path / name)
        at = _cut(block)
        if at is not None and _holds_whole_record(block, at):
            raise CorruptStorage(
                str(path), f"{name}: a record's length is damaged near its end; see docs/operations.md"
            )


def _being_created(path: Path) -> bool:
    """Whether the database's very first opening has not finished: it has no log yet."""
    try:
        return (path / "CURRENT").read_bytes() == b"MANIFEST-000001\n"
    except FileNotFoundError:
        return True


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


def _holds_whole_record(block: bytes, at: int) -> bool:
    """Whether the tail that seems cut is, or contains, a record that is whole."""
    if block[at + 6] <= _LAST and _matches(block, at, len(block) - at - _HEADER):
        return True
    for start in range(at + 1, len(block) - _HEADER - 12):
        if block[start + 6] not in (_FULL, _FIRST):
            continue
        length = int.from_bytes(block[start + 4 : start + 6], "little")
        # Cheap tests first: a batch's sequence number is far below 2**48, its count below 2**24.
        if length < 12 or start + _HEADER + length > len(block) or block[start + 18]:
            continue
        if block[start + 13] or block[start + 14]:
            continue
        if _matches(block, start, length):
            return True
    return False


def _matches(block: bytes, start: int, length: int) -> bool:
    masked = int.from_bytes(block[start : start + 4], "little")
    crc = crc32c(block[start + 6 : start + _HEADER + length])
    return masked == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli). Slow: for a few kilobytes after a failure."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
