"""Keys and values of any bytes, and ids, as words of a command."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import click

from connect_kv.cli.settings import Settings

F = TypeVar("F", bound=Callable[..., object])


class HexId(click.ParamType[int]):
    """An id in hexadecimal, as it is printed."""

    name = "ID"

    def __init__(self, of: str) -> None:
        """`of`: what it is the id of, as messages say it."""
        self._of = of

    def convert(self, value: object, parameter: click.Parameter | None, context: click.Context | None) -> int:
        """Raises a usage error that says what was expected."""
        if isinstance(value, int):
            return value
        try:
            return int(str(value), 16)
        except ValueError:
            self.fail(f"{value!r}: expected a {self._of} id in hexadecimal", parameter, context)


def _hex(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.ensure_object(Settings).hex = value


def hex_option(function: F) -> F:
    """``--hex``, for commands that take or print keys and values."""
    return click.option(
        "--hex",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_hex,
        help="Keys and values are given, and printed, as hexadecimal digits.",
    )(function)


def data(settings: Settings, word: str) -> bytes:
    """A key or value as it was given: any bytes, or with ``--hex`` those that the digits stand for.

    Raises a usage error for what is not hexadecimal.
    """
    if not settings.hex:
        return os.fsencode(word)  # what was no text in the arguments becomes again what it was
    try:
        return bytes.fromhex(word)
    except ValueError:
        raise click.UsageError(f"{word!r}: expected an even number of hexadecimal digits") from None
