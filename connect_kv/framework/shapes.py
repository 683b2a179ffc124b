"""Whether values are exactly what their annotation says, a whole column of them at a time.

What is, and is shared by nobody, comes back from msgpack as it was: that is the fast way to store a state.
A column is all values at one place of an annotation: all keys of all dicts of a list of dicts. So a million
values cost a few passes of the interpreter's own loops, not a million calls.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import types
import typing
import uuid
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, Flag
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any

import msgspec

Column = Sequence[Any]
Holds = Callable[[Column, set[int]], bool]
"""Whether all of a column are of the shape; identities of what can be shared are added to the set, and none
may be in it already."""

_SCALARS = (int, str, bytes, bool, float, types.NoneType, dt.date, uuid.UUID)


class Shape:
    """What an annotation allows, where msgpack by that annotation loses nothing."""

    def __init__(self, kinds: Iterable[type], inner: Holds | None = None) -> None:
        self.kinds = frozenset(kinds)
        self.inner = inner
        """Of values of these types, None if that is all there is to see."""

    def holds(self, column: Column, met: set[int]) -> bool:
        """Whether all of them are exactly this, and nothing that can change is there twice, or in `met`."""
        if not column:
            return True
        if not set(map(type, column)) <= self.kinds:
            return False
        return self.inner is None or self.inner(column, met)


def shape_of(annotation: object) -> Shape | None:
    """The shape, or None if values of it are stored one by one, as they are."""
    try:
        msgspec.inspect.type_info(annotation)
        return _Shapes().of(annotation)
    except (TypeError, NameError, AttributeError):
        return None


class _Unknown(TypeError):
    """No shape."""


class _Shapes:
    """Shapes within one annotation, which may contain itself."""

    def __init__(self) -> None:
        self._classes: dict[type, Shape] = {}

    def of(self, annotation: Any) -> Shape:
        if annotation is None:
            return Shape([types.NoneType])
        if annotation in _SCALARS:
            return Shape([annotation])
        if annotation in (typing.Any, object):
            return Shape(_SCALARS[:6])  # of other types, msgpack alone does not say which
        if annotation is dt.datetime:
            return Shape([dt.datetime], _plain_moments)
        if supertype := getattr(annotation, "__supertype__", None):
            return self.of(supertype)
        origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
        if origin in (typing.Union, types.UnionType):
            return self._union([self.of(one) for one in inner])
        if origin in (list, set, frozenset):
            return self._collection(origin, self.of(inner[0]))
        if origin is dict:
            return self._dict(self.of(inner[0]), self.of(inner[1]))
        if origin is tuple:
            return self._tuple(inner)
        if isinstance(annotation, type) and origin is None:
            return self._class(annotation)
        raise _Unknown

    def _union(self, parts: list[Shape]) -> Shape:
        by_type = {kind: part for part in parts for kind in part.kinds}

        def inner(column: Column, met: set[int]) -> bool:
            return all(
                part.inner([one for one in column if type(one) in part.kinds], met)
                for part in parts
                if part.inner is not None
            )

        return Shape(by_type, inner if any(part.inner for part in parts) else None)

    def _collection(self, kind: type, item: Shape) -> Shape:
        def inner(column: Column, met: set[int]) -> bool:
            return (kind is frozenset or _new(column, met)) and item.holds(
                list(chain.from_iterable(column)), met
            )

        return Shape([kind], inner)

    def _dict(self, key: Shape, value: Shape) -> Shape:
        if key.inner is not None:
            raise _Unknown

        def inner(column: Column, met: set[int]) -> bool:
            return (
                _new(column, met)
                and key.holds(list(chain.from_iterable(column)), met)
                and value.holds(list(chain.from_iterable(map(dict.values, column))), met)
            )

        return Shape([dict], inner)

    def _tuple(self, items: tuple[Any, ...]) -> Shape:
        if items and items[-1] is Ellipsis:
            return self._collection_of_tuples(self.of(items[0]))
        shapes = [self.of(item) for item in items]

        def inner(column: Column, met: set[int]) -> bool:
            return set(map(len, column)) <= {len(shapes)} and all(
                shape.holds(list(map(itemgetter(at), column)), met) for at, shape in enumerate(shapes)
            )

        return Shape([tuple], inner)

    def _collection_of_tuples(self, item: Shape) -> Shape:
        return Shape([tuple], lambda column, met: item.holds(list(chain.from_iterable(column)), met))

    def _class(self, kind: type) -> Shape:
        if kind in self._classes:
            return self._classes[kind]
        if issubclass(kind, Enum):
            if issubclass(kind, Flag) or not {type(one.value) for one in kind} <= {int, str}:
                raise _Unknown
            return Shape([kind])
        names = _fields(kind)
        shape = self._classes[kind] = Shape([kind])  # known before its fields are, which may lead here again
        hints = typing.get_type_hints(kind, include_extras=True)
        held = [(attrgetter(name), self.of(hints[name])) for name in names]
        slotted = kind.__dictoffset__ == 0

        def inner(column: Column, met: set[int]) -> bool:
            try:
                return (
                    _new(column, met)
                    and (slotted or set(map(len, map(vars, column))) <= {len(names)})
                    and all(shape.holds(list(map(get, column)), met) for get, shape in held)
                )
            except AttributeError:
                return False

        shape.inner = inner
        return shape


def _fields(kind: Any) -> list[str]:
    """Names of the fields of a class whose objects are these and no more. Raises _Unknown."""
    if hasattr(kind, "__post_init__") or issubclass(kind, (dict, list, set, frozenset, tuple, *_SCALARS[:3])):
        raise _Unknown
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind) if field.init]
        if len(names) != len(kind.__dataclass_fields__) or any(name.startswith("_") for name in names):
            raise _Unknown
        return names
    if issubclass(kind, msgspec.Struct):
        return list(kind.__struct_fields__)
    raise _Unknown


def _new(column: Column, met: set[int]) -> bool:
    """Whether nobody has met one of these objects, which this does."""
    before = len(met)
    met.update(map(id, column))
    return len(met) == before + len(column)


def _plain_moments(column: Column, met: set[int]) -> bool:
    zones = set(map(id, map(attrgetter("tzinfo"), column)))
    return zones <= {id(None), id(dt.UTC)} and not any(map(attrgetter("fold"), column))
