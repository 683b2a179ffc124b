"""Arguments from the seed, by their annotations: small values, so that calls often meet."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import random
import types
import typing
import uuid
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec

from connect_kv.errors import ConfigError
from connect_kv.framework.examples import given_examples
from connect_kv.framework.methods import Method

_START = dt.datetime(2026, 1, 31, 23, 30, tzinfo=dt.UTC)
_CHOICES: dict[Any, tuple[Any, ...]] = {
    bool: (False, True),
    int: (0, 1, 2, 3, 4, 5),
    float: (0.0, 0.5, 1.0, 2.5),
    str: ("a", "b", "c"),
    bytes: (b"a", b"b", b""),
    bytearray: (bytearray(b"a"), bytearray()),
    None: (None,),
    types.NoneType: (None,),
    Any: (0, "a", None, [1, "b"], {"a": 1}),
    object: (0, "a", None),
    Decimal: (Decimal("0"), Decimal("1.10"), Decimal("-2.5")),
    dt.timedelta: (dt.timedelta(0), dt.timedelta(minutes=90), dt.timedelta(days=-1)),
    dt.time: (dt.time(0), dt.time(12, 30), dt.time(23, 59, 59)),
    uuid.UUID: tuple(uuid.UUID(int=number) for number in (1, 2, 3)),
    dt.date: tuple((_START + dt.timedelta(days=days)).date() for days in range(3)),
    dt.datetime: tuple(_START + dt.timedelta(hours=hours) for hours in range(3)),
}
"""What values of these types are made up; few, so that calls often meet."""
_OF_ANYTHING: dict[Any, Any] = {
    list: list[int],
    tuple: tuple[int, ...],
    set: set[int],
    frozenset: frozenset[int],
    dict: dict[str, int],
}
_SEQUENCES = (list, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_SETS = (set, frozenset, collections.abc.Set, collections.abc.MutableSet)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


def random_arguments(owner: type, method: Method, rng: random.Random) -> dict[str, Any]:
    """Arguments for a method: its examples, or made up. Raises ConfigError for types it knows nothing of."""
    function = getattr(owner, method.name)
    whole, some = given_examples(function, rng)
    if whole is not None:
        return whole
    hints, where = typing.get_type_hints(function), f"{owner.__name__}.{method.name}"
    return some | {
        parameter.name: _value(hints[parameter.name], rng, f"{where}: {parameter.name}")
        for parameter in method.parameters
        if parameter.name not in some and (parameter.required or rng.random() < 0.7)
    }


def _value(kind: Any, rng: random.Random, where: str) -> Any:
    choices = _CHOICES.get(kind) if isinstance(kind, collections.abc.Hashable) else None
    if choices is not None:
        return rng.choice(choices)
    if supertype := getattr(kind, "__supertype__", None):
        return _value(supertype, rng, where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return rng.choice(list(kind))
    if typing.get_origin(kind) is None:
        return _whole(kind, rng, where)
    return _generic(kind, rng, where)


def _generic(kind: Any, rng: random.Random, where: str) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return rng.choice(inner)
    if origin in (typing.Annotated, typing.Required, typing.NotRequired):
        return _value(inner[0], rng, where)
    if origin in (typing.Union, types.UnionType):
        return _value(rng.choice(inner), rng, where)
    if origin is tuple and inner[-1] is not Ellipsis:
        return tuple(_value(one, rng, where) for one in inner)
    if origin in (tuple, *_SEQUENCES):
        return [_value(inner[0], rng, where) for _ in range(rng.randrange(3))]
    if origin in _SETS:
        # The order of a set is that of hashes, which are others in the next process.
        return sorted((_value(inner[0], rng, where) for _ in range(rng.randrange(3))), key=repr)
    if origin in _MAPPINGS:
        return {_value(inner[0], rng, where): _value(inner[1], rng, where) for _ in range(rng.randrange(3))}
    raise _unknown(kind, where)


def _whole(kind: Any, rng: random.Random, where: str) -> Any:
    """An object with fields: a dataclass, a msgspec.Struct, a NamedTuple or a TypedDict."""
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind) if field.init]
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        names = [field.name for field in msgspec.structs.fields(kind)]
    elif isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        names = list(kind._fields)
    elif typing.is_typeddict(kind):
        names = [
            name for name in kind.__annotations__ if name in kind.__required_keys__ or rng.random() < 0.5
        ]
    elif kind in _OF_ANYTHING:
        return _generic(_OF_ANYTHING[kind], rng, where)
    else:
        raise _unknown(kind, where)
    hints = typing.get_type_hints(kind)
    make: Any = kind
    return make(**{name: _value(hints[name], rng, f"{where}.{name}") for name in names})


def _unknown(kind: Any, where: str) -> ConfigError:
    return ConfigError(
        f"{where}: no values of {kind} can be made up; say some with @examples "
        "(the fixture check_determinism takes arguments of your own, too)"
    )
