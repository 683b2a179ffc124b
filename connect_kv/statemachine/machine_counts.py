"""How often each method of each machine ran here, and how that ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

OTHER = "other"
"""Stands for every method that the code of this member does not have: what clients write makes no labels."""


class MethodCounts:
    """How often a method of a machine was called, with which outcomes, and how long that took."""

    __slots__ = ("not_run", "raised", "returned")

    def __init__(self) -> None:
        self.returned = 0
        self.raised = 0
        self.not_run = 0
        """The machine is suspended here, or the call did not fit the version that was active."""


class MachineCounts:
    """Of all machines of a member. Each number has one thread that writes it; any may read."""

    def __init__(self, methods: Mapping[str, frozenset[str]]) -> None:
        """`methods` by machine: for nothing else is anything counted by its name."""
        self._commands = {name: _counts(known) for name, known in methods.items()}
        self._queries = {name: _counts(known) for name, known in methods.items()}

    def command(self, machine: str, method: str) -> MethodCounts | None:
        """Those of a command, applied here; None for a machine that is not hosted here."""
        return _of(self._commands, machine, method)

    def query(self, machine: str, method: str) -> MethodCounts | None:
        """Those of a query, answered here."""
        return _of(self._queries, machine, method)

    @property
    def commands(self) -> Iterator[tuple[str, str, MethodCounts]]:
        """(machine, method, counts) of those that came at all."""
        return _used(self._commands)

    @property
    def queries(self) -> Iterator[tuple[str, str, MethodCounts]]:
        """(machine, method, counts) of those that came at all."""
        return _used(self._queries)


_Table = Mapping[str, Mapping[str, MethodCounts]]


def _counts(methods: frozenset[str]) -> dict[str, MethodCounts]:
    return {method: MethodCounts() for method in sorted({*methods, OTHER})}


def _of(table: _Table, machine: str, method: str) -> MethodCounts | None:
    counts = table.get(machine)
    return None if counts is None else counts.get(method) or counts[OTHER]


def _used(table: _Table) -> Iterator[tuple[str, str, MethodCounts]]:
    for machine, counts in table.items():
        for method, one in counts.items():
            if one.returned or one.raised or one.not_run:
                yield machine, method, one
