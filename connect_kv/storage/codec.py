"""Keys and records of both databases. What is written here is on disks: it never changes meaning.

Integers in keys are big-endian, so that keys sort as numbers do. The format version is a record of
its own; a database with a newer one is refused by name.
"""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from connect_kv.errors import CorruptStorage, RefusedToStart
from connect_kv.interfaces import Identity
from connect_kv.raft.types import Entry, EntryId, EntryKind, HardState, Membership

FORMAT_VERSION = 1

# --- log/ ---------------------------------------------------------------------------------------

LOG_FORMAT = b"\x00format"
LOG_IDENTITY = b"\x00identity"
LOG_CONFIRMED = b"\x00confirmed"
LOG_HARD_STATE = b"\x00hard-state"
LOG_BASE = b"\x00base"
LOG_STATE = b"\x00state"
LOG_GARBAGE = b"\x00garbage"
LOG_ENTRY = 0x10
LOG_TERM_START = b"\x11"
LOG_MEMBERSHIP = b"\x12"
LOG_DIRECTORY = b"\x13"

# --- state/<n>: the first byte of every key says whose it is --------------------------------------

META = 0x00
KV_CURRENT = 0x10
KV_HISTORY = 0x11
KV_KEY_INDEX = 0x12
KV_META = 0x13
LEASES = 0x18
LEASE_KEYS = 0x19
SESSIONS = 0x20
SESSION_REPLIES = 0x21
SKIPPED = 0x22
MACHINE_SNAPSHOTS = 0x28
MACHINE_DATA = 0x29
MACHINES = 0x2A
AUTH = 0x2C
CLUSTER = 0x30

STATE_FORMAT = b"\x00format"
STATE_APPLIED = b"\x00applied"
STATE_FLOOR = b"\x00floor"
STATE_LINK = b"\x00link"

_U64 = struct.Struct(">Q")
_U64_PAIR = struct.Struct(">QQ")
_U64_TRIPLE = struct.Struct(">QQQ")
_ENTRY_KEY = struct.Struct(">BIQ")
_ENTRY_HEAD = struct.Struct(">IBQ")
"""checksum, kind, term"""
_CHECKED = struct.Struct(">QBQ")
"""index, kind, term: under the checksum, before the data"""


def u64(value: int) -> bytes:
    """Eight bytes that sort as the number does."""
    return _U64.pack(value)


def decode_u64(data: bytes) -> int:
    """The inverse of `u64`. Raises ValueError."""
    return int(_unpack(_U64, data)[0])


def pair(first: int, second: int) -> bytes:
    """Two numbers."""
    return _U64_PAIR.pack(first, second)


def decode_pair(data: bytes) -> tuple[int, int]:
    """The inverse of `pair`. Raises ValueError."""
    first, second = _unpack(_U64_PAIR, data)
    return first, second


def entry_key(generation: int, index: int) -> bytes:
    """Where an entry lies. The generation counts installed snapshots: each starts an empty log."""
    return _ENTRY_KEY.pack(LOG_ENTRY, generation, index)


def encode_entry(entry: Entry) -> bytes:
    """An entry under our own CRC-32 of index, kind, term and data; the index is in the key."""
    term, index = entry.id
    checksum = zlib.crc32(entry.data, zlib.crc32(_CHECKED.pack(index, entry.kind, term)))
    return _ENTRY_HEAD.pack(checksum, entry.kind, term) + entry.data


def decode_entry(index: int, value: bytes) -> Entry:
    """The entry at `index`. Raises ValueError if the checksum does not match, or the kind is unknown."""
    if len(value) < _ENTRY_HEAD.size:
        raise ValueError(f"entry {index} is too short")
    checksum, kind, term = _ENTRY_HEAD.unpack_from(value)
    data = value[_ENTRY_HEAD.size :]
    if zlib.crc32(data, zlib.crc32(_CHECKED.pack(index, kind, term))) != checksum:
        raise ValueError(f"entry {index} does not match its checksum")
    return Entry(EntryId(term, index), EntryKind(kind), data)


def term_start_key(index: int) -> bytes:
    """Marks the first entry of a term; the value is the term."""
    return LOG_TERM_START + u64(index)


def membership_key(index: int) -> bytes:
    """A membership, by the index of its entry; the lowest is that at the base of the log."""
    return LOG_MEMBERSHIP + u64(index)


def directory_key(node_id: int) -> bytes:
    """The directory id noted for a member."""
    return LOG_DIRECTORY + u64(node_id)


def link_key(number: int) -> bytes:
    """Stands for one batch of a state database, by its number; the value is its last_applied."""
    return STATE_LINK + u64(number)


def encode_hard_state(state: HardState) -> bytes:
    """Term, vote (0: none) and the hint of the commit index."""
    return _U64_TRIPLE.pack(state.term, state.vote or 0, state.commit_index)


def decode_hard_state(data: bytes) -> HardState:
    """Term, vote and commit index from a record. Raises ValueError."""
    term, vote, commit_index = _unpack(_U64_TRIPLE, data)
    return HardState(term, vote or None, commit_index)


class Base(NamedTuple):
    """Where the log starts: after `compacted`, in entry keys of `generation`."""

    compacted: EntryId
    generation: int

    def encode(self) -> bytes:
        """The record of where the log starts."""
        return _U64_TRIPLE.pack(*self.compacted, self.generation)

    @classmethod
    def decode(cls, data: bytes) -> Base:
        """Where the log begins, from a record. Raises ValueError."""
        term, index, generation = _unpack(_U64_TRIPLE, data)
        # The next of each has a key, too.
        if generation >= 0xFFFF_FFFF or index >= 0xFFFF_FFFF_FFFF_FFFF:
            raise ValueError(f"no log starts after {index} in generation {generation}")
        return cls(EntryId(term, index), generation)


class DiscardedRun(NamedTuple):
    """Entries ``[start, end)`` of a generation that are no longer part of the log."""

    generation: int
    start: int
    end: int


def encode_runs(runs: list[DiscardedRun]) -> bytes:
    """The record of discarded runs."""
    return b"".join(_U64_TRIPLE.pack(*run) for run in runs)


def decode_runs(data: bytes) -> list[DiscardedRun]:
    """The runs of discarded entries from a record. Raises ValueError."""
    try:
        runs = [DiscardedRun(*fields) for fields in _U64_TRIPLE.iter_unpack(data)]
    except struct.error as error:
        raise ValueError("a record has the wrong length") from error
    for run in runs:
        if run.generation > 0xFFFF_FFFF or run.start >= run.end:
            raise ValueError(f"not entries to be deleted: {run}")
    return runs


def encode_identity(identity: Identity) -> bytes:
    """JSON: it is written once, and people look at it."""
    fields = {
        "cluster_id": identity.cluster_id,
        "node_id": identity.node_id,
        "name": identity.name,
        "directory_id": identity.directory_id.hex(),
    }
    return json.dumps(fields, sort_keys=True).encode()


def decode_identity(data: bytes) -> Identity:
    """Whose directory it is, from a record. Raises ValueError."""
    try:
        fields = json.loads(data)
        identity = Identity(
            cluster_id=fields["cluster_id"],
            node_id=fields["node_id"],
            name=fields["name"],
            directory_id=bytes.fromhex(fields["directory_id"]),
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not an identity: {error}") from error
    if (type(identity.cluster_id), type(identity.node_id), type(identity.name)) != (int, int, str):
        raise ValueError("not an identity: its fields are of other types")
    return identity


def encode_state(name: str, durable_index: int) -> bytes:
    """Which state database is current, and up to where it is known to be on disk."""
    return u64(durable_index) + name.encode()


def decode_state(data: bytes) -> tuple[str, int]:
    """From a record: the name of the state database and the durable index. Raises ValueError."""
    return data[_U64.size :].decode(), decode_u64(data[: _U64.size])


def decode_membership(index: int, data: bytes) -> Membership:
    """A stored membership. Raises ValueError naming its place."""
    try:
        return Membership.decode(data)
    except ValueError as error:
        raise ValueError(f"membership at {index}: {error}") from error


def check_format(database: Path, record: bytes) -> None:
    """Refuse a database written by a newer version of this program."""
    try:
        version = decode_u64(record)
    except ValueError as error:
        raise CorruptStorage(str(database), f"format version: {error}; see docs/operations.md") from error
    if version > FORMAT_VERSION:
        raise RefusedToStart(
            f"{database}: has format version {version}, and this version of connect-kv knows up to"
            f" {FORMAT_VERSION}: start it with the newer version that wrote it"
        )


def _unpack(form: struct.Struct, data: bytes) -> tuple[int, ...]:
    try:
        return form.unpack(data)
    except struct.error as error:
        raise ValueError("a record has the wrong length") from error
