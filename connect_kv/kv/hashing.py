"""A hash of what can still be read, to compare members by.

It covers every change kept, with its revision key, in order. Members that stand at the same revision, have
compacted up to the same one and have cleaned up after that, hold the same changes.
"""

from __future__ import annotations

import zlib

from connect_kv.kv import layout, scan
from connect_kv.kv.scan import Walk
from connect_kv.storage.engine import Reader


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
