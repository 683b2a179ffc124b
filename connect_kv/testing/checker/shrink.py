"""From a history that no order explains to a few calls that show it.

Three steps, none of which can make a violation out of none:
- what was called after the first return that cannot be explained is cut off;
- the beginning is cut off where all orders of the calls before leave one of a few states: no order is
  allowed from any of them;
- a call is left out if it would not help even if it took effect at any moment, or never.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

from connect_kv.testing.checker.history import UNKNOWN, Operation
from connect_kv.testing.checker.linearization import Verdict, search
from connect_kv.testing.checker.specification import Model

READABLE = 12
"""A history of so many calls need not be cut at its beginning: it explains itself."""
CONTEXT = 6
"""Calls that were left out are shown, so many, for orientation."""
CUTS = 64
"""Moments before the end at which the beginning may be cut off."""
FEW_STATES = 4
CONFIGURATIONS = 50_000
"""What calls that overlap may have done: more of it between two moments is too much to follow."""
LEAVING_OUT = 60
"""Histories of so many calls are tried call by call."""
PATIENCE = 20_000
"""States a search may try to decide whether a call may be left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallestHistory:
    """A history without an order, whichever of the states in `before` it begins with."""

    operations: tuple[Operation, ...]
    before: tuple[Hashable, ...]
    cut: float | None = None
    """Where the beginning was cut off: all orders of what returned until then leave a state of `before`."""
    context: tuple[Operation, ...] = ()
    """The last of the calls that were left out, for orientation."""
    left_out: int = 0
    """All the others until the end."""


def shortest(model: Model, operations: Sequence[Operation], max_states: int) -> SmallestHistory:
    """The smallest history found in one that is a violation."""
    followed = _Followed(model, operations)
    end = followed.end
    if end is None:
        end = _first_violation(model, operations, max_states)
    whole = _until(operations, end)
    before: list[Hashable] = [model.init()]
    calls, cut = whole, None
    if sum(not model.reads(one.input) for one in whole) > READABLE:
        for moment, states in followed.cuts():
            rest = _since(whole, moment)
            if _violates(model, states, rest, PATIENCE):
                before, calls, cut = sorted(states, key=repr), rest, moment
                break
    calls = _without_reads(model, before, calls, max_states)
    if len(calls) <= LEAVING_OUT:
        calls = _without_the_helpless(model, before, calls)
    kept = {(one.client, one.called) for one in calls}
    others = [one for one in whole if (one.client, one.called) not in kept and not model.reads(one.input)]
    context = sorted(others, key=lambda one: one.called)[-CONTEXT:]
    return SmallestHistory(
        operations=tuple(sorted(calls, key=lambda one: one.called)),
        before=tuple(before),
        cut=cut,
        context=tuple(context),
        left_out=len(whole) - len(calls) - len(context),
    )


class _Followed:
    """Follows all orders at once: after each return, every set of calls under way that may have taken
    effect, with the state this leaves (Lowe 2017, "just-in-time linearization").
    """

    def __init__(self, model: Model, operations: Sequence[Operation]) -> None:
        self.end: float | None = None
        """The first return that no order explains; None if there was too much to follow."""
        self._states: deque[tuple[float, set[Hashable]]] = deque(maxlen=CUTS)
        self._model = model
        under_way: dict[int, Operation] = {}
        configurations: set[tuple[int, Hashable]] = {(0, model.init())}
        places: dict[int, int] = {}
        free: list[int] = []
        for moment, returns, number in _events(operations):
            if not returns:
                places[number] = free.pop() if free else len(under_way)
                under_way[places[number]] = operations[number]
                continue
            place = places.pop(number)
            found = self._ordered(configurations, under_way, place)
            if found is None:
                return
            if not found:
                self.end = moment
                return
            configurations = found
            del under_way[place]
            free.append(place)
            self._states.append((moment, {state for _, state in configurations}))

    def cuts(self) -> Iterator[tuple[float, set[Hashable]]]:
        """Moments at which few states are possible, the latest first."""
        if self.end is not None:
            yield from ((at, states) for at, states in reversed(self._states) if len(states) <= FEW_STATES)

    def _ordered(
        self, configurations: set[tuple[int, Hashable]], under_way: dict[int, Operation], place: int
    ) -> set[tuple[int, Hashable]] | None:
        """What they become when the call at that place has taken effect, at once or after others.

        None if there is too much to follow.
        """
        bit = 1 << place
        found: set[tuple[int, Hashable]] = set()
        seen = set(configurations)
        left = list(configurations)
        while left:
            if len(seen) > CONFIGURATIONS:
                return None
            done, state = left.pop()
            done = self._with_reads(done, state, under_way)
            if done & bit:
                found.add((done & ~bit, state))
                continue
            for other, operation in under_way.items():
                if done >> other & 1:
                    continue
                following = self._model.step(state, operation.input, operation.output, operation.known)
                if following is None:
                    continue
                next_one = (done | 1 << other, following)
                if next_one not in seen:
                    seen.add(next_one)
                    left.append(next_one)
        return found

    def _with_reads(self, done: int, state: Hashable, under_way: dict[int, Operation]) -> int:
        """Reads that this state allows: to have them behind is never worse than to have them ahead."""
        model = self._model
        for place, one in under_way.items():
            if done >> place & 1 or not model.reads(one.input):
                continue
            if model.step(state, one.input, one.output, one.known) is not None:
                done |= 1 << place
        return done


def _events(operations: Sequence[Operation]) -> list[tuple[float, bool, int]]:
    """Calls and returns in order of time; at the same moment calls come first (they overlap)."""
    calls = [(one.called, False, number) for number, one in enumerate(operations)]
    returns = [(one.returned, True, number) for number, one in enumerate(operations) if one.known]
    return sorted(calls + returns)


def _first_violation(model: Model, operations: Sequence[Operation], max_states: int) -> float:
    """The first return up to which no order is allowed, by halving."""
    ends = sorted(operation.returned for operation in operations if operation.known)
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high) // 2
        if _violates(model, [model.init()], _until(operations, ends[middle]), max_states):
            high = middle
        else:
            low = middle + 1
    return ends[low]


def _until(operations: Sequence[Operation], end: float) -> list[Operation]:
    """What was called by then. What was under way keeps the answer that it got later."""
    return [one for one in operations if one.called <= end]


def _since(operations: Sequence[Operation], moment: float) -> list[Operation]:
    """What returned later; calls that were under way at that moment may have taken effect before it."""
    return [
        one if one.called > moment else replace(one, returned=UNKNOWN, output=None)
        for one in operations
        if one.returned > moment
    ]


def _violates(
    model: Model, before: Sequence[Hashable] | set[Hashable], operations: Sequence[Operation], max_states: int
) -> bool:
    return all(search(model, state, operations, max_states)[0] is Verdict.VIOLATION for state in before)


def _without_reads(
    model: Model, before: Sequence[Hashable], operations: list[Operation], max_states: int
) -> list[Operation]:
    """Leave out reads, as many at once as possible."""
    reads = [one for one in operations if model.reads(one.input)]
    size = len(reads)
    while size:
        for start in range(0, len(reads), size):
            chosen = {id(one) for one in reads[start : start + size]}
            without = [one for one in operations if id(one) not in chosen]
            if len(without) < len(operations) and _violates(model, before, without, max_states):
                operations = without
        kept = {id(one) for one in operations}
        reads = [one for one in reads if id(one) in kept]
        size = min(size // 2, len(reads))
    return operations


def _without_the_helpless(
    model: Model, before: Sequence[Hashable], operations: list[Operation]
) -> list[Operation]:
    """Leave out what would not help even if it took effect at any moment, or never, all of it together."""
    aside: list[Operation] = []
    for one in list(operations):
        rest = [other for other in operations if other is not one]
        anytime = replace(one, called=-math.inf, returned=UNKNOWN, output=None)
        # Only the last to return is sure to be needed: without it, there is no violation.
        if rest and _violates(model, before, [*aside, anytime, *rest], PATIENCE):
            operations = rest
            aside.append(anytime)
    return operations
