"""The classes whose objects a state may hold: those that annotations reach, and their subclasses."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import inspect
import sys
import types
import typing
import uuid
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator
from enum import Enum
from importlib import import_module
from typing import Any

import msgspec

_STANDARD: tuple[type, ...] = (Counter,)
_HOLDERS = (dict, list, set, frozenset, tuple, str, bytes, bytearray, float, int)
"""Types whose value is stored beside the attributes of an object derived from them."""
_STANDARD_VALUES = (
    *_HOLDERS, bool, complex, range, types.NoneType, object, deque, OrderedDict, defaultdict,
    dt.datetime, dt.date, dt.time, dt.timedelta, dt.timezone, zoneinfo.ZoneInfo, decimal.Decimal, uuid.UUID,
)  # fmt: skip
_NEVER = (Callable, Iterator, Generator, Awaitable, Coroutine)
"""What annotations may well name, and no state can hold."""


class Unstorable(TypeError):
    """A value that could not come back as it is. Its path is completed on the way out."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = ""

    def within(self, step: str) -> Unstorable:
        """This error as seen from one level further out, with `step` before its path."""
        self.path = step + self.path
        return self

    def __str__(self) -> str:
        return self.reason


class KnownClasses:
    """Found once, from annotations; names both ways."""

    def __init__(self, annotations: Iterable[object]) -> None:
        self._roots: dict[type, None] = dict.fromkeys(_STANDARD)
        seen: set[int] = set()
        for annotation in annotations:
            self._add(annotation, seen)
        self._names: dict[type, str] = {}
        self._found: dict[str, type] = {}

    def name_of(self, kind: type) -> str:
        """What an object's class is stored as. Raises Unstorable if it could not be found again."""
        name = self._names.get(kind)
        if name is None:
            name = self._names[kind] = self._checked(kind)
        return name

    def refused(self) -> str | None:
        """Why a class that an annotation names cannot be stored; None if all can."""
        return next((reason for kind in self._roots if (reason := _why_not_plain(kind))), None)

    def find(self, name: str) -> type:
        """The class of that name. Raises ValueError if there is none, or no longer."""
        kind = self._found.get(name)
        if kind is None:
            kind = self._found[name] = self._find(name)
        return kind

    def _find(self, name: str) -> type:
        module, _, qualified = name.partition(":")
        all_known = list(self._all())
        for kind in all_known:
            if (kind.__module__, kind.__qualname__) == (module, qualified):
                return kind
        # Where one member runs the module as a program, or a class has moved, the name alone decides.
        named = [kind for kind in all_known if kind.__qualname__ == qualified]
        if len(named) == 1:
            return named[0]
        if not named and self._is_ours(module) and module not in sys.modules:
            import_module(module)  # a subclass which nothing has loaded yet in this process
            return self._find(name)
        raise ValueError(f"there is no class {name} any more that the annotations of this machine reach")

    def _checked(self, kind: type) -> str:
        name = f"{kind.__module__}:{kind.__qualname__}"
        if not any(kind is root or issubclass(kind, root) for root in self._roots):
            raise Unstorable(f"{kind.__qualname__} is not plain data, nor a class that an annotation names")
        if reason := _why_not_plain(kind):
            raise Unstorable(reason)
        try:
            found: type | None = self.find(name)
        except ValueError:
            found = None
        if found is not kind:
            raise Unstorable(f"there are several classes {name}; it could not be found again")
        return name

    def _is_ours(self, module: str) -> bool:
        """Whether a module belongs to a package of a class that is known: no other is ever loaded."""
        package = module.partition(".")[0]
        ours = {root.__module__.partition(".")[0] for root in self._roots}
        return package in ours and package not in sys.stdlib_module_names

    def _all(self) -> Iterator[type]:
        found: dict[type, None] = {}
        waiting = list(self._roots)
        while waiting:
            kind = waiting.pop()
            if kind not in found:
                found[kind] = None
                waiting += type.__subclasses__(kind)
        return iter(found)

    def _add(self, annotation: Any, seen: set[int]) -> None:
        if id(annotation) in seen:
            return
        seen.add(id(annotation))
        for inner in typing.get_args(annotation):
            self._add(inner, seen)
        if supertype := getattr(annotation, "__supertype__", None):
            self._add(supertype, seen)
        kind = typing.get_origin(annotation) or annotation
        if not isinstance(kind, type) or kind in _STANDARD_VALUES or kind.__module__ in ("typing", "types"):
            return
        if not typing.is_typeddict(kind):
            self._roots.setdefault(kind)
        for inner in _hints(kind):
            self._add(inner, seen)


def _hints(kind: type) -> Iterable[object]:
    if not (dataclasses.is_dataclass(kind) or getattr(kind, "__annotations__", None)):
        return ()
    try:
        return typing.get_type_hints(kind).values()
    except (NameError, TypeError, AttributeError):
        return ()


def _why_not_plain(kind: type) -> str | None:
    """Why an object of it is more than its attributes and the value of a built-in type; None if it is not."""
    if issubclass(kind, msgspec.Struct) and hasattr(kind, "__post_init__"):
        return f"{kind.__qualname__} is a Struct whose __post_init__ would run again: use a dataclass"
    if kind in _NEVER or issubclass(kind, BaseException | type):
        return f"{kind.__qualname__} is not plain data (use a dataclass, or built-in types)"
    if issubclass(kind, Enum | msgspec.Struct) or inspect.isabstract(kind):
        return None
    if kind in _STANDARD_VALUES:
        return None
    base: Any = next((one for one in _HOLDERS if issubclass(kind, one)), object)
    try:
        base.__new__(kind)
    except TypeError:
        return f"{kind.__qualname__} is not plain data (use a dataclass, or built-in types)"
    return None
