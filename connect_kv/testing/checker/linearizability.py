"""Is there an order of these operations, each within its call and its return, that the model allows?

Histories are checked one partition (usually: one key) at a time, which is sound because linearizability
composes (Herlihy and Wing 1990, theorem 1). `orders` has the search, `counterexample` what is shown of a
history without such an order.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from connect_kv.testing.checker.history import Operation, check_moments
from connect_kv.testing.checker.linearization import Verdict, search
from connect_kv.testing.checker.shrink import SmallestHistory, shortest
from connect_kv.testing.checker.specification import Model

__all__ = ["CheckResult", "Model", "Verdict", "check"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """The answer; with a violation, the smallest history found that still shows it."""

    verdict: Verdict
    partition: Hashable = None
    shown: SmallestHistory | None = None
    states_tried: int = 0

    @property
    def counterexample(self) -> tuple[Operation, ...]:
        """The operations of that history."""
        return () if self.shown is None else self.shown.operations


def check(model: Model, operations: Iterable[Operation], *, max_states: int = 5_000_000) -> CheckResult:
    """Check a history. UNKNOWN when `max_states` states of one partition were not enough to decide.

    Raises ValueError if a call returned before it was made.
    """
    partitions: dict[Hashable, list[Operation]] = {}
    history = list(operations)
    check_moments(history)
    for operation in history:
        partitions.setdefault(model.partition(operation.input), []).append(operation)
    tried, undecided = 0, False
    for key, part in partitions.items():
        verdict, states = search(model, model.init(), part, max_states)
        tried += states
        if verdict is Verdict.VIOLATION:
            return CheckResult(
                verdict=verdict, partition=key, shown=shortest(model, part, max_states), states_tried=tried
            )
        undecided = undecided or verdict is Verdict.UNKNOWN
    return CheckResult(verdict=Verdict.UNKNOWN if undecided else Verdict.OK, states_tried=tried)
