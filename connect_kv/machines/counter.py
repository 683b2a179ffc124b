"""The smallest StateMachine: a counter in the low-level form, whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from connect_kv.raft.types import Entry


class Counter:
    """Adds numbers. A command is eight bytes, big-endian and signed; a query's request is empty.

    Services are better written as `connect_kv.Replicated` classes: see examples/counter.
    """

    def __init__(self) -> None:
        self.last_applied = 0
        self.total = 0

    def apply(self, entries: Sequence[Entry]) -> list[int]:
        """Add each, in order; each one's result is the total after it."""
        totals = []
        for entry in entries:
            self.total += int.from_bytes(entry.data, "big", signed=True)
            totals.append(self.total)
        self.last_applied = entries[-1].index
        return totals

    def query(self, request: bytes) -> int:
        """The total."""
        return self.total

    def snapshot(self) -> Iterator[bytes]:
        """Frozen now; a generator would read later state."""
        size = self.total.bit_length() // 8 + 1
        return iter([self.total.to_bytes(size, "big", signed=True)])

    def restore(self, last_applied: int, chunks: Iterable[bytes]) -> None:
        """Take over what `snapshot` gave elsewhere."""
        self.total = int.from_bytes(b"".join(chunks), "big", signed=True)
        self.last_applied = last_applied
