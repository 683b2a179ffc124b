"""The text form of a transaction: conditions, a blank line, what to do then, a blank line, what else.

version("lock") = "0"

put lock mine

get lock
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable, Iterable
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

_NUMBERS: dict[str, Callable[[str, txn.Operator, int], Compare]] = {
    "version": txn.version,
    "ver": txn.version,
    "create": txn.create_revision,
    "c": txn.create_revision,
    "mod": txn.mod_revision,
    "m": txn.mod_revision,
}


def parse(lines: Iterable[str]) -> tuple[list[Compare], list[RequestOp], list[RequestOp]]:
    """The three parts. Raises ConfigError naming the line that is wrong and what was expected."""
    parts: list[list[tuple[int, str]]] = [[], [], []]
    part = 0
    for number, line in enumerate(lines, 1):
        if line.strip():
            parts[part].append((number, line.strip()))
        elif part < 2:
            part += 1
    compare = [_located(number, condition, line) for number, line in parts[0]]
    success = [_located(number, operation, line) for number, line in parts[1]]
    failure = [_located(number, operation, line) for number, line in parts[2]]
    return compare, success, failure


def condition(line: str) -> Compare:
    """One condition, such as ``mod("key") > "5"``. Raises ValueError."""
    found = _CONDITION.match(line)
    if found is None:
        raise ValueError('expected a condition such as version("key") = "0"')
    what, key, value = found["what"].lower(), _unquote(found["key"]), _unquote(found["value"])
    operator = cast(txn.Operator, found["operator"])  # the pattern admits only these
    if what in ("value", "val"):
        return txn.value(key, operator, value)
    if what == "lease":
        return txn.lease(key, operator, _number(value, 16))
    if what not in _NUMBERS:
        raise ValueError(f"{what!r}: expected value, version, create, mod or lease")
    return _NUMBERS[what](key, operator, _number(value, 10))


def operation(line: str) -> RequestOp:
    """One operation: ``put KEY VALUE``, ``get KEY [--prefix]``, ``del KEY [--prefix]``. Raises ValueError."""
    shlex.split(line)  # raises for a quote that is not closed
    verb, *words = map(_unquote, _WORD.findall(line))
    prefix = "--prefix" in words
    words = [word for word in words if word != "--prefix"]
    match verb, words:
        case "put", [key, value] if not prefix:
            return txn.put(key, value)
        case "put", [key, value, lease] if lease.startswith("--lease=") and not prefix:
            return txn.put(key, value, lease=_number(lease.removeprefix("--lease="), 16))
        case "get", [key]:
            return txn.get(key, prefix=prefix)
        case "get", [key, end] if not prefix:
            return txn.get(key, range_end=end)
        case "del", [key]:
            return txn.delete(key, prefix=prefix)
        case "del", [key, end] if not prefix:
            return txn.delete(key, range_end=end)
    raise ValueError("expected put KEY VALUE [--lease=ID], get KEY [END|--prefix] or del KEY [END|--prefix]")


def _located(number: int, read: Callable[[str], T], line: str) -> T:
    try:
        return read(line)
    except ValueError as error:
        raise errors.ConfigError(f"line {number}: {line}: {error}") from None


def _unquote(text: str) -> str:
    """One word as in a shell; within double quotes a line break may be escaped, as for etcdctl."""
    if _QUOTED.fullmatch(text):
        try:
            return str(ast.literal_eval(text))
        except (SyntaxError, ValueError):
            raise ValueError(f"{text}: an escape that is not known") from None
    words = shlex.split(text)
    if len(words) != 1:
        raise ValueError(f"{text!r}: expected one word, or quotes around it")
    return words[0]


def _number(text: str, base: int) -> int:
    try:
        return int(text, base)
    except ValueError:
        raise ValueError(f"{text!r}: expected a number") from None
