"""A hash of what can still be read, to compare members by.

It covers every change kept, with its place, in order. Members that stand at the same revision, have
compacted up to the same one and have cleaned up after that, hold the same changes.
"""

from __future__ import annotations

import zlib
from itertools import islice

from connect_kv.kv import layout
from connect_kv.kv.scan import Walk
from connect_kv.storage.engine import Reader

_SLICE_RECORDS = 512


def history(reader: Reader, last: int) -> Walk[int]:
    """CRC-32 of all changes up to revision `last`; pauses now and then."""
    pairs = iter(reader.iterate(*layout.history_bounds(0, last)))
    checksum = 0
    crc32 = zlib.crc32
    while records := list(islice(pairs, _SLICE_RECORDS)):
        for key, value in records:
            checksum = crc32(value, crc32(key, checksum))
        yield
    return checksum
