"""What was applied: the last EntryId, the memberships on the way there, and how much log that was."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from connect_kv.raft.types import Entry, EntryId, EntryKind, Membership, Restored, SnapshotMeta

_ENTRY_OVERHEAD = 64
"""Bytes an entry costs in the log beside its data, roughly."""
_RESTORED_MARKS = 64


@dataclass(frozen=True, slots=True)
class _Mark:
    """The end of an applied slice, and the bytes of log it took."""

    last: EntryId
    size: int


class AppliedHistory:
    """Follows the applied prefix of the log; everything here is committed."""

    def __init__(self, restored: Restored, last_applied: int) -> None:
        self.applied = EntryId(_term_at(restored, last_applied), last_applied)
        """The last entry applied here."""
        known = [pair for pair in restored.memberships if pair[0] <= last_applied]
        self._memberships: list[tuple[int, Membership]] = known or [restored.memberships[0]]
        self._marks = deque(_restored_marks(restored, last_applied))
        self.size = sum(mark.size for mark in self._marks)
        """Bytes of the entries applied and not yet compacted, roughly."""

    @property
    def membership(self) -> Membership:
        """The membership that was applied last."""
        return self._memberships[-1][1]

    @property
    def membership_index(self) -> int:
        """The index of the entry that brought it."""
        return self._memberships[-1][0]

    @property
    def meta(self) -> SnapshotMeta:
        """Names the state as it is now."""
        return SnapshotMeta(self.applied, self.membership)

    def membership_at(self, index: int) -> Membership:
        """The one in force at a compacted or applied `index`."""
        return next(pair for pair in reversed(self._memberships) if pair[0] <= index)[1]

    def note(self, entries: Sequence[Entry]) -> bool:
        """These were applied. Returns whether the membership changed."""
        size = sum(len(entry.data) + _ENTRY_OVERHEAD for entry in entries)
        self.applied = entries[-1].id
        self._marks.append(_Mark(self.applied, size))
        self.size += size
        changed = False
        for entry in entries:
            if entry.kind is EntryKind.MEMBERSHIP:
                changed = True
                self._memberships.append((entry.id.index, Membership.decode(entry.data)))
        return changed

    def jump(self, meta: SnapshotMeta) -> None:
        """A snapshot replaced the state; the log starts anew after it."""
        self.applied = meta.last
        self._memberships = [(meta.last.index, meta.membership)]
        self._marks.clear()
        self.size = 0

    def behind(self, *, entries: int, size: int, limit: int) -> EntryId | None:
        """Where to compact so that at most `entries` and about `size` bytes stay, never beyond `limit`.

        None if there is nothing to drop. Only ends of slices are offered: their terms are known.
        """
        target = None
        left = self.size
        for mark in self._marks:
            keeps_enough = self.applied.index - mark.last.index < entries and left - mark.size < size
            if mark.last.index > limit or keeps_enough:
                break
            left -= mark.size
            target = mark.last
        return target

    def bytes_after(self, index: int) -> int:
        """Bytes of the log applied after `index`, roughly."""
        return sum(mark.size for mark in self._marks if mark.last.index > index)

    def compacted(self, index: int) -> None:
        """The log up to `index` is gone."""
        while self._marks and self._marks[0].last.index <= index:
            self.size -= self._marks.popleft().size
        while len(self._memberships) > 1 and self._memberships[1][0] <= index:
            del self._memberships[0]


def _restored_marks(restored: Restored, last_applied: int) -> Iterator[_Mark]:
    """The log from before the start, in a number of slices of average entries.

    Without them it would stay until there is enough after it, and a node that is restarted before that,
    each time, would keep all of it.
    """
    start = restored.compacted.index
    entries = restored.last.index - start
    step = max(1, (last_applied - start) // _RESTORED_MARKS)
    for begin in range(start, last_applied, step):
        end = min(begin + step, last_applied)
        size = restored.log_bytes * (end - start) // entries - restored.log_bytes * (begin - start) // entries
        yield _Mark(EntryId(_term_at(restored, end), end), size)


def _term_at(restored: Restored, index: int) -> int:
    term = restored.compacted.term
    for start, started in restored.term_starts:
        if start > index:
            break
        term = max(term, started)
    return term
