"""Where a password comes from: a file, the environment, a terminal; a command line only when told so."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from connect_kv.errors import ConfigError

STANDARD_INPUT = "-"


def password_of(user: str, *, file: str, file_option: str, variable: str, again: bool = False) -> str:
    """The password of `user`. From `file` if there is one, else the environment's `variable`, else a person.

    `again`: a person types it twice. Raises ConfigError where there is nobody to ask, and for a file that
    cannot be read.
    """
    if file:
        return _read(file)
    if variable in os.environ:
        return os.environ[variable]
    if not sys.stdin.isatty():
        raise ConfigError(
            f"no password for user {user!r}: give {file_option} FILE ('-': standard input), set {variable}, "
            "or call it from a terminal"
        )
    found: str = click.prompt(
        f"Password of {user}",
        hide_input=True,
        confirmation_prompt=again,
        default="",
        show_default=False,
        err=True,
    )
    return found


def _read(file: str) -> str:
    """The one line of a password file, without its end."""
    try:
        text = sys.stdin.read() if file == STANDARD_INPUT else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is no text"
        raise ConfigError(f"password file {file}: cannot be read: {reason}") from None
    line = text.removesuffix("\n").removesuffix("\r")
    if "\n" in line:
        raise ConfigError(f"password file {file}: expected one line")
    return line
