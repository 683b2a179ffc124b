"""Keys and values of any bytes, as words of a command."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import click

from connect_kv.cli.settings import Settings

F = TypeVar("F", bound=Callable[..., object])


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
