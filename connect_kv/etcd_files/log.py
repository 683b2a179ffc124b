"""The end of etcd's write-ahead log: whether the database beside it holds all that was acknowledged.

A file ``<number>-<first index>.wal`` is records one after the other: a length (64 bits, of which the low 56
are bytes of the record, and with the highest one set three more say how many bytes of padding follow), the
record (a type, a checksum, data), padding to eight bytes. A length of 0 ends it: files are made long.
The checksum of a record goes on from that of the one before.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from connect_kv.errors import CorruptStorage
from connect_kv.etcd_files.checksums import crc32c
from connect_kv.rpc.etcd_files_pb2 import EtcdHardState, EtcdLogEntry, EtcdLogRecord

_ENTRY, _STATE, _CHECKSUM = 2, 3, 4
_LENGTH = struct.Struct("<Q")
_SIZE_MASK = (1 << 56) - 1
_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.wal")


@dataclass(frozen=True, slots=True)
class LogEnd:
    """Where a log ends."""

    last: int
    """Index of its last entry."""
    commit: int
    """Of the last state that was noted: entries up to it were committed."""


def log_end(directory: Path) -> LogEnd:
    """Read the last file of a log. Raises CorruptStorage if there is none, or if it is torn or damaged."""
    names = sorted(path.name for path in directory.glob("*.wal")) if directory.is_dir() else []
    found = [one for name in names if (one := _NAME.fullmatch(name))]
    if not found:
        raise CorruptStorage(str(directory), "holds no write-ahead log")
    newest = max(found, key=lambda one: int(one[1], 16))
    path = directory / newest[0]
    last, commit = int(newest[2], 16) - 1, 0
    try:
        for kind, data in _records(path):
            if kind == _ENTRY:
                last = EtcdLogEntry.FromString(data).index
            elif kind == _STATE:
                commit = EtcdHardState.FromString(data).commit
    except DecodeError as error:
        raise CorruptStorage(str(path), f"a record of it cannot be read: {error}") from error
    return LogEnd(last, commit)


def _records(path: Path) -> Iterator[tuple[int, bytes]]:
    extend = crc32c()
    checksum = 0
    with path.open("rb") as file:
        while len(head := file.read(_LENGTH.size)) == _LENGTH.size:
            (length,) = _LENGTH.unpack(head)
            if not length:
                return
            size = length & _SIZE_MASK
            padding = length >> 56 & 0x7 if length >> 63 else 0
            data = file.read(size + padding)
            if len(data) != size + padding:
                raise CorruptStorage(str(path), "ends within a record: etcd was stopped while it wrote")
            record = EtcdLogRecord.FromString(data[:size])
            if record.type == _CHECKSUM:
                checksum = record.crc
                continue
            checksum = extend(checksum, record.data)
            if checksum != record.crc:
                raise CorruptStorage(str(path), "a record of it does not match its checksum")
            yield record.type, record.data
