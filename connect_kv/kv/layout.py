r"""Where the key/value machine keeps what, in the state database. Numbers here are stored on disks.

Each key of a client is found in three key spaces:

====================================== ==========================================================
``CURRENT key``                        KeyValue as it is now; absent when deleted
``HISTORY revision``                   every change kept, in order: KeyValue, or 0x00 and the key
                                       for a deletion (no KeyValue begins with a zero byte)
``INDEX key' revision``                the revisions at which one key changed: PUT or TOMBSTONE
====================================== ==========================================================

A revision key is a `Revision` in twelve bytes. ``key'`` is the key with 0x00 written as 0x00 0xff and
0x00 0x00 at its end, so that the entries of one key are neighbours and keys keep their order:
``a`` (61 00 00) sorts before ``a\0`` (61 00 ff 00 00) and that before ``a\1`` (61 01 00 00).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from connect_kv.errors import CorruptStorage
from connect_kv.kv import revision
from connect_kv.kv.revision import LAST_SUB
from connect_kv.storage import codec
from connect_kv.storage.engine import Reader, View

CURRENT = bytes((codec.KV_CURRENT,))
HISTORY = bytes((codec.KV_HISTORY,))
INDEX = bytes((codec.KV_KEY_INDEX,))
META = bytes((codec.KV_META,))
LEASES = bytes((codec.LEASES,))
LEASE_KEYS = bytes((codec.LEASE_KEYS,))
LEASE_KEYS_END = bytes((codec.LEASE_KEYS + 1,))

STATE = META + b"state"
CLEANUP = META + b"cleanup"

PUT = b"\x01"
TOMBSTONE = b"\x00"
DELETED = b"\x00"
"""First byte of a history record that is a deletion."""

FROM_KEY = b"\x00"
"""As `range_end`: every key from `key` on."""
FIRST_KEY = b"\x00"
"""The smallest key there can be."""


class Changes(Reader, Protocol):
    """A state being written: reads see the changes made so far (`storage.overlay.Overlay`)."""

    def put(self, key: bytes, value: bytes) -> None:
        """Set `key`."""

    def put_all(self, pairs: Mapping[bytes, bytes]) -> None:
        """Set many."""

    def delete(self, key: bytes) -> None:
        """Remove `key`, if there."""


class Source(Reader, Protocol):
    """A database to read from (`storage.engine.Engine`, without its writes)."""

    def view(self) -> View:
        """The state now."""


class StoreState(NamedTuple):
    """The numbers that stand beside the keys; one record."""

    revision: int = 1
    compacted: int = -1
    """Reads below it fail. -1: never compacted, so that even ``compact(0)`` is valid once, as in etcd."""
    live: int = 0
    """Keys that exist now: the answer to a count of everything."""
    indexed: int = 0
    """Entries of INDEX: tells whether counting there is cheaper than in CURRENT."""

    def encode(self) -> bytes:
        """The record."""
        return pack_state(*self)

    @classmethod
    def decode(cls, record: bytes | None) -> StoreState:
        """The state that a stored record holds; a fresh store has none. Raises CorruptStorage."""
        try:
            return cls() if record is None else cls(*_STATE.unpack(record)[:-1])
        except struct.error as error:
            raise CorruptStorage("state", f"the numbers of the key/value store: {error}") from error


_STATE = struct.Struct(">qqqqq")
_UNUSED = 0
"""Versions that measured no time keep the date there."""


def pack_state(revision: int, compacted: int, live: int, indexed: int) -> bytes:
    """The record of a StoreState, from its fields in order (hot paths)."""
    return _STATE.pack(revision, compacted, live, indexed, _UNUSED)


def index_key(key: bytes) -> bytes:
    """What all index entries of `key` begin with."""
    return INDEX + key.replace(b"\x00", b"\x00\xff") + b"\x00\x00"


def key_of_name(name: bytes) -> bytes:
    """The inverse of `index_key`."""
    return name[1:-2].replace(b"\x00\xff", b"\x00")


def current_bounds(key: bytes, range_end: bytes) -> tuple[bytes, bytes]:
    """``[start, stop)`` in CURRENT of a range with a `range_end`."""
    return CURRENT + key, HISTORY if range_end == FROM_KEY else CURRENT + range_end


def index_bounds(key: bytes, range_end: bytes) -> tuple[bytes, bytes]:
    """``[start, stop)`` in INDEX of a range with a `range_end`."""
    return index_key(key), META if range_end == FROM_KEY else index_key(range_end)


def history_bounds(first: int, last: int) -> tuple[bytes, bytes]:
    """``[start, stop)`` in HISTORY of the revisions `first` to `last`, both included."""
    return HISTORY + revision.pack(first, 0), HISTORY + revision.pack(last, LAST_SUB) + b"\x00"


def is_everything(key: bytes, range_end: bytes) -> bool:
    """Whether the range holds every key there can be."""
    return range_end == FROM_KEY and key == FIRST_KEY


def covers(key: bytes, range_end: bytes, candidate: bytes) -> bool:
    """Whether `candidate` lies in the range of a request."""
    if not range_end:
        return candidate == key
    return candidate >= key and (range_end == FROM_KEY or candidate < range_end)


def lease_key(lease: int) -> bytes:
    """Where a lease is kept. Ids are any int64 but 0; negative ones sort last."""
    return LEASES + _ID.pack(lease & _MASK)


def lease_keys_prefix(lease: int) -> bytes:
    """What the records of all keys attached to a lease begin with."""
    return LEASE_KEYS + _ID.pack(lease & _MASK)


def lease_keys_stop(lease: int) -> bytes:
    """Where the keys of the next lease begin."""
    number = lease & _MASK
    return LEASE_KEYS_END if number == _MASK else LEASE_KEYS + _ID.pack(number + 1)


def lease_of(record_key: bytes) -> int:
    """The id in a key made by `lease_key` or `lease_keys_prefix`."""
    number: int = _ID.unpack_from(record_key, 1)[0]
    return number - (_MASK + 1) if number >> 63 else number


_ID = struct.Struct(">Q")
_MASK = (1 << 64) - 1
