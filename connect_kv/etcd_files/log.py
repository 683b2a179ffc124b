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
from connect_kv.protowire import read_varint
from connect_kv.rpc.etcd_files_pb2 import EtcdHardState, EtcdLogEntry, EtcdLogRecord

_ENTRY, _STATE, _CHECKSUM = 2, 3, 4
_LENGTH = struct.Struct("<Q")
_SIZE_MASK = (1 << 56) - 1
_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.wal")

_NORMAL = 0
"""Type of an entry with a request; the others change members."""
_HEADER = 100
"""Field of every request; what has none is a request of etcd's second API, which members publish with."""
_OF_NO_KEYS = frozenset({1, 2, 3, 10, 11, _HEADER, 1012, 1013, 1102, 1106, 1107, 1202, 1300, 1301, 1302})
"""Fields of a request that change no key, lease, user or role: ids, reads, alarms, time left to leases,
logins, looks at users and roles, what members say of themselves. Releases before 3.5 do not note in their
database that they applied these.
"""


@dataclass(frozen=True, slots=True)
class LogEnd:
    """Where a log ends."""

    last: int
    """Index of its last entry, or of the last one that was known to be committed."""
    needed: bool
    """Whether an entry behind those that were applied changes something that is to be taken over."""


def log_end(directory: Path, applied: int) -> LogEnd:
    """Read a log from the entry after `applied` on.

    Raises CorruptStorage if there is none, if it begins later, or if it is torn or damaged.
    """
    names = sorted(path.name for path in directory.glob("*.wal")) if directory.is_dir() else []
    found = sorted(
        (int(one[1], 16), int(one[2], 16), one[0]) for name in names if (one := _NAME.fullmatch(name))
    )
    if not found:
        raise CorruptStorage(str(directory), "holds no write-ahead log")
    begins = max((number for number, (_, first, _) in enumerate(found) if first <= applied + 1), default=None)
    if begins is None:
        raise CorruptStorage(
            str(directory), f"begins after entry {applied}, which was the last to be applied"
        )
    last, commit = found[begins][1] - 1, 0
    needed: dict[int, bool] = {}
    for _, _, name in found[begins:]:
        try:
            for kind, data in _records(directory / name):
                if kind == _ENTRY:
                    entry = EtcdLogEntry.FromString(data)
                    last = entry.index  # it replaces what was there, and all behind it
                    needed = {index: value for index, value in needed.items() if index < last}
                    needed[last] = last > applied and _needed(entry)
                elif kind == _STATE:
                    commit = EtcdHardState.FromString(data).commit
        except (DecodeError, IndexError, ValueError) as error:
            raise CorruptStorage(str(directory / name), f"a record of it cannot be read: {error}") from error
    return LogEnd(max(last, commit), any(needed.values()) or last < commit)


def _needed(entry: EtcdLogEntry) -> bool:
    fields = set(_fields(entry.data)) if entry.type == _NORMAL else set()
    return _HEADER in fields and not fields <= _OF_NO_KEYS


def _fields(message: bytes) -> Iterator[int]:
    """Numbers of the fields of an encoded message. Raises ValueError, IndexError."""
    at = 0
    while at < len(message):
        tag, at = read_varint(message, at)
        yield tag >> 3
        match tag & 7:
            case 0:
                _, at = read_varint(message, at)
            case 1:
                at += 8
            case 2:
                size, at = read_varint(message, at)
                at += size
            case 5:
                at += 4
            case kind:
                raise ValueError(f"a field of the kind {kind}")


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
