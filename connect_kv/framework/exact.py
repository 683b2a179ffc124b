"""Values exactly as they are: types, sharing, and everything msgpack by an annotation would lose.

A value becomes a tree of msgpack in which every array says by its first item what it is. An object that
is met again is a reference to the first meeting, so that two names of one list are that afterwards too.
Of classes only names are stored, and only those of classes that the annotations reach, and of their
subclasses: reading makes no others, and calls no `__init__` or `__post_init__`. Never pickle.
"""

from __future__ import annotations

import datetime as dt
import decimal
import fractions
import inspect
import ipaddress
import uuid
import zoneinfo
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum, Flag, IntEnum
from functools import lru_cache
from typing import Any

import msgspec

from connect_kv.framework.known import KnownClasses, Unstorable

_PLAIN = frozenset((type(None), bool, float, bytes, int, str))
"""Types that msgpack holds as they are, integers and texts within bounds."""
_SMALL = _PLAIN - {int, str}
"""Types that msgpack holds as they are, whatever the value."""
_BITS_64 = range(-(1 << 63), 1 << 64)


class Tag(IntEnum):
    """What an array of the tree is. The numbers are on disks: they never change."""

    REFERENCE = 0
    LIST = 1
    DICT = 2
    SET = 3
    FROZENSET = 4
    TUPLE = 5
    BYTEARRAY = 6
    BIG = 7
    """An integer beyond 64 bits, in hexadecimal."""
    SURROGATES = 8
    """Text that is no UTF-8."""
    OBJECT = 9
    ENUM = 10
    BUILT_ON = 11
    """An object of a subclass of a built-in type: its class, the plain value, its attributes."""
    STRUCT = 12
    DEQUE = 13
    ORDERED = 14
    DEFAULT = 15
    ATOM = 16
    """A value of the standard library: the name of its class, what it is made of."""
    CLASS = 17


def _zone(zone: zoneinfo.ZoneInfo) -> tuple[str]:
    if zone.key is None:
        raise Unstorable("a time zone that was read from a file has no name to find it by")
    return (zone.key,)


def _moment(value: dt.datetime | dt.time) -> tuple[object, ...]:
    time = (value.hour, value.minute, value.second, value.microsecond, value.tzinfo, value.fold)
    return (value.year, value.month, value.day, *time) if isinstance(value, dt.datetime) else time


def _text(value: object) -> tuple[str]:
    return (str(value),)


_ATOMS: dict[type, Callable[[Any], Iterable[object]]] = {
    dt.datetime: _moment,
    dt.time: _moment,
    dt.date: lambda value: (value.year, value.month, value.day),
    dt.timedelta: lambda value: (value.days, value.seconds, value.microseconds),
    dt.timezone: lambda value: value.__getinitargs__(),
    zoneinfo.ZoneInfo: _zone,
    decimal.Decimal: _text,
    uuid.UUID: _text,
    fractions.Fraction: lambda value: (value.numerator, value.denominator),
    complex: lambda value: (value.real, value.imag),
    range: lambda value: (value.start, value.stop, value.step),
    ipaddress.IPv4Address: _text,
    ipaddress.IPv6Address: _text,
    ipaddress.IPv4Network: _text,
    ipaddress.IPv6Network: _text,
}
"""Values of the standard library, and what their class makes them of."""

_ATOM_CLASSES: dict[str, Callable[..., Any]] = {
    kind.__name__: kind for kind in _ATOMS if kind not in (dt.datetime, dt.time)
} | {
    "datetime": lambda *made_of: dt.datetime(*made_of[:8], fold=made_of[8]),
    "time": lambda *made_of: dt.time(*made_of[:5], fold=made_of[5]),
}
_TAGS = {tag.value: tag for tag in Tag}
_BASES: tuple[type, ...] = (
    dict, list, set, frozenset, tuple, str, bytes, bytearray, float, int,
)  # fmt: skip
_CONTAINERS: tuple[type, ...] = (deque, OrderedDict, defaultdict, list, dict, set, bytearray)
_MUTABLE = (*_CONTAINERS, msgspec.Struct, object)
_FACTORIES: dict[str, type] = {
    kind.__name__: kind for kind in (int, float, str, bytes, bool, list, dict, set, tuple, deque)
}


def encode(value: object, known: KnownClasses, *, canonical: bool = False) -> bytes:
    """`value` as bytes. Raises Unstorable with the path to what cannot be stored.

    With `canonical`, equal values have equal bytes in every process: sets are in the order of their bytes.
    """
    return Writer(known, canonical=canonical).encode(value)


def decode(stored: bytes | memoryview, known: KnownClasses) -> Any:
    """The value again. Raises ValueError naming what does not fit today's classes."""
    try:
        tree = msgspec.msgpack.decode(stored)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not a stored value: {error}") from None
    return _Reader(known).read(tree)


class Writer:
    """Builds the tree of one value."""

    def __init__(self, known: KnownClasses, *, canonical: bool = False) -> None:
        self.numbers: dict[int, int] = {}
        """By `id`: the objects met so far that can be shared, numbered as they are met."""
        self._known = known
        self._canonical = canonical
        self._as_they_are = _PLAIN

    def encode(self, value: object) -> bytes:
        """Raises Unstorable."""
        try:
            try:
                return msgspec.msgpack.encode(self.write(value))
            except (OverflowError, UnicodeEncodeError):
                # Some integer has more than 64 bits, or some text is no UTF-8: look at each.
                self._as_they_are = _SMALL
                self.numbers.clear()
                return msgspec.msgpack.encode(self.write(value))
        except RecursionError:
            raise Unstorable("it is nested too deep") from None

    def write(self, value: Any) -> object:
        """The tree. Raises Unstorable."""
        kind = type(value)
        if kind in self._as_they_are:
            return value
        if kind is int:
            return value if value in _BITS_64 else [Tag.BIG, hex(value)]
        if kind is str:
            return _written_text(value)
        if kind is tuple:
            return [Tag.TUPLE, self._items(value)]
        if kind is frozenset:
            return [Tag.FROZENSET, self._members(value)]
        if kind in _ATOMS:
            return [Tag.ATOM, kind.__name__, self._items(_ATOMS[kind](value))]
        number = self.numbers.get(id(value))
        if number is not None:
            return [Tag.REFERENCE, number]
        if kind in _CONTAINERS:
            self._meet(value)
            return self._container(value, kind)
        base = _base_of(kind)  # type: ignore[arg-type]  # a class can be hashed; mypy doubts it
        if base is type:
            raise Unstorable(f"the class {value.__qualname__} itself is not data")
        name = self._known.name_of(kind)
        if base is Enum:
            flags = self.write(value.value) if isinstance(value, Flag) else None
            return [Tag.ENUM, name, None if isinstance(value, Flag) else value.name, flags]
        if base in _MUTABLE:
            self._meet(value)
        if base is object:
            return [Tag.OBJECT, name, self._attributes(_attributes_of(value))]
        if base is msgspec.Struct:
            held = {field: getattr(value, field) for field in value.__struct_fields__}
            return [Tag.STRUCT, name, self._attributes(held)]
        if base in _CONTAINERS and base not in _BASES:
            raise Unstorable(
                f"{kind.__qualname__} is a subclass of {base.__name__}, which has ways of its own"
            )
        written = self._container(value, base) if base in _MUTABLE else self.write(base(value))
        return [Tag.BUILT_ON, name, written, self._attributes(_attributes_of(value))]

    def _container(self, value: Any, kind: type) -> object:
        if kind is list:
            return [Tag.LIST, self._items(list.__iter__(value))]
        if kind is dict:
            return [Tag.DICT, self._pairs(dict.items(value))]
        if kind is set:
            return [Tag.SET, self._members(value)]
        if kind is bytearray:
            return [Tag.BYTEARRAY, bytes(value)]
        if kind is deque:
            return [Tag.DEQUE, value.maxlen, self._items(value)]
        if kind is OrderedDict:
            return [Tag.ORDERED, self._pairs(value.items())]
        factory = value.default_factory
        if factory is None:
            return [Tag.DEFAULT, None, self._pairs(value.items())]
        if isinstance(factory, type) and _FACTORIES.get(factory.__name__) is factory:
            return [Tag.DEFAULT, factory.__name__, self._pairs(value.items())]
        if isinstance(factory, type):
            return [Tag.DEFAULT, [Tag.CLASS, self._known.name_of(factory)], self._pairs(value.items())]
        raise Unstorable(
            f"the default of this defaultdict is made by {factory!r}, which has no name to store"
        )

    def _meet(self, value: object) -> None:
        self.numbers[id(value)] = len(self.numbers)

    def _items(self, values: Iterable[object]) -> list[object]:
        written: list[object] = []
        write, append, as_they_are = self.write, written.append, self._as_they_are
        try:
            for value in values:
                append(value if type(value) in as_they_are else write(value))
        except Unstorable as error:
            raise error.within(f"[{len(written)}]") from None
        return written

    def _members(self, values: Iterable[object]) -> list[object]:
        if self._canonical:
            values = sorted(values, key=lambda one: encode(one, self._known, canonical=True))
        try:
            return [self.write(value) for value in values]
        except Unstorable as error:
            raise error.within("{}") from None

    def _pairs(self, pairs: Iterable[tuple[object, object]]) -> list[object]:
        written: list[object] = []
        key: object = None
        write, append, as_they_are = self.write, written.append, self._as_they_are
        try:
            for key, value in pairs:
                append(key if type(key) in as_they_are else write(key))
                append(value if type(value) in as_they_are else write(value))
        except Unstorable as error:
            raise error.within(f"[{_short(key)}]") from None
        return written

    def _attributes(self, held: dict[str, object]) -> dict[str, object]:
        written: dict[str, object] = {}
        name = ""
        write, as_they_are = self.write, self._as_they_are
        try:
            for name, value in held.items():
                written[name] = value if type(value) in as_they_are else write(value)
        except Unstorable as error:
            raise error.within(f".{name}") from None
        return written


class _Reader:
    """Makes the value of a tree again."""

    def __init__(self, known: KnownClasses) -> None:
        self._known = known
        self._met: list[object] = []

    def read(self, tree: Any) -> Any:
        if type(tree) is not list:
            return tree
        try:
            tag = _TAGS[tree[0]]
        except (IndexError, KeyError, TypeError):
            raise ValueError(f"a stored value of a kind {tree[:1]} that this version does not know") from None
        return self._read(tag, tree)

    def _read(self, tag: Tag, tree: list[Any]) -> Any:
        match tag:
            case Tag.REFERENCE:
                return self._met[tree[1]]
            case Tag.TUPLE:
                return tuple(self._items(tree[1]))
            case Tag.FROZENSET:
                return frozenset(self._items(tree[1]))
            case Tag.BIG:
                return int(tree[1], 16)
            case Tag.SURROGATES:
                return tree[1].decode("utf-8", "surrogatepass")
            case Tag.ATOM:
                return self._atom(tree[1], self._items(tree[2]))
            case Tag.ENUM:
                return self._enum(tree)
            case Tag.OBJECT:
                return self._object(self._known.find(tree[1]), tree[2])
            case Tag.STRUCT:
                return self._struct(self._known.find(tree[1]), tree[2])
            case Tag.BUILT_ON:
                return self._built_on(self._known.find(tree[1]), tree[2], tree[3])
            case Tag.CLASS:
                return self._known.find(tree[1])
            case _:
                return self._container(tag, tree)

    def _container(self, tag: Tag, tree: list[Any]) -> Any:
        made: Any
        match tag:
            case Tag.LIST:
                self._met.append(made := [])
                made.extend(self._items(tree[1]))
            case Tag.DICT:
                self._met.append(made := {})
                made.update(self._pairs(tree[1]))
            case Tag.SET:
                self._met.append(made := set())
                made.update(self._items(tree[1]))
            case Tag.BYTEARRAY:
                self._met.append(made := bytearray(tree[1]))
            case Tag.DEQUE:
                self._met.append(made := deque(maxlen=tree[1]))
                made.extend(self._items(tree[2]))
            case Tag.ORDERED:
                self._met.append(made := OrderedDict())
                made.update(self._pairs(tree[1]))
            case _:
                factory = tree[1] if tree[1] is None else (_FACTORIES.get(tree[1]) if isinstance(tree[1], str)
                                                           else self.read(tree[1]))  # fmt: skip
                self._met.append(made := defaultdict(factory))
                made.update(self._pairs(tree[2]))
        return made

    def _items(self, trees: Iterable[Any]) -> Iterator[Any]:
        return map(self.read, trees)

    def _pairs(self, trees: list[Any]) -> Iterator[tuple[Any, Any]]:
        return ((self.read(trees[at]), self.read(trees[at + 1])) for at in range(0, len(trees), 2))

    def _atom(self, name: str, made_of: Iterable[Any]) -> Any:
        if name not in _ATOM_CLASSES:
            raise ValueError(f"a stored value of {name}, which this version does not know")
        return _ATOM_CLASSES[name](*made_of)

    def _enum(self, tree: list[Any]) -> Any:
        kind: Any = self._known.find(tree[1])
        try:
            return kind(self.read(tree[3])) if tree[2] is None else kind[tree[2]]
        except (KeyError, ValueError):
            raise ValueError(f"{kind.__qualname__} has no member {tree[2] or tree[3]!r} any more") from None

    def _object(self, kind: type, attributes: dict[str, Any]) -> Any:
        made: Any = object.__new__(kind)
        self._met.append(made)
        self._set(made, kind, attributes)
        return made

    def _struct(self, kind: Any, attributes: dict[str, Any]) -> Any:
        made = kind(
            **dict.fromkeys(kind.__struct_fields__)
        )  # it may contain itself: its fields are set after it
        self._met.append(made)
        held = {name: self.read(tree) for name, tree in attributes.items()}
        for field in msgspec.structs.fields(kind):
            if field.name in held:
                value = held[field.name]
            elif field.default is not msgspec.NODEFAULT:
                value = field.default
            elif field.default_factory is not msgspec.NODEFAULT:
                value = field.default_factory()
            else:
                raise ValueError(
                    f"{kind.__qualname__}.{field.name} is not in what was stored, and has no default"
                )
            msgspec.structs.force_setattr(made, field.name, value)
        return made

    def _built_on(self, kind: Any, tree: Any, attributes: dict[str, Any]) -> Any:
        made: Any
        base: Any = next(one for one in _BASES if issubclass(kind, one))
        if base not in (dict, list, set, bytearray):
            made = base.__new__(kind, self.read(tree))
        else:
            self._met.append(made := base.__new__(kind))
            if base is dict:
                dict.update(made, self._pairs(tree[1]))
            elif base is set:
                set.update(made, self._items(tree[1]))
            elif base is list:
                list.extend(made, self._items(tree[1]))
            else:
                bytearray.extend(made, tree[1])
        self._set(made, kind, attributes)
        return made

    def _set(self, made: object, kind: type, attributes: dict[str, Any]) -> None:
        for name, tree in attributes.items():
            try:
                object.__setattr__(made, name, self.read(tree))
            except AttributeError:
                raise ValueError(f"{kind.__qualname__} has no attribute {name!r} any more") from None
        for field in fields(kind) if is_dataclass(kind) else ():
            if field.name in attributes:
                continue
            if field.default is not MISSING:
                object.__setattr__(made, field.name, field.default)
            elif field.default_factory is not MISSING:
                object.__setattr__(made, field.name, field.default_factory())


def _attributes_of(value: object) -> dict[str, object]:
    """Those of `__dict__` and of `__slots__`."""
    held = dict(getattr(value, "__dict__", ()))
    for name in _slots_of(type(value)):  # type: ignore[arg-type]  # as above
        if hasattr(value, name):
            held[name] = getattr(value, name)
    held.pop("__orig_class__", None)  # what `Box[int]()` leaves there for type checkers at run time
    return held


@lru_cache(maxsize=1024)
def _base_of(kind: type) -> type:
    """What an object is besides its attributes: the type whose value it has, or `object`."""
    bases = (type, Enum, msgspec.Struct, *_CONTAINERS, *_BASES)
    return next((one for one in bases if issubclass(kind, one)), object)


@lru_cache(maxsize=1024)
def _slots_of(kind: type) -> tuple[str, ...]:
    return tuple(
        name
        for one in kind.__mro__
        for name, member in vars(one).items()
        if inspect.ismemberdescriptor(member)
    )


def _written_text(value: str) -> object:
    try:
        value.isascii() or value.encode()
    except UnicodeEncodeError:
        return [Tag.SURROGATES, value.encode("utf-8", "surrogatepass")]
    return value


def _short(key: object) -> str:
    text = repr(key)
    return text if len(text) <= 40 else f"{text[:37]}..."
