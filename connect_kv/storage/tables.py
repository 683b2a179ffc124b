"""Tables of LevelDB made outside of it: for a new database that is filled with much at once.

A put through LevelDB goes into a log and into a sorted list in memory, and is written a third and a fourth
time as tables are made and merged. What comes in order, or in runs that are sorted, can be tables at once.

A table is blocks, an index of them, and a foot; it never changes once it is written.

=============  =====================================================================================
block          entries; positions (u32) of every 16th and their count (u32); then a zero byte (not
               compressed) and the masked CRC-32C of block and zero byte
entry          three varints: bytes shared with the key before (none, here), bytes of the key that
               follow, bytes of the value; the key; the value
key            as its user knows it, and 8 bytes: ``sequence << 8 | kind`` (1: put, 0: deletion)
index          a block: the last key of each block, and its place (two varints: position, bytes)
foot (48)      place of a block of further blocks (there are none), place of the index, zeros, magic
=============  =====================================================================================

Source: doc/table_format.md and doc/log_format.md of LevelDB 1.22. There is no Bloom filter in such a table;
LevelDB makes one when it merges it with others.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

from connect_kv.protowire import varint

BLOCK_BYTES = 4096
TABLE_BYTES = 2 << 20
"""LevelDB's own tables are about as large."""

_RESTART = 16
_TRAILER = struct.Struct("<Q")
_PUT, _DELETION = 1, 0
_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOT_PLACES = 40
_BUFFER = 256 << 10
_NO_COMPRESSION = b"\0"


class MadeTable(NamedTuple):
    """One that was written and is on disk."""

    path: str
    size: int
    smallest: bytes
    """Keys as LevelDB knows them."""
    largest: bytes


def user_key(key: bytes) -> bytes:
    """Without what LevelDB puts behind it. Keys are in order by this: a key with that behind it may be above
    a longer one, as bytes.
    """
    return key[: -_TRAILER.size]


def masked(checksum: int) -> int:
    """A CRC-32C as LevelDB stores it."""
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c() -> Callable[[bytes], int]:
    """The checksum of bytes. Loaded when it is first needed: few processes write tables."""
    from google_crc32c import value

    found: Callable[[bytes], int] = value
    return found


class TableWriter:
    """Writes one table, in order of keys. All that is in it has one sequence number."""

    def __init__(self, path: Path, sequence: int) -> None:
        self._path = path
        self._file: BinaryIO = path.open("wb", buffering=_BUFFER)
        self._put = _TRAILER.pack(sequence << 8 | _PUT)
        self._deletion = _TRAILER.pack(sequence << 8 | _DELETION)
        self._checksum = crc32c()
        self._index: list[tuple[bytes, bytes]] = []
        self._smallest = b""
        self._size = 0

    def add(self, pairs: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Take of these (None: a deletion), which follow all before, until there are no more or it is `full`.

        The inner loop of every import: pieces are joined a few at a time.
        """
        heads, varints, put = _HEADS, _VARINTS, self._put
        parts: list[bytes] = []
        done: list[bytes] = []
        restarts = [0]
        at = count = size = 0
        first, key, trailer = b"", b"", put
        for key, value in pairs:
            if value is None:
                trailer, value = self._deletion, b""
            else:
                trailer = put
            key_size, value_size = len(key), len(value)
            parts += (
                heads[key_size] if key_size < _CACHED else _head(key_size),
                varints[value_size] if value_size < _CACHED else varint(value_size),
                key, trailer, value,
            )  # fmt: skip
            size += key_size + value_size
            if not count:
                first = key + trailer
            count += 1
            if size >= BLOCK_BYTES:
                done.append(b"".join(parts))
                self._block(b"".join(done), restarts, first, key + trailer)
                if self.full:
                    return
                parts, done, restarts = [], [], [0]
                at = count = size = 0
            elif not count % _RESTART:
                done.append(b"".join(parts))
                parts = []
                at += len(done[-1])
                restarts.append(at)
        if count:
            done.append(b"".join(parts))
            if not parts:
                restarts.pop()
            self._block(b"".join(done), restarts, first, key + trailer)

    @property
    def full(self) -> bool:
        """Whether it is as large as tables are."""
        return self._size >= TABLE_BYTES

    def finish(self) -> MadeTable:
        """End it: it is on disk on return. There must be something in it."""
        smallest, largest = self._smallest, self._index[-1][0]
        none = self._written(_restarts([0]))
        index = self._written(_index_block(self._index))
        self._file.write((none + index).ljust(_FOOT_PLACES, b"\0") + _MAGIC)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return MadeTable(str(self._path), self._size + _FOOT_PLACES + len(_MAGIC), smallest, largest)

    def _block(self, entries: bytes, restarts: list[int], first: bytes, last: bytes) -> None:
        if not self._index:
            self._smallest = first
        self._index.append((last, self._written(entries + _restarts(restarts))))

    def _written(self, block: bytes) -> bytes:
        """Write a block; returns where it lies."""
        whole = block + _NO_COMPRESSION
        self._file.write(whole + masked(self._checksum(whole)).to_bytes(4, "little"))
        place = varint(self._size) + varint(len(block))
        self._size += len(whole) + 4
        return place


def _head(key_size: int) -> bytes:
    """What stands before the size of a value: nothing is shared, and so many bytes has the key."""
    return b"\0" + varint(key_size + _TRAILER.size)


_CACHED = 1 << 14
_VARINTS = [varint(number) for number in range(_CACHED)]
_HEADS = [_head(number) for number in range(_CACHED)]


def _index_block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """Entries as they are, each to be found by itself."""
    parts: list[bytes] = []
    restarts: list[int] = []
    at = 0
    for key, value in entries:
        restarts.append(at)
        parts.append(b"\0" + varint(len(key)) + varint(len(value)) + key + value)
        at += len(parts[-1])
    return b"".join(parts) + _restarts(restarts)


def _restarts(positions: list[int]) -> bytes:
    return struct.pack(f"<{len(positions)}II", *positions, len(positions))


class TableSeries:
    """Tables one after the other, as many as it takes: their files are ``<directory>/<name>-<number>``."""

    def __init__(self, directory: Path, name: str, sequence: int) -> None:
        self._directory, self._name, self._sequence = directory, name, sequence
        self._writer: TableWriter | None = None
        self._done: list[MadeTable] = []

    def add(self, pairs: Iterable[tuple[bytes, bytes | None]]) -> None:
        """All of these, which follow all before."""
        remaining = iter(pairs)
        for pair in remaining:
            if self._writer is None:
                path = self._directory / f"{self._name}-{len(self._done)}"
                self._writer = TableWriter(path, self._sequence)
            self._writer.add(chain((pair,), remaining))
            if self._writer.full:
                self._end_one()

    def finish(self) -> list[MadeTable]:
        """All of them, on disk on return."""
        self._end_one()
        return self._done

    def _end_one(self) -> None:
        if self._writer is not None:
            self._done.append(self._writer.finish())
            self._writer = None
