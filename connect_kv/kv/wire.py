"""Records go to the client as they lie on disk: the few bytes of protobuf framing around them.

Parsing a record only to serialize it again into its answer would be most of the work of a large read.
"""

from __future__ import annotations

from connect_kv.rpc.kv_pb2 import KeyValue

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
    octets = bytearray()
    while number >= 0x80:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    return bytes(octets)


def field(tag: bytes, content: bytes) -> bytes:
    """One length-delimited field."""
    return tag + varint(len(content)) + content


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
