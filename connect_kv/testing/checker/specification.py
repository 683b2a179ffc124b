"""Model: what a history is checked against, a sequential specification."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any


def one_partition(_: Any) -> Hashable:
    """The partition of models that cannot be cut into independent parts."""
    return None


def no_reads(_: Any) -> bool:
    """For models in which every operation may change the state."""
    return False


def plainly(input: Any, output: Any, known: bool) -> str:
    """An operation as Python would print it."""
    return f"{input} -> {output if known else '?'}"


@dataclass(frozen=True, slots=True)
class Model:
    """A sequential specification. States are hashable and never modified."""

    init: Callable[[], Hashable]
    """The state before the first operation, of each partition."""
    step: Callable[[Any, Any, Any, bool], Hashable | None]
    """``step(state, input, output, known)``: the state after it, or None if this output is not allowed
    here. When the outcome is not known, `output` says nothing."""
    partition: Callable[[Any], Hashable] = one_partition
    """From an input to the part of the state that it touches."""
    reads: Callable[[Any], bool] = no_reads
    """Whether an input never changes the state: such operations may be left out of a counter-example."""
    describe: Callable[[Any, Any, bool], str] = plainly
    """``describe(input, output, known)``: a few characters for a drawing."""
    describe_state: Callable[[Any], str] = repr
    """A state in a few characters, for a drawing that does not begin with the first operation."""
