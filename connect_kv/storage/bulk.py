"""A new database that takes in tables which were made outside of it (`storage.tables`).

LevelDB knows its tables from its MANIFEST, a log of changes to the set of them. A change is added to the end
of that of a database that is closed: the next opening reads it, as one of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from connect_kv.errors import CorruptStorage
from connect_kv.storage import manifest
from connect_kv.storage.leveldb import LevelDbDisk, hold_lock, sync_directory
from connect_kv.storage.tables import MadeTable, crc32c, masked, user_key

SEQUENCE = 1
"""Of everything in such tables: no key of them is anywhere else in the database."""
REOPEN_BYTES = 16 << 20
_LEVELS = ((2, 100 << 20), (3, 1 << 30), (4, 10 << 30), (5, 100 << 30))
"""What LevelDB wants to have in a level at most. In the next one it would begin to move tables at once."""
_LOWEST = 6


def level_for(size: int) -> int:
    """Where so many bytes lie and stay."""
    return next((level for level, most in _LEVELS if size <= most), _LOWEST)


def adopt(path: Path, tables: Sequence[MadeTable]) -> None:
    """Move these into the database in `path`, which is closed, and has none of their keys.

    No two of them may overlap. On disk on return. Raises StorageError, OSError; the database is of no use
    then.
    """
    if not tables:
        return
    path = path.resolve()
    with hold_lock(path):
        named = path / (path / "CURRENT").read_text().strip()
        number = manifest.next_file(path)
        level = level_for(sum(table.size for table in tables))
        edit = bytearray()
        before: bytes | None = None
        for table in sorted(tables, key=lambda one: user_key(one.smallest)):
            if before is not None and user_key(table.smallest) <= before:
                raise CorruptStorage(str(path), f"what was made of {table.path} overlaps with another table")
            before = user_key(table.largest)
            os.replace(table.path, path / f"{number:06}.ldb")
            edit += manifest.new_table(level, number, table)
            number += 1
        edit += manifest.next_file_is(number)
        sync_directory(path)
        with named.open("r+b") as file:
            at = file.seek(0, os.SEEK_END)
            for piece in _pieces(bytes(edit), at):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())


class ReopeningReader:
    """Reads a database that nothing else has open, and holds little of it in memory.

    LevelDB maps every table that it reads, and keeps the mappings: so it is opened anew now and then. One
    walk at a time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._disk = LevelDbDisk()

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""
        return next((value for _, value in self.iterate(key, key + b"\0")), None)

    def iterate(
        self, start: bytes, stop: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Pairs of ``[start, stop)`` in key order, or backwards."""
        more = True
        while more:
            engine, read, more = self._disk.open(self._path, must_exist=True), 0, False
            pairs = engine.iterate(start, stop, reverse=reverse)
            try:
                for key, value in pairs:
                    yield key, value
                    read += len(key) + len(value)
                    if read >= REOPEN_BYTES:
                        start, stop = (start, key) if reverse else (key + b"\0", stop)
                        more = True
                        break
            finally:
                del pairs  # an iterator must not outlive its database
                engine.close()


def _pieces(record: bytes, at: int) -> Iterator[bytes]:
    """A record as a log holds it, if it begins at `at`: no piece of it crosses a block."""
    checksum = crc32c()
    first = True
    while True:
        room = manifest.BLOCK - at % manifest.BLOCK
        if room < manifest.HEADER:
            yield bytes(room)
            at, room = at + room, manifest.BLOCK
        piece, record = record[: room - manifest.HEADER], record[room - manifest.HEADER :]
        kind = manifest.kind_of_piece(first=first, last=not record)
        body = bytes((kind,)) + piece
        yield masked(checksum(body)).to_bytes(4, "little") + len(piece).to_bytes(2, "little") + body
        at += manifest.HEADER + len(piece)
        first = False
        if not record:
            return
