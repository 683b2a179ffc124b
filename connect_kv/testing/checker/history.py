"""What clients saw: one Operation for each call, with the moment it began and how it ended."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["UNKNOWN", "History", "Operation", "check_assumptions", "check_moments"]

UNKNOWN = math.inf
"""The return time of a call whose outcome its client never learned.

It may take effect at any later time, or never.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call of one client, which has at most one call under way."""

    client: Hashable
    input: Any
    """What was asked; its form is the model's."""
    output: Any = None
    """What was answered; means nothing while the outcome is unknown."""
    called: float
    """When the call began, on a clock shared by all clients."""
    returned: float = UNKNOWN

    @property
    def known(self) -> bool:
        """Whether the client learned the outcome."""
        return self.returned != UNKNOWN


class History:
    """Records operations while they happen. Not safe across threads."""

    def __init__(self) -> None:
        self._operations: list[Operation] = []
        self._dropped: set[int] = set()

    def call(self, client: Hashable, input: Any, now: float) -> int:
        """A call begins; returns its number, for the other methods."""
        self._operations.append(Operation(client=client, input=input, called=now))
        return len(self._operations) - 1

    def returns(self, number: int, output: Any, now: float) -> None:
        """The operation was answered with `output`."""
        self._operations[number] = replace(self._operations[number], output=output, returned=now)

    def drop(self, number: int) -> None:
        """It certainly had no effect and its answer says nothing (a read that failed, a refused write)."""
        self._dropped.add(number)

    @property
    def operations(self) -> list[Operation]:
        """All calls so far; those without an answer have an unknown outcome."""
        return [one for number, one in enumerate(self._operations) if number not in self._dropped]


def check_assumptions(operations: list[Operation]) -> None:
    """Raise ValueError unless each client had one call at a time and none returned before it was made."""
    check_moments(operations)
    last: dict[Hashable, Operation] = {}
    for operation in sorted(operations, key=lambda one: one.called):
        before = last.get(operation.client)
        if before is not None and before.returned > operation.called:
            raise ValueError(f"client {operation.client!r} had two calls under way: {before} and {operation}")
        last[operation.client] = operation


def check_moments(operations: Iterable[Operation]) -> None:
    """Raise ValueError if a call returned before it was made."""
    for operation in operations:
        if not operation.called <= operation.returned:
            raise ValueError(f"returned before it was called: {operation}")
