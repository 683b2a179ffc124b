"""Exceptions that a method declares: as data in the log, and as themselves again for who called it."""

from __future__ import annotations

import typing

import msgspec

from connect_kv.errors import CommandFailed
from connect_kv.framework import data
from connect_kv.framework.methods import Method


def type_of_error(error: BaseException | type[BaseException]) -> str:
    """The name of its class; with its module, unless Python itself has it."""
    kind = error if isinstance(error, type) else type(error)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def held(error: BaseException) -> bytes:
    """What an exception holds, its arguments and attributes; nothing if that is no plain data."""
    try:
        return data.encode([error.args, vars(error)])
    except Exception:
        return b""


def raised(failed: CommandFailed, method: Method) -> Exception | None:
    """The declared exception that a call raised; None if it was another one.

    It is made without a call of its class, from what it held. Attributes come back by the annotations of
    the class, where it has some.
    """
    kind = next((one for one in method.raises if type_of_error(one) == failed.type), None)
    if kind is None or not failed.details:
        return None
    try:
        args, attributes = msgspec.msgpack.decode(failed.details, type=tuple[list[object], dict[str, object]])
        hints = typing.get_type_hints(kind)
        error = kind.__new__(kind, *args)
        error.args = tuple(args)
        for name, value in attributes.items():
            wanted = typing.cast(type, hints[name]) if name in hints else object
            vars(error)[name] = msgspec.convert(value, wanted)
    except Exception:
        return None
    return error
