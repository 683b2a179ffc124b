"""Values as data: msgpack inside, JSON from outside, always by an annotation. Never pickle."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Iterator
from enum import Enum

import msgspec

CHUNK_BYTES = 1 << 20
"""Snapshots are cut into pieces of this size."""

_encoder = msgspec.msgpack.Encoder()


def encode(value: object) -> bytes:
    """Msgpack. Raises TypeError or OverflowError (integers beyond 64 bits)."""
    return _encoder.encode(value)


def text_of(annotation: object) -> str:
    """An annotation as its author wrote it."""
    if annotation is type(None):
        return "None"
    return inspect.formatannotation(annotation)


def not_data(annotation: object, *, exact: bool) -> str | None:
    """Why values of this annotation cannot travel as data, or None if they can.

    With `exact`, they must also come back as what they were: `Any` does not say what that is.
    """
    try:
        described = msgspec.inspect.type_info(annotation)
    except TypeError as error:
        return str(error)
    for part in _parts(described, set()):
        if isinstance(part, msgspec.inspect.CustomType) and part.cls is not object:
            return f"{text_of(part.cls)} is not plain data (use a dataclass, or built-in types)"
        if exact and isinstance(part, msgspec.inspect.AnyType | msgspec.inspect.CustomType):
            return "Any does not say what to bring back"
    return None


def same(one: object, other: object) -> bool:
    """Equal, and of the same types all the way down: 1, 1.0 and True differ, NaN equals itself."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return one == other or (one != one and other != other)
    if isinstance(one, dict) and isinstance(other, dict):
        return _all_same(one, other) and _all_same(one.values(), other.values())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return _all_same(one, other)
    if dataclasses.is_dataclass(one) and not isinstance(one, type):
        names = [field.name for field in dataclasses.fields(one)]
        return all(same(getattr(one, name), getattr(other, name)) for name in names)
    return bool(one == other)


def in_chunks(data: bytes) -> list[bytes]:
    """Cut into pieces; at least one."""
    return [data[at : at + CHUNK_BYTES] for at in range(0, len(data) or 1, CHUNK_BYTES)]


def _all_same(ones: Iterable[object], others: Iterable[object]) -> bool:
    ones, others = list(ones), list(others)
    return len(ones) == len(others) and all(map(same, ones, others))


def _parts(described: object, seen: set[int]) -> Iterator[object]:
    """A described type and every type within it; types may contain themselves."""
    if id(described) in seen:
        return
    seen.add(id(described))
    if isinstance(described, msgspec.inspect.Type | msgspec.inspect.Field):
        yield described
        # An enum's class, a default value: not types, and nothing to walk into.
        for name in getattr(described, "__struct_fields__", ()):
            if name in ("cls", "default", "default_factory"):
                continue
            yield from _parts(getattr(described, name), seen)
    elif isinstance(described, tuple) and not isinstance(described, Enum):
        for part in described:
            yield from _parts(part, seen)
