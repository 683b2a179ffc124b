"""What the members of a cluster ran of one machine: each call with its place in the log, and its log time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from connect_kv.framework.hosted import Call, Outcome, ReplicatedMachine, Store
from connect_kv.framework.replicated import Replicated

Place = tuple[int, int]
"""Index of the entry, and number of the call among those of the entry."""


class Executed:
    """Written by all members, and by each again after a restart: it is the same every time."""

    def __init__(self) -> None:
        self._commands: dict[Place, Call] = {}
        self._in_order: list[Call] = []
        self._queries: dict[tuple[str, bytes], list[int]] = {}

    def command(self, place: Place, call: Call) -> None:
        """A member runs a command."""
        self._commands.setdefault(place, call)

    def query(self, method: str, arguments: bytes, log_time: int) -> None:
        """A member runs a query."""
        self._queries.setdefault((method, arguments), []).append(log_time)

    @property
    def commands(self) -> list[Call]:
        """All commands that took effect, in the order of the log."""
        if len(self._in_order) != len(self._commands):
            self._in_order = [call for _, call in sorted(self._commands.items())]
        return self._in_order

    def queries(self, method: str, arguments: bytes) -> Sequence[int]:
        """Log times at which it was asked so far, on any member."""
        return self._queries.get((method, arguments), ())


class ObservedMachine(ReplicatedMachine):
    """A machine of one member, which notes what it runs."""

    def __init__(self, machine: Replicated, executed: Executed) -> None:
        super().__init__(machine)
        self._executed = executed
        self._place: Place = (0, 0)

    def execute(self, calls: Sequence[Call], store: Store | None) -> list[Outcome]:
        """See ReplicatedMachine."""
        for call in calls:
            entry, number = self._place
            self._place = (entry, number + 1) if entry == call.entry_index else (call.entry_index, 0)
            self._executed.command(self._place, call)
        return super().execute(calls, store)

    def query(self, method: str, arguments: bytes, log_time: int, store: Store | None) -> bytes:
        """See ReplicatedMachine."""
        self._executed.query(method, arguments, log_time)
        return super().query(method, arguments, log_time, store)

    def restore(self, chunks: Iterable[bytes]) -> None:
        """See ReplicatedMachine. What is run next is run again, or comes later."""
        self._place = (0, 0)
        super().restore(chunks)
