"""A type checker sees through the marks: a wrong argument is an error before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from mypy import api

REPOSITORY = Path(__file__).parent.parent.parent

CALLS = """
from collections.abc import Awaitable, Callable
from typing import Concatenate, ParamSpec, TypeVar

from tests.framework.machines import Counter

M = TypeVar("M")
P = ParamSpec("P")
R = TypeVar("R")


def call(method: Callable[Concatenate[M, P], R], *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:
    raise NotImplementedError


reveal_type(Counter().increment(by=5))
reveal_type(Counter.increment)
reveal_type(call(Counter.increment, by=5))
reveal_type(call(Counter.value))
call(Counter.increment, by="five")
call(Counter.increment, to=5)
Counter().increment("five")
"""

EXPECTED = [
    'Revealed type is "int"',
    'Revealed type is "def (self: tests.framework.machines.Counter, by: int =) -> int"',
    'Revealed type is "typing.Awaitable[int]"',
    'Revealed type is "typing.Awaitable[int]"',
    'incompatible type "str"; expected "int"',
    'Unexpected keyword argument "to"',
    'incompatible type "str"; expected "int"',
]


def test_marks_keep_signatures_and_calls_are_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "calls.py"
    file.write_text(CALLS)
    monkeypatch.chdir(REPOSITORY)
    output, errors, _ = api.run(
        ["--cache-dir", str(tmp_path / "cache"), "--follow-imports=silent", "--no-error-summary", str(file)]
    )
    found = [line for line in output.splitlines() if "calls.py:" in line]
    assert errors == ""
    assert len(found) == len(EXPECTED), output
    for line, expected in zip(found, EXPECTED, strict=True):
        assert expected in line
