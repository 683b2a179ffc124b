"""The text form of a transaction: conditions, a blank line, what to do then, a blank line, what else.

version("lock") = "0"

put lock mine

get lock
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar, cast

from connect_kv import errors
from connect_kv.client import txn
from connect_kv.client.messages import Compare, RequestOp

T = TypeVar("T")

_CONDITION = re.compile(
    r"""^(?P<what>\w+) \s* \( \s* (?P<key>"(?:[^"\\]|\\.)*" | '[^']*' | [^\s()]+) \s* \) \s*
        (?P<operator>!=|=|<|>) \s* (?P<value>.+)$""",
    re.VERBOSE,
)

_WORD = re.compile(r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|\\.|[^\s'"\\])+""")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')

_NUMBERS: Mapping[str, Callable[[bytes, txn.Operator, int], Compare]] = {
    "version": txn.version,
    "ver": txn.version,
    "create": txn.create_revision,
    "c": txn.create_revision,
    "mod": txn.mod_revision,
    "m": txn.mod_revision,
}


_PIECE = re.compile(
    r"""\\(?: x[0-9a-fA-F]{2} | [0-7]{3} | u[0-9a-fA-F]{4} | U[0-9a-fA-F]{8} | [abfnrtv\\"'] ) | [^\\]+""",
    re.VERBOSE,
)
_QUOTABLE = re.compile(rf"(?:{_PIECE.pattern})*", re.VERBOSE)
_SHORT = dict(zip("abfnrtv\\\"'", "\a\b\f\n\r\t\v\\\"'", strict=True))


def parse(lines: Iterable[str], hex: bool = False) -> tuple[list[Compare], list[RequestOp], list[RequestOp]]:
    """The three parts. Raises ConfigError naming the line that is wrong and what was expected.

    With `hex`, keys and values are hexadecimal digits. Bytes that are no text: as `os.fsdecode` gives them.
    """
    parts: list[list[tuple[int, str]]] = [[], [], []]
    part = 0
    for number, line in enumerate(lines, 1):
        if line.strip():
            parts[part].append((number, line.strip()))
        elif part < 2:
            part += 1
    compare = [_located(number, condition, line, hex) for number, line in parts[0]]
    success = [_located(number, operation, line, hex) for number, line in parts[1]]
    failure = [_located(number, operation, line, hex) for number, line in parts[2]]
    return compare, success, failure


def condition(line: str, hex: bool = False) -> Compare:
    """One condition, such as ``mod("key") > "5"``. Raises ValueError."""
    found = _CONDITION.match(line)
    if found is None:
        raise ValueError('expected a condition such as version("key") = "0"')
    what, key, value = found["what"].lower(), _bytes(found["key"], hex), found["value"]
    operator = cast(txn.Operator, found["operator"])  # the pattern admits only these
    if what in ("value", "val"):
        return txn.value(key, operator, _bytes(value, hex))
    if what == "lease":
        return txn.lease(key, operator, _number(_word(value), 16))
    if what not in _NUMBERS:
        raise ValueError(f"{what!r}: expected value, version, create, mod or lease")
    return _NUMBERS[what](key, operator, _number(_word(value), 10))


def operation(line: str, hex: bool = False) -> RequestOp:
    """One operation: ``put KEY VALUE``, ``get KEY [--prefix]``, ``del KEY [--prefix]``. Raises ValueError."""
    shlex.split(line)  # raises for a quote that is not closed
    verb, *given = _WORD.findall(line)
    options = [_word(word) for word in given if word.startswith("--")]
    words = [_bytes(word, hex) for word in given if not word.startswith("--")]
    match _word(verb), words, options:
        case "put", [key, value], []:
            return txn.put(key, value)
        case "put", [key, value], [lease] if lease.startswith("--lease="):
            return txn.put(key, value, lease=_number(lease.removeprefix("--lease="), 16))
        case "get", [key], ([] | ["--prefix"]):
            return txn.get(key, prefix=bool(options))
        case "get", [key, end], []:
            return txn.get(key, range_end=end)
        case "del", [key], ([] | ["--prefix"]):
            return txn.delete(key, prefix=bool(options))
        case "del", [key, end], []:
            return txn.delete(key, range_end=end)
    raise ValueError("expected put KEY VALUE [--lease=ID], get KEY [END|--prefix] or del KEY [END|--prefix]")


def _located(number: int, read: Callable[[str, bool], T], line: str, hex: bool) -> T:
    try:
        return read(line, hex)
    except ValueError as error:
        shown = line.encode(errors="backslashreplace").decode()
        raise errors.ConfigError(f"line {number}: {shown}: {error}") from None


def _bytes(text: str, hex: bool) -> bytes:
    """A key or value: one word as in a shell, or in double quotes with escapes, as for etcdctl."""
    if hex:
        return bytes.fromhex(_word(text))
    if not _QUOTED.fullmatch(text):
        return os.fsencode(_word(text))
    inner = text[1:-1]
    if not _QUOTABLE.fullmatch(inner):
        raise ValueError(f"{text}: an escape that is not known")
    return b"".join(map(_piece, _PIECE.findall(inner)))


def _piece(piece: str) -> bytes:
    r"""What an escape, or text without one, stands for: ``\xff`` is a byte, ``\u00ff`` a letter."""
    if not piece.startswith("\\"):
        return os.fsencode(piece)
    match piece[1]:
        case "x":
            return bytes.fromhex(piece[2:])
        case "u" | "U":
            return chr(int(piece[2:], 16)).encode()
        case digit if digit.isdecimal():
            return bytes([int(piece[1:], 8)])
        case letter:
            return _SHORT[letter].encode()


def _word(text: str) -> str:
    """The one word of a text, without quotes around it. Raises ValueError."""
    words = shlex.split(text)
    if len(words) != 1:
        raise ValueError(f"{text!r}: expected one word, or quotes around it")
    return words[0]


def _number(text: str, base: int) -> int:
    try:
        return int(text, base)
    except ValueError:
        raise ValueError(f"{text!r}: expected a number") from None
