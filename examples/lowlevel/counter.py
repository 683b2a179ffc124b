"""The smallest StateMachine: a counter in the low-level form, whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from connect_kv.raft.types import Entry


class Counter:
    """Adds numbers. A command is up to eight bytes, big-endian and signed; a query's request is empty.

    A command that is longer, or would make the total so, is refused by its result, a text.

    Services are better written as `connect_kv.Replicated` classes: see examples/counter.
    """

    def __init__(self) -> None:
        self.last_applied = 0
        self.total = 0

    def apply(self, entries: Sequence[Entry]) -> list[int | str]:
        """Add each, in order; each one's result is the total after it, or why it was refused."""
        results = [self._add(entry.data) for entry in entries]
        self.last_applied = entries[-1].index
        return results

    def _add(self, data: bytes) -> int | str:
        total = self.total + int.from_bytes(data, "big", signed=True)
        if len(data) > 8 or not -(1 << 63) <= total < 1 << 63:
            return "refused: more than eight bytes"
        self.total = total
        return total

    def query(self, request: bytes) -> int:
        """The total."""
        return self.total

    def snapshot(self) -> Iterator[bytes]:
        """Frozen now; a generator would read later state."""
        size = self.total.bit_length() // 8 + 1
        return iter([self.total.to_bytes(size, "big", signed=True)])

    def restore(self, last_applied: int, chunks: Iterable[bytes]) -> None:
        """Take over what `snapshot` gave elsewhere."""
        total = b"".join(chunks)
        if not 0 < len(total) <= 8:
            raise ValueError(f"a total of {len(total)} bytes")
        self.total = int.from_bytes(total, "big", signed=True)
        self.last_applied = last_applied
