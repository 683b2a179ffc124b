"""How these tests make input: whole messages of any content, and valid bytes that were damaged.

CONNECT_KV_FUZZ_EXAMPLES says how many inputs each test tries; without it runs are short and
always the same.
"""

from __future__ import annotations

import math
import os
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

M = TypeVar("M", bound=Message)

EXAMPLES = int(os.environ.get("CONNECT_KV_FUZZ_EXAMPLES", 0))

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]


def fuzz(examples: int = 200) -> settings:
    """Settings of a test: so many inputs in a short run; the deadline finds what hangs."""
    return settings(
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        database=None,
        deadline=5000,
        suppress_health_check=SLOW,
    )


@st.composite
def damaged(draw: st.DrawFn, valid: st.SearchStrategy[bytes]) -> bytes:
    """Valid bytes after some accidents: changed, cut, repeated, extended, or replaced altogether."""
    data = bytearray(draw(valid))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["flip", "flip", "cut", "insert", "repeat", "huge", "zero", "random"])):
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[at : at + draw(st.integers(1, 16))]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "repeat":
                data[at:at] = data[: draw(st.integers(0, 64))]
            case "huge":  # a length or a number that claims the most
                data[at : at + 4] = b"\xff" * draw(st.integers(1, 10))
            case "zero":
                data[at : at + 4] = b"\0" * 4
            case "random":
                data = bytearray(draw(st.binary(max_size=200)))
    return bytes(data)


def integers(low: int, high: int) -> st.SearchStrategy[int]:
    """Small ones, and those at the edges of what a field holds."""
    edges = [low, low + 1, high - 1, high, 2**31 - 1, 2**31, 2**32, 2**53, 9_000_000_000]
    return st.one_of(
        st.integers(max(low, -2), 12), st.sampled_from([one for one in edges if low <= one <= high])
    )


_KEYS = st.sampled_from([b"", b"\0", b"a", b"a\0", b"b", b"c", b"\xff", b"\xff\xff"])
_BYTES = st.one_of(_KEYS, _KEYS, st.binary(max_size=12))
_TEXT = st.one_of(st.sampled_from(["", "a", "counter", "add"]), st.text(max_size=8))
_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_INT32: integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: integers(0, 2**64 - 1),
    FieldDescriptor.TYPE_FIXED32: integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED64: integers(0, 2**64 - 1),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_BYTES: _BYTES,
    FieldDescriptor.TYPE_STRING: _TEXT,
    FieldDescriptor.TYPE_DOUBLE: st.sampled_from([0.0, 1.5, math.inf, math.nan]),
}


def messages(kind: type[M], *, depth: int = 4, only: frozenset[str] | None = None) -> st.SearchStrategy[M]:
    """Messages of any content that the wire can carry; of the first oneof, `only` these fields."""

    @st.composite
    def make(draw: st.DrawFn) -> M:
        message = kind()
        _fill(draw, message, depth, only)
        return message

    return make()


def _fill(draw: st.DrawFn, message: Message, depth: int, only: frozenset[str] | None) -> None:
    descriptor = message.DESCRIPTOR
    chosen = {
        one.name: draw(st.sampled_from([f.name for f in one.fields if only is None or f.name in only]))
        for one in descriptor.oneofs
    }
    for field in descriptor.fields:
        oneof = field.containing_oneof
        if chosen[oneof.name] == field.name if oneof is not None else draw(st.integers(0, 2)):
            _set(draw, message, field, depth)


def _set(draw: st.DrawFn, message: Message, field: Any, depth: int) -> None:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        if depth == 0:
            return
        if field.is_repeated:
            for _ in range(draw(st.integers(0, 3))):
                _fill(draw, getattr(message, field.name).add(), depth - 1, None)
        else:
            part = getattr(message, field.name)
            part.SetInParent()
            _fill(draw, part, depth - 1, None)
        return
    value = _enum(field) if field.type == FieldDescriptor.TYPE_ENUM else _SCALARS[field.type]
    if field.is_repeated:
        getattr(message, field.name).extend(draw(st.lists(value, max_size=3)))
    else:
        setattr(message, field.name, draw(value))


def _enum(field: Any) -> st.SearchStrategy[int]:
    """Enums are open: any number of 32 bits arrives."""
    numbers = [one.number for one in field.enum_type.values]
    return st.one_of(st.sampled_from(numbers), st.sampled_from(numbers), integers(-(2**31), 2**31 - 1))
