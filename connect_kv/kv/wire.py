"""Records go to the client as they lie on disk: the few bytes of protobuf framing around them.

Parsing a record only to serialize it again into its answer would be most of the work of a large read.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from connect_kv.rpc.command_pb2 import Result
from connect_kv.rpc.kv_pb2 import KeyValue, ResponseHeader

HEADER = b"\x0a"
"""The header is field 1 of every response."""
RANGE_KVS = b"\x12"
"""RangeResponse.kvs = 2."""
WATCH_EVENTS = b"\x5a"
"""WatchResponse.events = 11."""
_EVENT_DELETE = b"\x08\x01"
"""Event.type = DELETE; PUT is 0 and not written."""
_EVENT_KV = b"\x12"
_EVENT_PREV_KV = b"\x1a"


def varint(number: int) -> bytes:
    """Protobuf's encoding of a number that is not negative."""
    if number < 0x80:
        return bytes((number,))
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    if number < 0x200000:
        return bytes((number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14))
    octets = bytearray()
    while number >= 0x80:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    return bytes(octets)


def read_varint(encoded: bytes, at: int) -> tuple[int, int]:
    """The number that begins there, and where it ends."""
    number = shift = 0
    while True:
        octet = encoded[at]
        at += 1
        number |= (octet & 0x7F) << shift
        if octet < 0x80:
            return number, at
        shift += 7


def field(tag: bytes, content: bytes) -> bytes:
    """One length-delimited field."""
    return tag + varint(len(content)) + content


class Parts:
    """An encoded message in pieces: a large one is only put together once, by who sends it on."""

    __slots__ = ("pieces", "size")

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.size = sum(map(len, pieces))

    def add(self, piece: bytes) -> None:
        """Append encoded fields."""
        self.pieces.append(piece)
        self.size += len(piece)

    def add_field(self, tag: bytes, content: Parts) -> None:
        """Append a message as a field."""
        self.add(tag + varint(content.size))
        self.pieces += content.pieces
        self.size += content.size

    def begin_with(self, piece: bytes) -> Parts:
        """Put encoded fields before the others."""
        self.pieces.insert(0, piece)
        self.size += len(piece)
        return self

    def joined(self) -> bytes:
        """The whole."""
        return b"".join(self.pieces)

    def taken(self) -> Iterator[bytes]:
        """The pieces in order; each is forgotten here once the next is asked for."""
        pieces, self.pieces = self.pieces[::-1], []
        while pieces:
            yield pieces.pop()


def header(revision: int) -> bytes:
    """A header with the revision only, as a field."""
    return field(HEADER, ResponseHeader(revision=revision).SerializeToString())


@lru_cache(4096)
def key_head(size: int) -> bytes:
    """KeyValue.key = 1, up to its content."""
    return b"\x0a" + varint(size)


@lru_cache(4096)
def value_head(size: int) -> bytes:
    """KeyValue.value = 5, up to its content; an empty value is not written."""
    return b"\x2a" + varint(size) if size else b""


class Records:
    """Encodes KeyValues. One message serves all of them: to build one for each costs more than the rest."""

    def __init__(self) -> None:
        self._numbers = KeyValue()
        self._encode = self._numbers.SerializeToString

    def encode(
        self, key: bytes, create_revision: int, mod_revision: int, version: int, lease: int, value: bytes
    ) -> bytes:
        """The record; it begins with its key."""
        numbers = self.numbers(create_revision, mod_revision, version, lease)
        return b"".join((key_head(len(key)), key, numbers, value_head(len(value)), value))

    def numbers(self, create_revision: int, mod_revision: int, version: int, lease: int) -> bytes:
        """The part of a record between its key and its value."""
        numbers = self._numbers
        numbers.create_revision = create_revision
        numbers.mod_revision = mod_revision
        numbers.version = version
        numbers.lease = lease
        return self._encode()


class PutResults:
    """Encodes Results of puts, in the same way."""

    def __init__(self) -> None:
        self._result = Result()
        self._header = self._result.put.header
        self._header.revision = 1  # from now on they belong together
        self._encode = self._result.SerializeToString

    def encode(self, number: int, revision: int) -> bytes:
        """The answer to command `number` (0: outside a session), which made `revision`."""
        self._result.number = number
        self._header.revision = revision
        return self._encode()


def event(key: bytes, revision: int, record: bytes | None, previous: bytes | None) -> bytes:
    """An Event, framed as a WatchResponse holds it. `record` is None for a deletion."""
    if record is None:
        tombstone = KeyValue(key=key, mod_revision=revision).SerializeToString()
        body = _EVENT_DELETE + field(_EVENT_KV, tombstone)
    else:
        body = field(_EVENT_KV, record)
    if previous is not None:
        body += field(_EVENT_PREV_KV, previous)
    return field(WATCH_EVENTS, body)


def without_value(record: bytes) -> bytes:
    """The record of a KeyValue with its value left out."""
    kv = KeyValue.FromString(record)
    kv.ClearField("value")
    return kv.SerializeToString()
