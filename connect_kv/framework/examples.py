"""Arguments for the checks, said by the author of a class where made-up ones would not do."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

__all__ = ["examples"]

F = TypeVar("F", bound=Callable[..., object])
Examples = Callable[[random.Random], Mapping[str, object]]
"""From a generator to the arguments of one call."""

EXAMPLES = "__connect_kv_examples__"


def examples(*calls: Mapping[str, object] | Examples, **each: Sequence[object]) -> Callable[[F], F]:
    """Say what `check_determinism` and `simulate` call a command or query with.

    Whole calls, ``@examples({"item": "bolt", "count": 3})``, or functions that make them,
    ``@examples(lambda rng: {"item": rng.choice(ITEMS)})``; or values for some parameters each,
    ``@examples(item=["bolt", "nut"])``, the others being made up by their annotations.
    It has no effect in service.
    """

    def marked(method: F) -> F:
        setattr(method, EXAMPLES, (calls, each))
        return method

    return marked


def given_examples(
    method: Callable[..., object], rng: random.Random
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """A whole call, or None; and values for some parameters."""
    calls, each = getattr(method, EXAMPLES, ((), {}))
    if calls:
        chosen = rng.choice(calls)
        return dict(chosen(rng) if callable(chosen) else chosen), {}
    return None, {name: rng.choice(list(values)) for name, values in each.items()}
