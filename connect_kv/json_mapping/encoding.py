"""From a message to its JSON."""

from __future__ import annotations

import math
from binascii import b2a_base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from json.encoder import encode_basestring as quoted
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from connect_kv.json_mapping.decoding import is_map

Write = Callable[[Any], str]

PIECE = 256
"""Elements of a list that are written at a time."""


def encode(message: Message) -> str:
    """Fields by number, under their names in the .proto; those that have their default are left out.

    64-bit integers are strings, bytes base64, enumerations their names, or numbers that have none.
    """
    return _writer(message.DESCRIPTOR)(message)


def pieces(message: Message) -> Iterator[str]:
    """A message as JSON in pieces, for an answer so large that something else must be done in between."""
    before = "{"
    for field in _table(message.DESCRIPTOR):
        if (value := field.of(message)) is None:
            continue
        if field.element is None:
            yield f"{before}{field.name}{field.write(value)}"
        else:
            yield f"{before}{field.name}["
            for start in range(0, len(value), PIECE):
                yield ("," if start else "") + ",".join(map(field.element, value[start : start + PIECE]))
            yield "]"
        before = ","
    yield "{}" if before == "{" else "}"


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    """In quotes, and its colon."""
    attribute: str
    presence: bool
    """Whether it can be there with its default: one of a oneof, or a message."""
    write: Write
    element: Write | None
    """For a list: how one element is written."""

    def of(self, message: Any) -> Any:
        """Its value; None if it is left out."""
        if self.presence:
            return getattr(message, self.attribute) if message.HasField(self.attribute) else None
        return getattr(message, self.attribute) or None


@cache
def _writer(kind: Descriptor) -> Write:
    """For messages of one type; those within are looked up at their first use."""
    # Read one by one: asking for the fields that are set (ListFields) takes five times as long.
    table = [(one.name, one.attribute, one.presence, one.write) for one in _table(kind)]

    def write(message: Any) -> str:
        parts = []
        for name, attribute, presence, one in table:
            if presence:
                if message.HasField(attribute):
                    parts.append(name + one(getattr(message, attribute)))
            elif value := getattr(message, attribute):
                parts.append(name + one(value))
        return "{" + ",".join(parts) + "}"

    return write


@cache
def _table(kind: Descriptor) -> Sequence[_Field]:
    """The fields of a message, in the order of their numbers, as they are written."""
    found: list[_Field] = []
    for field in sorted(kind.fields, key=lambda one: one.number):
        one = _single(field)
        listed = field.is_repeated and not is_map(field)
        write = _map(field) if is_map(field) else _list(one) if listed else one
        found.append(
            _Field(
                name=f"{quoted(field.name)}:",
                attribute=field.name,
                presence=field.has_presence,
                write=write,
                element=one if listed else None,
            )
        )
    return found


def _list(one: Write) -> Write:
    def write(values: Any) -> str:
        return "[" + ",".join(map(one, values)) + "]"

    return write


def _map(field: FieldDescriptor) -> Write:
    entry = field.message_type
    assert entry is not None
    value = _single(entry.fields_by_name["value"])

    def write(values: Any) -> str:
        """In the order of the keys, as Go writes them."""
        return "{" + ",".join(f"{quoted(_key(key))}:{value(values[key])}" for key in sorted(values)) + "}"

    return write


def _key(key: object) -> str:
    return ("true" if key else "false") if isinstance(key, bool) else str(key)


def _single(field: FieldDescriptor) -> Write:
    if (message := field.message_type) is not None:

        def write(value: Any) -> str:
            return _writer(message)(value)

        return write
    if (enum := field.enum_type) is not None:
        names = {value.number: quoted(value.name) for value in reversed(enum.values)}
        return lambda value: names.get(value) or str(value)
    return _SCALARS[field.type]


def _base64(value: bytes) -> str:
    return '"' + b2a_base64(value, newline=False).decode() + '"'


def _floating(value: float) -> str:
    if math.isfinite(value):
        return repr(value).removesuffix(".0")
    return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'


_SCALARS: dict[int, Write] = {
    FieldDescriptor.TYPE_INT32: str,
    FieldDescriptor.TYPE_UINT32: str,
    FieldDescriptor.TYPE_INT64: lambda value: f'"{value}"',
    FieldDescriptor.TYPE_UINT64: lambda value: f'"{value}"',
    FieldDescriptor.TYPE_FIXED32: str,
    FieldDescriptor.TYPE_SFIXED32: str,
    FieldDescriptor.TYPE_FIXED64: lambda value: f'"{value}"',
    FieldDescriptor.TYPE_SFIXED64: lambda value: f'"{value}"',
    FieldDescriptor.TYPE_BOOL: lambda value: "true" if value else "false",
    FieldDescriptor.TYPE_STRING: quoted,
    FieldDescriptor.TYPE_BYTES: _base64,
    FieldDescriptor.TYPE_DOUBLE: _floating,
    FieldDescriptor.TYPE_FLOAT: _floating,
}
