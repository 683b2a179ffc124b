"""Hashes of what can still be read, to compare members by, and a member with an etcd.

`history` is between members: every change kept, with its revision key, in order. Members that stand at the
same revision, have compacted up to the same one and have cleaned up after that, hold the same changes.

`etcd_history` is what etcd's HashKV answers, over the same changes as etcd writes them: so the number is
the same here and there. It passes over changes that a compaction makes superfluous, whether they were
removed yet or not.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from connect_kv.etcd_files import records
from connect_kv.etcd_files.checksums import crc32c
from connect_kv.kv import layout, revision, scan
from connect_kv.kv.layout import DELETED, PUT
from connect_kv.kv.revision import LAST_SUB
from connect_kv.kv.scan import Walk
from connect_kv.protowire import field as encoded_field
from connect_kv.rpc.kv_pb2 import KeyValue
from connect_kv.storage.engine import Reader

MOST_LEFT_OUT = 200_000
"""Places in memory at once; with more, the index is walked again for the next ones."""

_KEY = b"\x0a"
"""KeyValue.key = 1."""


def history(reader: Reader, last: int) -> Walk[int]:
    """CRC-32 of all changes up to revision `last`; pauses now and then."""
    checksum = 0
    crc32 = zlib.crc32
    for pair in scan.sliced(reader.iterate(*layout.history_bounds(0, last))):
        if pair is None:
            yield
        else:
            checksum = crc32(pair[1], crc32(pair[0], checksum))
    return checksum


def etcd_history(reader: Reader, last: int, compacted: int) -> Walk[int]:
    """CRC-32C of the changes up to revision `last` by etcd's rule; pauses now and then.

    Left out is what is not above `compacted`, unless it is its key's newest change up to `last` and no
    deletion, or no key at all lives at `last`; and a deletion at `compacted` itself.
    """
    extend = crc32c()
    checksum = extend(0, records.KEY)
    start = b""
    _, stop = layout.history_bounds(0, last)
    while True:
        left = yield from left_out(reader, last, compacted, start)
        places = left.places
        until = stop if left.end is None else layout.HISTORY + left.end
        for pair in scan.sliced(reader.iterate(layout.HISTORY + start, until)):
            if pair is None:
                yield
            elif pair[0][1:] not in places:
                checksum = extend(checksum, b"".join(etcd_record(pair[0][1:], pair[1])))
        if left.end is None:
            return checksum
        start = left.end


def etcd_record(place: bytes, record: bytes) -> tuple[bytes, bytes]:
    """The key and the value of a change in etcd's database, from its place in HISTORY."""
    key = place[:8] + b"_\0\0\0\0" + place[8:]
    if record.startswith(DELETED):
        return key + records.TOMBSTONE, encoded_field(_KEY, record[1:])
    kv = KeyValue.FromString(record)
    # etcd writes fields in ascending order; here the lease stands before the value.
    return key, kv.SerializeToString() if kv.lease else record


def etcd_sized(place: bytes, record: bytes) -> tuple[bytes, bytes]:
    """`etcd_record` with the right lengths only, at half its cost."""
    key = place[:8] + b"_\0\0\0\0" + place[8:]
    if record.startswith(DELETED):
        return key + records.TOMBSTONE, encoded_field(_KEY, record[1:])
    return key, record


@dataclass(slots=True)
class LeftOut:
    """Which changes a hash passes over."""

    places: set[bytes] = field(default_factory=set)
    """From where it was asked to `end`."""
    end: bytes | None = None
    """A place: what lies there or behind it was not looked at. None: all was."""


def left_out(reader: Reader, last: int, compacted: int, start: bytes) -> Walk[LeftOut]:
    """Those from place `start` on, as many as may be in memory, by one walk over the index."""
    if compacted < 0:
        return LeftOut()
    lives = False
    for one in _keys(reader, last, compacted):
        if one is None:
            yield
        elif one.lives:
            lives = True
            break
    at_compacted = revision.pack(compacted, 0)
    places: list[bytes] = []
    end: bytes | None = None
    for one in _keys(reader, last, compacted):
        if one is None:
            yield
            continue
        for place, kind in one.old:
            if place >= start and (end is None or place < end):
                superseded = place != one.newest or kind != PUT
                if (superseded and lives) or (kind != PUT and place >= at_compacted):
                    places.append(place)
        if len(places) > 2 * MOST_LEFT_OUT:
            places.sort()
            end = places[MOST_LEFT_OUT]
            del places[MOST_LEFT_OUT:]
    return LeftOut(set(places), end)


@dataclass(slots=True)
class _Key:
    """Of one key, what happened up to a revision."""

    name: bytes
    old: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Place and kind of its changes that are not above the compacted revision."""
    newest: bytes = b""
    lives: bool = False


def _keys(reader: Reader, last: int, compacted: int) -> Iterator[_Key | None]:
    """All keys in order; None at pauses."""
    old, limit = revision.pack(compacted, LAST_SUB), revision.pack(last, LAST_SUB)
    key: _Key | None = None
    for number, (entry, kind) in enumerate(reader.iterate(layout.INDEX, layout.META), 1):
        name, place = entry[: -revision.SIZE], entry[-revision.SIZE :]
        if key is None or key.name != name:
            if key is not None:
                yield key
            key = _Key(name)
        if place <= limit:
            key.newest, key.lives = place, kind == PUT
            if place <= old:
                key.old.append((place, kind))
        if not number % scan.SLICE_RECORDS:
            yield None
    if key is not None:
        yield key
