"""What JSON says of one field: how its text becomes bytes on the wire."""

from __future__ import annotations

import re
import struct
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final

from google.protobuf.descriptor import FieldDescriptor

TYPES: Final = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in vars(FieldDescriptor).items()
    if name.startswith("TYPE_")
}
"""A field's type, as a .proto writes it, by its number."""


class Unreadable(Exception):
    """This is no value for that field."""


class Number(str):
    """The text of a number with a fraction or an exponent."""

    __slots__ = ()


Encode = Callable[[object], bytes | None]
"""From what a JSON reader gives for a value to its bytes after the tag; None: as if it were not there."""

_SMALL = tuple(bytes((number,)) for number in range(128))
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![-+._0-9A-Za-z])")
_MOST_DIGITS = 20
_URL_SAFE = str.maketrans("-_+/", "+/**")


def varint(number: int) -> bytes:
    """As it is on the wire; `number` is not negative."""
    if number < 128:
        return _SMALL[number]
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def delimited(data: bytes) -> bytes:
    """With its length before it."""
    return varint(len(data)) + data


def integer(value: object, low: int, high: int) -> int:
    """A whole number in [low, high], written as a number, or as one in a string."""
    if type(value) is int:
        number = value
    elif isinstance(value, str):
        number = _whole(value)
    else:
        raise Unreadable
    if not low <= number <= high:
        raise Unreadable
    return number


def _whole(text: str) -> int:
    found = _NUMBER.match(text)
    if found is None:
        raise Unreadable
    try:
        number = Decimal(found.group())
    except ArithmeticError:  # its exponent is no number that anybody means
        raise Unreadable from None
    if not number:
        return 0
    if number.adjusted() > _MOST_DIGITS or number != number.to_integral_value():
        raise Unreadable
    return int(number)


def _signed(bits: int) -> Encode:
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1

    def encode(value: object) -> bytes:
        return varint(integer(value, low, high) & 0xFFFF_FFFF_FFFF_FFFF)

    return encode


def _unsigned(bits: int) -> Encode:
    high = (1 << bits) - 1

    def encode(value: object) -> bytes:
        return varint(integer(value, 0, high))

    return encode


def _bool(value: object) -> bytes:
    if value is True:
        return b"\x01"
    if value is False:
        return b"\x00"
    raise Unreadable


def _string(value: object) -> bytes:
    if type(value) is not str:
        raise Unreadable
    try:
        return delimited(value.encode())
    except UnicodeEncodeError:  # half a surrogate pair
        raise Unreadable from None


def _bytes(value: object) -> bytes:
    if type(value) is not str:
        raise Unreadable
    try:
        return delimited(a2b_base64(value, strict_mode=True))
    except ValueError:
        return delimited(_other_base64(value))


def _other_base64(text: str) -> bytes:
    """Url-safe, or without padding; with line ends, where Go takes them: between, if the length is right."""
    url_safe = text.translate(_URL_SAFE) if "-" in text or "_" in text else text
    bare = url_safe.replace("\r", "").replace("\n", "")
    if len(text) % 4:
        if "=" in bare:
            raise Unreadable
        bare += "=" * (-len(bare) % 4)
    try:
        return a2b_base64(bare, strict_mode=True)
    except ValueError:
        raise Unreadable from None


def _floating(form: str) -> Encode:
    def encode(value: object) -> bytes:
        if type(value) is bool or not isinstance(value, int | str):
            raise Unreadable
        if type(value) is str and value not in ("NaN", "Infinity", "-Infinity") and not _NUMBER.match(value):
            raise Unreadable
        try:
            return struct.pack(form, float(value))
        except (OverflowError, ValueError):
            raise Unreadable from None

    return encode


def enumeration(numbers: Mapping[str, int]) -> Encode:
    """By name or number; a name that nobody knows is as if it were not there."""

    def encode(value: object) -> bytes | None:
        if type(value) is str:
            known = numbers.get(value)
            return None if known is None else varint(known & 0xFFFF_FFFF_FFFF_FFFF)
        return varint(integer(value, -(1 << 31), (1 << 31) - 1) & 0xFFFF_FFFF_FFFF_FFFF)

    return encode


def _fixed(form: str, bits: int, *, signed: bool = False) -> Encode:
    low = -(1 << bits - 1) if signed else 0

    def encode(value: object) -> bytes:
        return struct.pack(form, integer(value, low, low + (1 << bits) - 1))

    return encode


SCALARS: Final[Mapping[int, tuple[int, Encode]]] = {
    FieldDescriptor.TYPE_INT32: (0, _signed(32)),
    FieldDescriptor.TYPE_INT64: (0, _signed(64)),
    FieldDescriptor.TYPE_UINT32: (0, _unsigned(32)),
    FieldDescriptor.TYPE_UINT64: (0, _unsigned(64)),
    FieldDescriptor.TYPE_BOOL: (0, _bool),
    FieldDescriptor.TYPE_STRING: (2, _string),
    FieldDescriptor.TYPE_BYTES: (2, _bytes),
    FieldDescriptor.TYPE_FIXED32: (5, _fixed("<I", 32)),
    FieldDescriptor.TYPE_FIXED64: (1, _fixed("<Q", 64)),
    FieldDescriptor.TYPE_SFIXED32: (5, _fixed("<i", 32, signed=True)),
    FieldDescriptor.TYPE_SFIXED64: (1, _fixed("<q", 64, signed=True)),
    FieldDescriptor.TYPE_DOUBLE: (1, _floating("<d")),
    FieldDescriptor.TYPE_FLOAT: (5, _floating("<f")),
}
"""By a field's type: its wire type and how it is encoded. Other types are not used by any message of ours."""
