"""The search for an order of operations that a model allows.

Wing and Gong's search with Lowe's cache: an operation may come next if no other operation that is not
yet ordered returned before it was called; a pair (set of ordered operations, state) that was tried once is
not tried again.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from connect_kv.testing.checker.history import Operation
from connect_kv.testing.checker.specification import Model


class Verdict(Enum):
    """What a check can answer."""

    OK = "ok"
    VIOLATION = "violation"
    UNKNOWN = "unknown"


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


def search(
    model: Model, before: Hashable, operations: Sequence[Operation], max_states: int
) -> tuple[Verdict, int]:
    """Whether some order of these operations is allowed when the state is `before`; and states tried.

    UNKNOWN when `max_states` were not enough to decide.
    """
    operations = sorted(operations, key=lambda one: one.called)
    head = _linked(operations)
    to_return = sum(operation.known for operation in operations)
    state = before
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
            # An operation returned that could not be ordered: take back the last one that was, and try
            # another in its place. Not for a read: it took nothing away from what came after it.
            while True:
                if not stack:
                    return Verdict.VIOLATION, len(seen)
                last, state, before = stack.pop()
                ordered.restore(before)
                if last.matching is not None:
                    _relink(last.matching)
                    to_return += 1
                _relink(last)
                if not model.reads(operations[last.number].input):
                    break
            event = last.after
    return Verdict.OK, len(seen)
