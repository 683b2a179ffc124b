"""From the JSON of a request to its encoded message."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from json import JSONDecoder
from typing import Any, Final, NoReturn

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from connect_kv.json_mapping.blame import blame
from connect_kv.json_mapping.fields import SCALARS, Encode, Number, Unreadable, delimited, enumeration, varint
from connect_kv.json_mapping.syntax import SyntaxFault, blank_end, value_end


class BadJson(Exception):
    """What came is no message of that type; the text says why, in Go's words."""


MOST_DEPTH: Final = 150
"""Objects and arrays within each other: what a message may hold that protobuf, with its limit of 100
messages within each other, reads again (an operation of a transaction is three deep here, and two there)."""


def _no_number(text: str) -> NoReturn:
    raise Unreadable(text)


_DECODER: Any = JSONDecoder(object_pairs_hook=tuple, parse_float=Number, parse_constant=_no_number)
_scan: Final[Callable[[str, int], tuple[Any, int]]] = _DECODER.scan_once
"""Objects become tuples of pairs, so that a name that comes twice is seen; arrays are lists."""


def decode(kind: Descriptor, text: str, at: int = 0) -> tuple[bytes, int]:
    """The first value of `text` from `at` on as an encoded message, and where it ended.

    What comes after it is not looked at. Raises BadJson.
    """
    at = blank_end(text, at)
    try:
        value, end = _scan(text, at)
        # How deep the interpreter lets the scanner go is no rule: other threads change that limit.
        if text.count("{", at, end) + text.count("[", at, end) > MOST_DEPTH and _deeper(value, MOST_DEPTH):
            raise RecursionError
        return _encoder(kind)(value), end
    except RecursionError:
        raise BadJson(_too_deep(text, at)) from None
    except (Unreadable, ValueError, StopIteration):
        raise BadJson(blame(kind, text, at)) from None


def _too_deep(text: str, at: int) -> str:
    """What Go says of it: it reads the text first, then the message."""
    try:
        value_end(text, at)
    except SyntaxFault as fault:
        return str(fault)
    return "proto: exceeded max recursion depth"


def _deeper(value: object, most: int) -> bool:
    """Whether more than `most` objects and arrays lie within each other."""
    level = [value]
    for _ in range(most):
        level = [inner for outer in level for inner in _within(outer)]
        if not level:
            return False
    return any(isinstance(one, tuple | list) for one in level)


def _within(value: object) -> Iterable[object]:
    if type(value) is tuple:
        return [inner for _, inner in value]
    return value if type(value) is list else ()


def readable(body: bytes) -> str:
    """A body as text. Bytes that are no UTF-8 stand there as half surrogate pairs, which no field takes."""
    return body.decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class _Field:
    bit: int
    """Of this field among those of its message."""
    alone: int
    """The bit of its oneof, if it is a member of one."""
    encode: Encode
    tag: bytes
    repeated: bool
    is_map: bool


@cache
def _encoder(kind: Descriptor) -> Callable[[object], bytes]:
    """Made at first use; for messages within, at their first use: types may contain themselves."""
    fields = _fields(kind)

    def encode(value: object) -> bytes:
        if type(value) is not tuple:
            raise Unreadable
        parts: list[bytes] = []
        seen = 0
        for name, item in value:
            field = fields.get(name)
            if field is None:
                continue
            if seen & field.bit:
                raise Unreadable
            seen |= field.bit
            if item is None:
                continue
            if field.repeated:
                _encode_all(field, item, parts)
                continue
            if field.alone:
                if seen & field.alone:
                    raise Unreadable
                seen |= field.alone
            if (data := field.encode(item)) is not None:
                parts += (field.tag, data)
        return b"".join(parts)

    return encode


def _encode_all(field: _Field, items: object, parts: list[bytes]) -> None:
    if field.is_map:
        if type(items) is not tuple:
            raise Unreadable
        items = [(("key", key), ("value", item)) for key, item in items]
        if len({one[0][1] for one in items}) < len(items) or any(one[1][1] is None for one in items):
            raise Unreadable
    elif type(items) is not list:
        raise Unreadable
    for item in items:
        if item is None:
            raise Unreadable
        if (data := field.encode(item)) is not None:
            parts += (field.tag, data)


def _fields(kind: Descriptor) -> Mapping[str, _Field]:
    """By both of the names that a field has."""
    found: dict[str, _Field] = {}
    for index, field in enumerate(kind.fields):
        oneof = field.containing_oneof
        wire, encode = _coding(field)
        made = _Field(
            bit=1 << index,
            alone=0 if oneof is None else 1 << len(kind.fields) + oneof.index,
            encode=encode,
            tag=varint(field.number << 3 | wire),
            repeated=field.is_repeated,
            is_map=is_map(field),
        )
        found[field.json_name] = found[field.name] = made
    return found


def is_map(field: FieldDescriptor) -> bool:
    """Whether it is a map, which is a list of pairs on the wire."""
    inner = field.message_type
    return inner is not None and bool(inner.GetOptions().map_entry)


def _coding(field: FieldDescriptor) -> tuple[int, Encode]:
    """Its wire type, and how its values are encoded."""
    if (message := field.message_type) is not None:

        def encode(value: object) -> bytes:
            return delimited(_encoder(message)(value))

        return 2, encode
    if (enum := field.enum_type) is not None:
        return 0, enumeration({name: value.number for name, value in enum.values_by_name.items()})
    return SCALARS[field.type]
