"""Walks through the key spaces, in pieces.

A walk yields records, and None wherever it may be interrupted: after about a millisecond of work.
The caller then lets others run, if the time has come.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import TypeVar

from connect_kv.kv import layout, revision
from connect_kv.kv.layout import CURRENT, HISTORY, PUT, StoreState
from connect_kv.kv.revision import LAST_SUB
from connect_kv.rpc.kv_pb2 import KeyValue
from connect_kv.storage.engine import Reader

T = TypeVar("T")

SLICE_RECORDS = 256
"""Records between two pauses."""
SLICE_BYTES = 256 << 10
"""Bytes between two pauses, if that is less."""
SLICE_WRITES = 64
"""Keys written between two pauses."""

_INDEX_PER_KEY = 4
"""Reading a whole current record costs about as much as this many index entries."""


def current(reader: Reader, key: bytes, range_end: bytes, *, reverse: bool = False) -> Iterator[bytes | None]:
    """Records of the range as they are now, in key order or backwards; None at pauses."""
    if not range_end:
        record = reader.get(CURRENT + key)
        if record is not None:
            yield record
        return
    start, stop = layout.current_bounds(key, range_end)
    if stop <= start:
        return
    records = size = 0
    for _, record in reader.iterate(start, stop, reverse=reverse):
        yield record
        records += 1
        size += len(record)
        if records == SLICE_RECORDS or size >= SLICE_BYTES:
            records = size = 0
            yield None


def past(reader: Reader, key: bytes, range_end: bytes, at: int) -> Iterator[bytes | None]:
    """Records of the range as they were at revision `at`, in key order; None at pauses."""
    return fetch(reader, revision_keys(reader, key, range_end, at))


def fetch(reader: Reader, found: Iterable[bytes | None]) -> Iterator[bytes | None]:
    """The history records at these revision keys; None at pauses, its own and those of `found`."""
    records = size = 0
    for revision_key in found:
        if revision_key is None:
            yield None
            continue
        record = reader.get(HISTORY + revision_key)
        if record is None:
            raise LookupError(
                f"the index names {revision.unpack(revision_key)}, but history has no such record"
            )
        yield record
        records += 1
        size += len(record)
        if records == SLICE_RECORDS or size >= SLICE_BYTES:
            records = size = 0
            yield None


def sliced(pairs: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes] | None]:
    """Keys and values as they come; None at pauses."""
    records = size = 0
    for pair in pairs:
        yield pair
        records += 1
        size += len(pair[1])
        if records == SLICE_RECORDS or size >= SLICE_BYTES:
            records = size = 0
            yield None


def paused(records: Iterable[bytes]) -> Iterator[bytes | None]:
    """What comes, with pauses."""
    for number, record in enumerate(records, 1):
        yield record
        if number % SLICE_RECORDS == 0:
            yield None


def revision_keys(reader: Reader, key: bytes, range_end: bytes, at: int) -> Iterator[bytes | None]:
    """Where the records of the range's keys that lived at revision `at` are; None at pauses."""
    if not range_end:
        revision_key = _last_revision_key(reader, layout.index_key(key), at)
        if revision_key is not None:
            yield revision_key
        return
    start, stop = layout.index_bounds(key, range_end)
    if stop <= start:
        return
    limit = revision.pack(at, LAST_SUB)
    name: bytes | None = None
    newest: bytes | None = None
    for number, (entry, kind) in enumerate(reader.iterate(start, stop), 1):
        if entry[: -revision.SIZE] != name:
            if newest is not None:
                yield newest
                newest = None
            name = entry[: -revision.SIZE]
        revision_key = entry[-revision.SIZE :]
        if revision_key <= limit:
            newest = revision_key if kind == PUT else None
        if number % SLICE_RECORDS == 0:
            yield None
    if newest is not None:
        yield newest


def _last_revision_key(reader: Reader, prefix: bytes, at: int) -> bytes | None:
    """The revision key of the key's life at revision `at`, if it lived then."""
    stop = prefix + revision.pack(at, LAST_SUB) + b"\x00"
    for entry, kind in reader.iterate(prefix, stop, reverse=True):
        return entry[-revision.SIZE :] if kind == PUT else None
    return None


def value_before(reader: Reader, key: bytes, at: int) -> bytes | None:
    """The record `key` had just before revision `at`, or None."""
    revision_key = _last_revision_key(reader, layout.index_key(key), at - 1)
    return None if revision_key is None else reader.get(HISTORY + revision_key)


def names(reader: Reader, start: bytes, stop: bytes | None, state: StoreState) -> Iterator[bytes | None]:
    """Which keys of ``[start, stop)`` exist now, as `layout.index_key` has them; None at pauses.

    A stop of None means no end. Reads no values unless there are many versions of each key.
    """
    if state.indexed > _INDEX_PER_KEY * state.live:
        range_end = layout.FROM_KEY if stop is None else stop
        for record in current(reader, start, range_end):
            yield None if record is None else layout.index_key(parse(record).key)
        return
    last, alive = b"", False
    bounds = layout.index_key(start), layout.META if stop is None else layout.index_key(stop)
    for number, (entry, kind) in enumerate(reader.iterate(*bounds), 1):
        name = entry[: -revision.SIZE]
        if name != last:
            if alive:
                yield last
            last = name
        alive = kind == PUT
        if not number % SLICE_RECORDS:
            yield None
    if alive:
        yield last


def count_past(reader: Reader, key: bytes, range_end: bytes, at: int) -> Walk[int]:
    """How many keys of the range existed at revision `at`; reads no values."""
    return (yield from _count(revision_keys(reader, key, range_end, at)))


def _count(walk: Iterable[bytes | None]) -> Walk[int]:
    found = 0
    for item in walk:
        if item is None:
            yield
        else:
            found += 1
    return found


def parse(record: bytes) -> KeyValue:
    """The KeyValue of a record of CURRENT, or of one of HISTORY that is not a deletion."""
    return KeyValue.FromString(record)


Walk = Generator[None, None, T]
"""A walk without records of its own: pauses, then its result."""
