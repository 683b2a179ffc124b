"""The heads of answers: statuses, the date, and how they are written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from email.utils import formatdate
from functools import cache
from http import HTTPStatus

Fields = Sequence[tuple[str, str]]

TEXT = ("Content-Type", "text/plain; charset=utf-8")
JSON = ("Content-Type", "application/json")
NO_SNIFFING = ("X-Content-Type-Options", "nosniff")

_REASONS = {status.value: status.phrase for status in HTTPStatus} | {499: "Client Closed Request"}


class DateLine:
    """The Date of answers, made once a second."""

    __slots__ = ("_line", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._line = b""

    def line(self) -> bytes:
        """The whole line."""
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._line = f"Date: {formatdate(now, usegmt=True)}\r\n".encode()
        return self._line


@cache
def _beginning(status: int, minor: int) -> bytes:
    return f"HTTP/1.{minor} {status} {_REASONS.get(status, 'Unknown')}\r\n".encode()


@cache
def _encoded(fields: tuple[tuple[str, str], ...]) -> bytes:
    return written(fields)


def written(fields: Fields) -> bytes:
    """Header fields as lines; what would end a line early becomes a blank."""
    lines = (f"{name}: {_one_line(value)}\r\n" for name, value in fields)
    return "".join(lines).encode("latin-1", "replace")


def _one_line(value: str) -> str:
    return value if value.isprintable() else "".join(one if one.isprintable() else " " for one in value)


def head(status: int, fields: bytes, minor: int, date: bytes, ending: bytes) -> bytes:
    """All up to the blank line. `ending`: fields about the body and the connection."""
    return b"".join((_beginning(status, minor), fields, date, ending, b"\r\n"))


def constant(*fields: tuple[str, str]) -> bytes:
    """Lines of fields that do not change from answer to answer, made once."""
    return _encoded(fields)
