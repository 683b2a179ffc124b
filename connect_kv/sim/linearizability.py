"""Is there an order of these operations, each within its call and its return, that the model allows?

The search of Wing and Gong with Lowe's cache: an operation may come next if no other operation that is
not yet ordered returned before it was called; a pair (set of ordered operations, state) that was tried
once is not tried again. Histories are checked one partition (usually: one key) at a time, which is
sound because linearizability composes (Herlihy and Wing 1990, theorem 1).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from connect_kv.sim.history import UNKNOWN, Operation


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
    describe: Callable[[Any, Any, bool], str] = lambda input, output, known: (
        f"{input} -> {output if known else '?'}"
    )
    """``describe(input, output, known)``: a few characters for a drawing."""


class Verdict(Enum):
    """What a check can answer."""

    OK = "ok"
    VIOLATION = "violation"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The answer; with a violation, the smallest history found that still shows it."""

    verdict: Verdict
    partition: Hashable = None
    counterexample: tuple[Operation, ...] = ()
    states_tried: int = 0


def check(model: Model, operations: Iterable[Operation], *, max_states: int = 5_000_000) -> Outcome:
    """Check a history. UNKNOWN when `max_states` states of one partition were not enough to decide."""
    partitions: dict[Hashable, list[Operation]] = {}
    for operation in operations:
        partitions.setdefault(model.partition(operation.input), []).append(operation)
    tried, undecided = 0, False
    for key, part in partitions.items():
        verdict, states = _search(model, part, max_states)
        tried += states
        if verdict is Verdict.VIOLATION:
            return Outcome(
                verdict=verdict,
                partition=key,
                counterexample=tuple(_shorten(model, part, max_states)),
                states_tried=tried,
            )
        undecided = undecided or verdict is Verdict.UNKNOWN
    return Outcome(verdict=Verdict.UNKNOWN if undecided else Verdict.OK, states_tried=tried)


@dataclass(slots=True, eq=False)
class _Event:
    """A call or a return, in a doubly linked list in order of time."""

    number: int
    is_call: bool
    matching: _Event | None = None
    before: _Event | None = field(default=None, repr=False)
    after: _Event | None = field(default=None, repr=False)


def _linked(operations: Sequence[Operation]) -> _Event:
    """The head of the list of events. At the same moment calls come before returns (they overlap)."""
    moments: list[tuple[float, int, int]] = []
    for number, operation in enumerate(operations):
        moments.append((operation.called, 0, number))
        if operation.known:
            moments.append((operation.returned, 1, number))
    moments.sort()
    head = last = _Event(-1, True)
    calls: dict[int, _Event] = {}
    for _, kind, number in moments:
        event = _Event(number, kind == 0, before=last)
        last.after = event
        last = event
        if event.is_call:
            calls[number] = event
        else:
            calls[number].matching = event
    return head


def _unlink(event: _Event) -> None:
    assert event.before is not None
    event.before.after = event.after
    if event.after is not None:
        event.after.before = event.before


def _relink(event: _Event) -> None:
    assert event.before is not None
    event.before.after = event
    if event.after is not None:
        event.after.before = event


class _Ordered:
    """The set of operations ordered so far: all below `base`, and those in `mask` above it."""

    __slots__ = ("base", "mask")

    def __init__(self) -> None:
        self.base = 0
        self.mask = 0

    def add(self, number: int) -> None:
        self.mask |= 1 << (number - self.base)
        while self.mask & 1:
            # Whole runs at a time: the mask stays as small as the overlap of calls.
            run = ((self.mask + 1) & ~self.mask).bit_length() - 1
            self.mask >>= run
            self.base += run

    def restore(self, saved: tuple[int, int]) -> None:
        self.base, self.mask = saved

    def saved(self) -> tuple[int, int]:
        return self.base, self.mask


def _search(model: Model, operations: Sequence[Operation], max_states: int) -> tuple[Verdict, int]:
    operations = sorted(operations, key=lambda one: one.called)
    head = _linked(operations)
    to_return = sum(operation.known for operation in operations)
    state = model.init()
    ordered = _Ordered()
    seen: set[tuple[int, int, Hashable]] = set()
    stack: list[tuple[_Event, Hashable, tuple[int, int]]] = []
    event = head.after
    while to_return:
        assert event is not None, "a return without its call"
        if event.is_call:
            operation = operations[event.number]
            following = model.step(state, operation.input, operation.output, operation.known)
            if following is not None:
                before = ordered.saved()
                ordered.add(event.number)
                key = (*ordered.saved(), following)
                if key not in seen:
                    if len(seen) >= max_states:
                        return Verdict.UNKNOWN, len(seen)
                    seen.add(key)
                    stack.append((event, state, before))
                    state = following
                    _unlink(event)
                    if event.matching is not None:
                        _unlink(event.matching)
                        to_return -= 1
                    event = head.after
                    continue
                ordered.restore(before)
            event = event.after
        if event is None or not event.is_call:
            # An operation returned that could not be ordered: take back the last one that was.
            if not stack:
                return Verdict.VIOLATION, len(seen)
            event, state, before = stack.pop()
            ordered.restore(before)
            if event.matching is not None:
                _relink(event.matching)
                to_return += 1
            _relink(event)
            event = event.after
            if event is None:
                continue
    return Verdict.OK, len(seen)


def _shorten(model: Model, operations: Sequence[Operation], max_states: int) -> list[Operation]:
    """A smaller history that is still a violation.

    Two steps that cannot make a violation out of none: cutting the end off (what was under way then
    has an unknown outcome), and leaving out reads.
    """
    ends = sorted(operation.returned for operation in operations if operation.known)
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high) // 2
        if _search(model, _until(operations, ends[middle]), max_states)[0] is Verdict.VIOLATION:
            high = middle
        else:
            low = middle + 1
    shortest = _until(operations, ends[low])
    for operation in [one for one in shortest if model.reads(one.input)]:
        without = [one for one in shortest if one is not operation]
        if _search(model, without, max_states)[0] is Verdict.VIOLATION:
            shortest = without
    return sorted(shortest, key=lambda one: one.called)


def _until(operations: Sequence[Operation], end: float) -> list[Operation]:
    return [
        one if one.returned <= end else replace(one, returned=UNKNOWN, output=None)
        for one in operations
        if one.called <= end
    ]
