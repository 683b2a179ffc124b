"""RaftLog: what this node knows of its log, and the part of it that is kept in memory (§5.3, §7).

::

    compacted        window_start          stored        last
        |                 |                   |            |
    ....x  1  2  3  4  5  6  7  8  9  10  11  12  13  14  15
           on disk only   in memory and on disk   not yet handed to the disk

The term of every index after `compacted` is known without the entries: a log has few terms, and
each is one run. So the consistency check never needs an entry that is only on disk.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise

from connect_kv.raft.errors import RaftInvariantError
from connect_kv.raft.types import Entry, EntryId

ENTRY_OVERHEAD = 32
"""Bytes an entry counts beyond its data, so that many empty ones are not free."""


def entry_bytes(entry: Entry) -> int:
    """What an entry counts against every limit in bytes."""
    return len(entry.data) + ENTRY_OVERHEAD


class RaftLog:
    """The log after `compacted`. Knows nothing of terms, commits or disks beyond what it is told."""

    def __init__(
        self,
        compacted: EntryId,
        last: EntryId,
        term_starts: Sequence[tuple[int, int]],
        recent: Sequence[Entry],
    ) -> None:
        self.compacted = compacted
        self.last = last
        self._run_starts = [index for index, _ in term_starts]
        self._run_terms = [term for _, term in term_starts]
        self._entries = list(recent)
        self._window_start = last.index + 1 - len(recent)
        self._sizes = [0]
        self._add_sizes(recent)
        self.next_to_store = last.index + 1
        """The first entry that was not yet handed to the disk."""
        self._check_restored()

    @property
    def first_index(self) -> int:
        """The first entry of the log; ``last.index + 1`` if it is empty."""
        return self.compacted.index + 1

    @property
    def window_start(self) -> int:
        """The first entry in memory; ``last.index + 1`` if there is none."""
        return self._window_start

    def term_at(self, index: int) -> int | None:
        """The term of an entry of the log, or of `compacted`; None beyond either end."""
        if index > self.last.index or index < self.compacted.index:
            return None
        if index == self.compacted.index:
            return self.compacted.term
        if index >= self._run_starts[-1]:
            return self._run_terms[-1]
        return self._run_terms[bisect_right(self._run_starts, index) - 1]

    def matches(self, id: EntryId) -> bool:
        """Whether the log has exactly this entry, or is compacted up to it."""
        return self.term_at(id.index) == id.term

    def first_of_term_at(self, index: int) -> int:
        """The first index in the log of the term that `index` has."""
        return self._run_starts[bisect_right(self._run_starts, index) - 1]

    def last_of_term(self, term: int) -> int | None:
        """The last index of that term, if the log or `compacted` has the term."""
        position = bisect_left(self._run_terms, term)
        if position < len(self._run_terms) and self._run_terms[position] == term:
            after = position + 1
            return self._run_starts[after] - 1 if after < len(self._run_starts) else self.last.index
        return self.compacted.index if term == self.compacted.term else None

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries, at least one, at the end."""
        if entries[0].id.index != self.last.index + 1:
            raise RaftInvariantError("log contiguity", f"{entries[0].id} does not follow {self.last}")
        term = self._run_terms[-1] if self._run_terms else 0
        if entries[-1].id.term != term:
            self._add_runs(entries, term)
        self._entries.extend(entries)
        self._add_sizes(entries)
        self.last = entries[-1].id

    def truncate(self, index: int) -> None:
        """Forget the entries from `index` on (§5.3: they conflict with the leader's)."""
        term = self.term_at(index - 1)
        if term is None or index > self.last.index:
            raise RaftInvariantError("log truncation", f"{index} is outside ({self.compacted}, {self.last}]")
        keep = max(0, index - self._window_start)
        del self._entries[keep:], self._sizes[keep + 1 :]
        self._window_start = min(self._window_start, index)
        runs = bisect_left(self._run_starts, index)
        del self._run_starts[runs:], self._run_terms[runs:]
        self.last = EntryId(term, index - 1)
        self.next_to_store = min(self.next_to_store, index)

    def reset(self, compacted: EntryId) -> None:
        """Start anew after an installed snapshot (§7)."""
        self.compacted = self.last = compacted
        self._run_starts, self._run_terms = [], []
        self._entries, self._sizes = [], [0]
        self._window_start = self.next_to_store = compacted.index + 1

    def compact(self, compacted: EntryId) -> None:
        """Forget the entries up to `compacted`, which is in the log."""
        if not self.matches(compacted):
            raise RaftInvariantError("log compaction", f"{compacted} is not in the log")
        first = compacted.index + 1
        runs = bisect_right(self._run_starts, first) - 1
        if runs > 0:
            del self._run_starts[:runs], self._run_terms[:runs]
        if compacted.index == self.last.index:
            self._run_starts, self._run_terms = [], []
        elif self._run_starts[0] < first:
            self._run_starts[0] = first
        self.compacted = compacted
        self._drop(first)

    def trim(self, keep_from: int, max_entries: int, max_bytes: int) -> None:
        """Shrink the part in memory to these limits, but keep everything from `keep_from` on.

        An eighth of slack, so that entries leave in lots rather than one by one.
        """
        # `keep_from` guards what is not on disk or not applied yet: from nowhere else could it be read.
        count, size = len(self._entries), self._sizes[-1] - self._sizes[0]
        if count * 8 <= max_entries * 9 and size * 8 <= max_bytes * 9:
            return
        by_bytes = bisect_left(self._sizes, self._sizes[-1] - max_bytes)
        surplus = max(count - max_entries, by_bytes)
        self._drop(min(self._window_start + surplus, keep_from))

    def entries(self, start: int, end: int, max_bytes: int) -> tuple[Entry, ...] | None:
        """Entries of ``[start, end)``: the first, and more while they fit; None if not in memory."""
        first = start - self._window_start
        if first < 0:
            return None
        stop = min(end - self._window_start, len(self._entries))
        if stop <= first:
            return ()
        if self._sizes[stop] - self._sizes[first] > max_bytes:
            fitting = bisect_right(self._sizes, self._sizes[first] + max_bytes) - 1
            stop = min(stop, max(fitting, first + 1))
        return tuple(self._entries[first:stop])

    def bytes_from(self, index: int) -> int:
        """Bytes of the entries from `index` to the end, as far as they are in memory."""
        first = min(max(index - self._window_start, 0), len(self._entries))
        return self._sizes[-1] - self._sizes[first]

    def take_unstored(self) -> tuple[Entry, ...]:
        """The entries that the disk was not given yet; from now on it was."""
        if self.next_to_store > self.last.index:
            return ()
        entries = tuple(self._entries[self.next_to_store - self._window_start :])
        self.next_to_store = self.last.index + 1
        return entries

    def _add_sizes(self, entries: Sequence[Entry]) -> None:
        total = self._sizes[-1]
        for entry in entries:
            total += len(entry.data) + ENTRY_OVERHEAD
            self._sizes.append(total)

    def _add_runs(self, entries: Sequence[Entry], term: int) -> None:
        for entry in entries:
            if entry.id.term != term:
                term = entry.id.term
                self._run_starts.append(entry.id.index)
                self._run_terms.append(term)

    def _drop(self, window_start: int) -> None:
        count = min(window_start - self._window_start, len(self._entries))
        if count > 0:
            del self._entries[:count], self._sizes[:count]
            self._window_start += count

    def _check_restored(self) -> None:
        recent, starts = self._entries, self._run_starts
        fits = (
            self.compacted <= self.last
            and self.compacted.index <= self.last.index
            and self._window_start > self.compacted.index
            and (not recent or recent[-1].id == self.last)
            and all(b.id.index == a.id.index + 1 for a, b in pairwise(recent))
            and bool(starts) == (self.last.index > self.compacted.index)
            and (not starts or (starts[0], self._run_terms[-1]) == (self.first_index, self.last.term))
            and all(a < b for a, b in pairwise(starts))
            and all(a < b for a, b in pairwise(self._run_terms))
        )
        if not fits:
            raise RaftInvariantError("restored log", f"({self.compacted}, {self.last}] does not fit together")
