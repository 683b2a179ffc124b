"""Changes of keys on their way from the order of revisions into that of keys: a temporary file in parts.

Each part takes the changes of one range of keys. What waits for all parts together is bounded, and goes out
as pieces; which pieces are whose lies in a second file. The files are read by the program that wrote them.
"""

from __future__ import annotations

import marshal
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from connect_kv.kv.filling import Change

WAITING_BYTES = 4 << 20
"""Bytes of records that wait to be written."""


class SpoolWriter:
    """Writes one. `bounds`: the first keys of all parts but the first."""

    def __init__(self, path: Path, bounds: Sequence[bytes]) -> None:
        self._path, self._bounds = path, list(bounds)
        self._file: BinaryIO = path.open("wb")
        self._waiting: list[list[Change]] = [[] for _ in range(len(bounds) + 1)]
        self._pieces = [array("Q") for _ in self._waiting]
        self._at = 0

    def add(self, changes: Sequence[Change]) -> None:
        """Take some, in order of revisions."""
        waiting, bounds = self._waiting, self._bounds
        if not bounds:
            waiting[0] += changes
            return
        for change in changes:
            waiting[bisect_right(bounds, change[0])].append(change)

    def flush(self) -> None:
        """Write what waits."""
        for part, changes in enumerate(self._waiting):
            if changes:
                piece = marshal.dumps(changes)
                self._file.write(piece)
                self._pieces[part].extend((self._at, len(piece)))
                self._at += len(piece)
        self._waiting = [[] for _ in self._waiting]

    def finish(self) -> None:
        """Write what waits, and which pieces there are."""
        self.flush()
        self._file.close()
        _index_of(self._path).write_bytes(marshal.dumps([pieces.tobytes() for pieces in self._pieces]))


class SpoolReader:
    """Reads one."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("rb", buffering=0)
        self._pieces: list[bytes] = marshal.loads(_index_of(path).read_bytes())

    def part(self, number: int) -> Iterator[list[Change]]:
        """The changes of a part, in order of revisions, piece by piece."""
        pieces = array("Q", self._pieces[number])
        for at, size in zip(pieces[::2], pieces[1::2], strict=True):
            self._file.seek(at)
            changes: list[Change] = marshal.loads(self._file.read(size))
            yield changes

    def close(self) -> None:
        """No more is read."""
        self._file.close()


def _index_of(path: Path) -> Path:
    return path.with_suffix(".index")
