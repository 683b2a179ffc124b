"""Records go to the client as they lie on disk: the few bytes of protobuf framing around them.

Parsing a record only to serialize it again into its answer would be most of the work of a large read.
"""

from __future__ import annotations

from functools import lru_cache

from connect_kv.protowire import field, read_varint, varint
from connect_kv.rpc.command_pb2 import Result
from connect_kv.rpc.kv_pb2 import KeyValue, PutRequest, RequestOp, ResponseHeader, TxnRequest

HEADER = b"\x0a"
"""The header is field 1 of every response."""
RANGE_KVS = b"\x12"
"""RangeResponse.kvs = 2."""
WATCH_EVENTS = b"\x5a"
"""WatchResponse.events = 11."""
_PUT_KEY, _PUT_VALUE = 0x0A, 0x12
"""PutRequest.key = 1, value = 2."""
_RANGE_KEY = 0x0A
"""RangeRequest.key = 1."""
_EVENT_DELETE = b"\x08\x01"
"""Event.type = DELETE; PUT is 0 and not written."""
_EVENT_KV = b"\x12"
_EVENT_PREV_KV = b"\x1a"


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


@lru_cache(4096)
def plain_put_op_size(key: int, value: int) -> int:
    """Bytes of a put of a key and a value of these sizes, without options, in a branch of a TxnRequest."""
    put = PutRequest(key=bytes(key), value=bytes(value))
    return TxnRequest(success=[RequestOp(request_put=put)]).ByteSize()


def is_plain_put(encoded: bytes) -> bool:
    """Whether an encoded PutRequest has a key and at most a value, as encoders write it, and nothing else.

    Such a one is good as it stands: it need not be decoded to be replicated.
    """
    end = len(encoded)
    # A key of at most 127 bytes: its length is one octet.
    if end < 3 or encoded[0] != _PUT_KEY or not 0 < encoded[1] < 0x80:
        return False
    at = 3 + encoded[1]
    if at > end:
        return at == end + 1
    if encoded[at - 1] != _PUT_VALUE or at == end:
        return False
    # The shortest form of its length only, and no empty value: those are what others would write.
    size = encoded[at]
    if size < 0x80:
        return size > 0 and at + 1 + size == end
    if at + 1 < end and encoded[at + 1] < 0x80:
        high = encoded[at + 1]
        return high > 0 and at + 2 + (size & 0x7F | high << 7) == end
    try:
        size, start = read_varint(encoded, at)
    except (IndexError, ValueError):
        return False
    return start + size == end and start - at == len(varint(size))


def key_of_plain_get(encoded: bytes) -> bytes | None:
    """The key of an encoded RangeRequest that has nothing but a key of at most 127 bytes, as most have."""
    size = len(encoded)
    if 2 < size < 130 and encoded[0] == _RANGE_KEY and encoded[1] == size - 2:
        return encoded[2:]
    return None


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
