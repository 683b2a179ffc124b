"""The checksum on what travels between members, over all of a message and not only the data in it.

TCP's own is 16 bits wide, and a proposal, a vote or an acknowledgement that changed on its way would
be acted on like any other. The checksum is the last field of its message, ``fixed32 checksum = 7``,
so sealing is an append, and a sealed message is still one that any protobuf library reads.
"""

from __future__ import annotations

import struct
import zlib

_FIELD = struct.Struct("<BI")
_TAG = 7 << 3 | 5


def checksum(data: bytes) -> bytes:
    """What is to follow an encoded message."""
    return _FIELD.pack(_TAG, zlib.crc32(data))


def seal(data: bytes) -> bytes:
    """An encoded message, closed by its checksum."""
    return data + checksum(data)


def intact(data: bytes) -> bool:
    """Whether `data` is as it was sealed."""
    start = len(data) - _FIELD.size
    return start >= 0 and _FIELD.unpack_from(data, start) == (_TAG, zlib.crc32(memoryview(data)[:start]))
