"""A type checker sees through the marks: a wrong argument is an error before anything runs.

What is to be an error has a `type: ignore` of exactly that error: `mypy --strict`, which checks all tests,
says so where it is none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Concatenate, ParamSpec, TypeVar, assert_type, get_type_hints

import pytest

from tests.framework.machines import Counter

M = TypeVar("M")
P = ParamSpec("P")
R = TypeVar("R")


def call(method: Callable[Concatenate[M, P], R], *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:
    """As `MachineClient.call` is typed."""
    raise NotImplementedError


def test_marks_keep_signatures() -> None:
    assert assert_type(Counter().increment(by=5), int) == 5
    assert assert_type(Counter.increment(Counter(), 2), int) == 2
    assert assert_type(Counter().value(), int) == 0
    assert get_type_hints(Counter.increment) == {"by": int, "return": int}
    with pytest.raises(TypeError):
        Counter().increment("five")  # type: ignore[arg-type]


def test_calls_by_the_method_of_a_class_are_typed() -> None:
    with pytest.raises(NotImplementedError):
        assert_type(call(Counter.increment, by=5), Awaitable[int])
    with pytest.raises(NotImplementedError):
        assert_type(call(Counter.value), Awaitable[int])
    with pytest.raises(NotImplementedError):
        call(Counter.increment, by="five")  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError):
        call(Counter.increment, to=5)  # type: ignore[call-arg]
