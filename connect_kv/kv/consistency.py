"""Whether what repeats the history still says what the history says.

The history is what members compare (`hashing`). Current values, the index, the keys of leases and
the numbers beside them follow from it, on each member for itself: so each looks after its own.
"""

from __future__ import annotations

import zlib

from google.protobuf.message import DecodeError

from connect_kv.kv import layout, scan
from connect_kv.kv.layout import CURRENT, DELETED, FROM_KEY, HISTORY, PUT, TOMBSTONE, StoreState
from connect_kv.kv.scan import Walk
from connect_kv.storage.engine import Reader

_crc32 = zlib.crc32


def difference(reader: Reader, state: StoreState) -> Walk[str | None]:
    """What does not follow from the history, or None; pauses now and then.

    Costs one look into the history for each key, and a few walks over everything.
    """
    try:
        return (yield from _index(reader, state)) or (yield from _current(reader, state))
    except (LookupError, DecodeError) as error:
        return str(error)


def _index(reader: Reader, state: StoreState) -> Walk[str | None]:
    """The index has the changes of the history, each once. Sums of checksums need no order."""
    changes = 0
    for pair in scan.sliced(reader.iterate(HISTORY, layout.INDEX)):
        if pair is None:
            yield
            continue
        key, record = pair
        deleted = record.startswith(DELETED)
        name = layout.index_key(record[1:] if deleted else scan.parse(record).key)
        changes += _crc32(TOMBSTONE if deleted else PUT, _crc32(name + key[1:]))
    indexed = entries = 0
    for entries, (entry, kind) in enumerate(reader.iterate(layout.INDEX, layout.META), 1):
        indexed += _crc32(kind, _crc32(entry))
        if not entries % scan.SLICE_RECORDS:
            yield
    if changes != indexed:
        return "the index has other changes than the history"
    if entries != state.indexed:
        return f"there are {entries} changes, not {state.indexed}"
    return None


def _current(reader: Reader, state: StoreState) -> Walk[str | None]:
    """Each current value is its key's newest change, and leases have the keys that name them."""
    keys = attached = 0
    found = reader.iterate(*layout.current_bounds(b"", FROM_KEY))
    newest = scan.fetch(reader, scan.revision_keys(reader, b"", FROM_KEY, state.revision))
    for record in newest:
        if record is None:
            yield
            continue
        change = scan.parse(record)
        if next(found, None) != (CURRENT + change.key, record):
            return f"the newest change of {change.key!r} is not its current value"
        keys += 1
        if change.lease:
            attached += _crc32(layout.lease_keys_prefix(change.lease) + change.key)
    extra = next(found, None)
    if extra is not None:
        return f"{extra[0][1:]!r} has a current value and no change"
    if keys != state.live:
        return f"there are {keys} keys, not {state.live}"
    held = 0
    for number, (entry, _) in enumerate(reader.iterate(layout.LEASE_KEYS, layout.LEASE_KEYS_END), 1):
        held += _crc32(entry)
        if not number % scan.SLICE_RECORDS:
            yield
    return None if held == attached else "leases have other keys than those that name them"
