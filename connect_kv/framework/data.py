"""Values as data: msgpack inside, JSON from outside, always by an annotation. Never pickle."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from enum import Enum

import msgspec

CHUNK_BYTES = 1 << 20
"""Snapshots are cut into pieces of this size."""

MAXIMUM_NESTING = 64
"""Lists and maps within each other, in what is sent from outside."""

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


def may_nest(annotation: object) -> bool:
    """Whether values of it can hold values of it, and so on: their depth is the sender's choice."""
    return _endless(msgspec.inspect.type_info(annotation), set())


def too_deep(packed: bytes) -> bool:
    """Whether msgpack holds more than MAXIMUM_NESTING values within each other.

    How deep a thread may go depends on what it is doing: what is read at one place could be too
    much at another, or on another member. So the limit is far below, and the same everywhere.
    """
    level: list[object] = [msgspec.msgpack.decode(packed)]
    for _ in range(MAXIMUM_NESTING + 1):
        level = [part for value in level for part in _held(value)]
        if not level:
            return False
    return True


def in_chunks(data: bytes) -> list[bytes]:
    """Cut into pieces; at least one."""
    return [data[at : at + CHUNK_BYTES] for at in range(0, len(data) or 1, CHUNK_BYTES)]


def _held(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return (*value.keys(), *value.values())
    return value if isinstance(value, list | tuple) else ()


def _endless(described: object, within: set[int]) -> bool:
    """Whether a described type is, holds, or comes back to, one of any depth."""
    if isinstance(described, msgspec.inspect.AnyType | msgspec.inspect.CustomType) or id(described) in within:
        return True
    within = within | {id(described)}
    return any(_endless(part, within) for part in _within(described))


def _within(described: object) -> Iterator[object]:
    """The types that a described type is made of."""
    if isinstance(described, msgspec.inspect.Type | msgspec.inspect.Field):
        # An enum's class, a default value: not types, and nothing to walk into.
        for name in getattr(described, "__struct_fields__", ()):
            if name in ("cls", "default", "default_factory"):
                continue
            part = getattr(described, name)
            yield from part if type(part) is tuple else (part,)


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
