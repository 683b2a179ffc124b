"""Arguments from the seed, by their annotations: small values, so that calls often meet."""

from __future__ import annotations

import dataclasses
import random
import types
import typing
from enum import Enum
from typing import Any

import msgspec

from connect_kv.errors import ConfigError
from connect_kv.framework.methods import Method


def made_up(owner: type, method: Method, rng: random.Random) -> dict[str, Any]:
    """Arguments for a method. Raises ConfigError for types it knows nothing of."""
    function = getattr(owner, method.name)
    hints, where = typing.get_type_hints(function), f"{owner.__name__}.{method.name}"
    return {
        parameter.name: _value(hints[parameter.name], rng, f"{where}: {parameter.name}")
        for parameter in method.parameters
        if parameter.required or rng.random() < 0.7
    }


def _value(kind: Any, rng: random.Random, where: str) -> Any:
    if kind is bool:
        return rng.random() < 0.5
    if kind is int:
        return rng.randint(0, 5)
    if kind is float:
        return rng.choice((0.0, 0.5, 1.0, 2.5))
    if kind is str:
        return rng.choice(("a", "b", "c"))
    if kind is bytes:
        return rng.choice((b"a", b"b", b""))
    if kind is None or kind is types.NoneType:
        return None
    if isinstance(kind, type) and issubclass(kind, Enum):
        return rng.choice(list(kind))
    if typing.get_origin(kind) is None:
        return _whole(kind, rng, where)
    return _generic(kind, rng, where)


def _generic(kind: Any, rng: random.Random, where: str) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return rng.choice(inner)
    if origin in (typing.Union, types.UnionType):
        return _value(rng.choice(inner), rng, where)
    if origin is tuple and inner[-1] is not Ellipsis:
        return tuple(_value(one, rng, where) for one in inner)
    if origin in (list, tuple, set, frozenset):
        items = [_value(inner[0], rng, where) for _ in range(rng.randrange(3))]
        # The order of a set is that of hashes, which are others in the next process.
        return items if origin in (list, tuple) else sorted(items, key=repr)
    if origin is dict:
        return {_value(inner[0], rng, where): _value(inner[1], rng, where) for _ in range(rng.randrange(3))}
    raise _unknown(kind, where)


def _whole(kind: Any, rng: random.Random, where: str) -> Any:
    """An object with fields: a dataclass or a msgspec.Struct."""
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind) if field.init]
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        names = [field.name for field in msgspec.structs.fields(kind)]
    else:
        raise _unknown(kind, where)
    hints = typing.get_type_hints(kind)
    make: Any = kind
    return make(**{name: _value(hints[name], rng, f"{where}.{name}") for name in names})


def _unknown(kind: Any, where: str) -> ConfigError:
    return ConfigError(
        f"{where}: no values of {kind} can be made up; "
        "the fixture check_determinism takes arguments of your own"
    )
