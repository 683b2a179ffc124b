"""The refusal of bytes that are no message, in the words that etcd's clients know."""

from __future__ import annotations

from connect_kv.errors import Refused
from connect_kv.etcd_errors import Code
from connect_kv.protowire import read_varint

_SINGLE = "grpc: error unmarshalling request"
_STREAMED = "grpc: failed to unmarshal the received message"
_FIXED_SIZES = {1: 8, 5: 4}
"""Bytes of a field, by wire type."""
_SIGN = 63
"""The bit that makes a length negative."""


def undecodable(data: bytes, *, streamed: bool) -> Refused:
    """What to raise for them. `streamed`: the method streams, one way or both."""
    return Refused(Code.INTERNAL, f"{_STREAMED if streamed else _SINGLE}: {_reason(data)}")


def _reason(data: bytes) -> str:
    """In the words of etcd's library: of 3.6 for bytes that were cut off, of 3.7 for all others."""
    try:
        cut_off = _end(data) > len(data)
    except IndexError:
        cut_off = True
    except ValueError:
        cut_off = False
    return "unexpected EOF" if cut_off else "proto: cannot parse invalid wire-format data"


def _end(data: bytes) -> int:
    """Where the last field ends, or would. Raises IndexError; ValueError for what no field begins with."""
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        kind = tag & 7
        if kind == 0:
            _, at = read_varint(data, at)
        elif kind == 2:
            size, at = read_varint(data, at)
            if size >> _SIGN:
                raise ValueError("a negative length")
            at += size
        elif kind in _FIXED_SIZES:
            at += _FIXED_SIZES[kind]
        else:
            raise ValueError("no wire type of today")
    return at
