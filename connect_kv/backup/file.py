r"""The first format of backups, which is read and no longer written.

A whole state as `transfer` dumps it, with a head that says whose, and a digest.

==========================  =================================================================
``connect-kv backup\n``     what it is
4 bytes, and so many        length of the head, and the head: JSON
4 bytes, and so many        length of a piece, and the piece; again and again
4 zero bytes                the end of the pieces
zero bytes                  up to a multiple of 512
32 bytes                    SHA-256 of all before
==========================  =================================================================

The last two make it what clients of the etcd API take for a whole snapshot. What is written now is
`etcd_format`. The heads of both are alike.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from connect_kv.errors import CorruptStorage

MAGIC = b"connect-kv backup\n"
DIGEST_BYTES = 32
_BLOCK = 512
FIRST_FORMAT = 1
_LENGTH = struct.Struct(">I")
_MOST = 1 << 28
"""No head or piece is longer: what claims to be is damaged."""

Progress = Callable[[int, int], None]
"""``progress(done, total)`` in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupHead:
    """Where a backup comes from."""

    cluster_id: int
    node_id: int
    name: str
    last_applied: int
    """The index of the log at which the state stands."""
    taken: int
    """Nanoseconds since 1970."""
    version: str
    """Of the program that took it."""


def read_head(path: Path, text: bytes, known: int) -> BackupHead:
    """The head of a file of format `known`. Raises CorruptStorage naming the file."""
    try:
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise TypeError("no object")
        version = fields.pop("format")
        if version == known:
            return _checked(BackupHead(**fields))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptStorage(str(path), f"its head cannot be read: {error}") from error
    raise CorruptStorage(str(path), f"has format {version}; this version of connect-kv reads {known}")


def _checked(head: BackupHead) -> BackupHead:
    """Raises TypeError, ValueError."""
    for name, value in asdict(head).items():
        if type(value) is not (str if name in ("name", "version") else int):
            raise TypeError(f"{name} is {value!r}")
    if not 0 <= head.last_applied < 1 << 64:
        raise ValueError(f"last_applied is {head.last_applied}")
    return head


@contextmanager
def new_file(path: Path, *, replace: bool = False) -> Iterator[BinaryIO]:
    """A file that is there, whole and on disk, once the body has ended, and not at all if it fails.

    With `replace`, it takes the place of one that is there, which stays if the body fails.
    Raises FileExistsError, OSError.
    """
    if path.exists() and not replace:
        raise FileExistsError(errno.EEXIST, "exists already", str(path))
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def is_first_format(path: Path) -> bool:
    """Whether it begins as such a file. Raises OSError."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


class BackupFile:
    """A backup of the first format being read. A context manager. Raises CorruptStorage naming the file."""

    def __init__(self, path: Path, progress: Progress = lambda done, total: None) -> None:
        self._path = path
        self._progress = progress
        self._file: BinaryIO = path.open("rb")
        self._digest = hashlib.sha256()
        self.size = path.stat().st_size
        try:
            self.head = self._read_head()
            self.digest = self._read_digest()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> BackupFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    async def pieces(self) -> AsyncIterator[bytes]:
        """What `written` was given. Raises CorruptStorage at its end if the digest does not match."""
        while length := self._length():
            yield self._take(length)
            self._progress(self._file.tell(), self.size)
        padding = self.size - DIGEST_BYTES - self._file.tell()
        if not 0 <= padding < _BLOCK:
            raise self._bad("it goes on after its end")
        self._take(padding)
        if self._digest.digest() != self.digest:
            raise self._bad("it does not match its checksum")
        self._progress(self.size, self.size)

    def _read_head(self) -> BackupHead:
        if self._take(len(MAGIC)) != MAGIC:
            raise self._bad("is no backup made by connect-kv")
        return read_head(self._path, self._take(self._length()), FIRST_FORMAT)

    def _read_digest(self) -> bytes:
        here = self._file.tell()
        if self.size % _BLOCK != DIGEST_BYTES:
            raise self._bad("is not whole: its length is wrong")
        self._file.seek(self.size - DIGEST_BYTES)
        digest = self._file.read(DIGEST_BYTES)
        self._file.seek(here)
        return digest

    def _length(self) -> int:
        length: int = _LENGTH.unpack(self._take(_LENGTH.size))[0]
        if length > _MOST:
            raise self._bad("is damaged")
        return length

    def _take(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) != count:
            raise self._bad("ends early")
        self._digest.update(data)
        return data

    def _bad(self, reason: str) -> CorruptStorage:
        return CorruptStorage(str(self._path), reason)
