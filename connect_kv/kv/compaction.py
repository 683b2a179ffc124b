"""Cleaner: removes, a little at a time, what a compaction has made unreadable.

The compaction itself is one number: reads below it fail from then on. What it leaves behind is
found in the history from where the last cleanup ended, so the work is that of the changes since, not
that of the whole store. Each change up to the compacted revision

- makes the previous change of its key superfluous, and
- is superfluous itself if it is a deletion below that revision.

Changes exactly at the compacted revision stay until the next time: a watch may start there.
What is removed could not be read any more, so members may clean at different times.

The previous change of a key has to be searched for. Once that was done so often that reading the
whole index would have cost no more, the rest is left to a `sweep.Sweep`, which removes the same.
"""

from __future__ import annotations

import struct
from itertools import islice

from connect_kv.kv import layout, revision, scan
from connect_kv.kv.layout import DELETED, HISTORY, Changes
from connect_kv.kv.revision import Revision
from connect_kv.kv.store import MvccStore
from connect_kv.kv.sweep import Sweep
from connect_kv.storage.engine import Reader

SLICE_CHANGES = 128
"""History records looked at in one step; about two milliseconds."""
_ENTRIES_PER_SEARCH = 32
"""Entries of the index that are read in the time of one search (measured: 1 us and 35 us)."""

_RECORD = struct.Struct(">QIq?")


class Cleaner:
    """Where the cleanup stands. Advanced by `step`, whose changes are written like those of a command."""

    def __init__(self) -> None:
        self._position = Revision(0)
        """The next change to look at; all below it is clean as far as `_target` asks."""
        self._target = -1
        self._finished = True
        self.clean_to = -1
        """Nothing is left of what a compaction up to that revision made superfluous, once this is written."""
        self._searched = 0
        """Changes looked at since the last cleanup ended."""
        self._sweep: Sweep | None = None
        self._emptied: tuple[bytes, bytes] | None = None
        self.removed = 0
        """Changes, since this process started."""

    @property
    def pending(self) -> bool:
        """Whether there is something left to do."""
        return not self._finished

    def take_emptied(self) -> tuple[bytes, bytes] | None:
        """The keys among which the last finished cleanup has deleted: their space can be given back."""
        emptied, self._emptied = self._emptied, None
        return emptied

    def load(self, reader: Reader, compacted: int) -> None:
        """Continue where the database says."""
        self._searched, self._sweep = 0, None
        record = reader.get(layout.CLEANUP)
        if record is None:
            self._position, self._target, self._finished = Revision(0), -1, True
            self.clean_to = -1
        else:
            main, sub, self._target, self._finished = _RECORD.unpack(record)
            self._position = Revision(main, sub)
            self.clean_to = self._target if self._finished else -1
        self.compact(compacted)

    def compact(self, compacted: int) -> None:
        """There is a new compaction to clean up after."""
        if compacted > self._target:
            # Changes at the old target were spared: look at them again.
            self._position = min(self._position, Revision(max(self._target, 0)))
            self._target = compacted
            self._finished = False

    def step(self, store: MvccStore, changes: Changes) -> None:
        """Remove a little."""
        if self._sweep is None and self._searched * _ENTRIES_PER_SEARCH > store.indexed:
            self._sweep = Sweep(self._target)
        if self._sweep is None:
            self._search(store, changes)
        else:
            self._go_on(self._sweep, store, changes)
        changes.put(layout.CLEANUP, _RECORD.pack(*self._position, self._target, self._finished))
        changes.put(layout.STATE, store.state.encode())

    def _go_on(self, sweep: Sweep, store: MvccStore, changes: Changes) -> None:
        for prefix, revision_key in sweep.step(changes):
            self._remove(store, changes, prefix, revision_key)
        if sweep.finished:
            # Its target may be an older one by now: the changes since are looked at then.
            self._sweep = None
            self._end(sweep.target)

    def _search(self, store: MvccStore, changes: Changes) -> None:
        """Clean up after the next few changes."""
        start = HISTORY + self._position.encode()
        _, stop = layout.history_bounds(0, max(self._target, 0))
        entries = list(islice(changes.iterate(start, stop), SLICE_CHANGES)) if start < stop else []
        spared = revision.pack(max(self._target, 0), 0)
        newest: dict[bytes, bytes | None] = {}
        for history_key, record in entries:
            revision_key = history_key[1:]
            deleted = record.startswith(DELETED)
            prefix = layout.index_key(record[1:] if deleted else scan.parse(record).key)
            before = newest[prefix] if prefix in newest else _before(changes, prefix, revision_key)
            if before is not None and before < spared:
                self._remove(store, changes, prefix, before)
            if deleted and revision_key < spared:
                self._remove(store, changes, prefix, revision_key)
                newest[prefix] = None
            else:
                newest[prefix] = revision_key
        self._searched += len(entries)
        if len(entries) < SLICE_CHANGES:
            self._end(self._target)
        else:
            main, sub = revision.unpack(entries[-1][0][1:])
            self._position = Revision(main, sub + 1)

    def _end(self, target: int) -> None:
        """All is clean as far as that compacted revision asks."""
        self._position = Revision(max(target, 0))
        self._searched = 0
        self._finished = target == self._target
        self.clean_to = target
        if self._finished:
            self._emptied = HISTORY, layout.META

    def _remove(self, store: MvccStore, changes: Changes, prefix: bytes, revision_key: bytes) -> None:
        changes.delete(HISTORY + revision_key)
        changes.delete(prefix + revision_key)
        store.indexed -= 1
        self.removed += 1


def finished(compacted: int) -> bytes:
    """The record of a cleanup that has ended, in a database that was made without what it removes."""
    return _RECORD.pack(max(compacted, 0), 0, compacted, True)


def _before(reader: Reader, prefix: bytes, revision_key: bytes) -> bytes | None:
    """Of the key's change before that one. Backwards: entries just removed lie further back."""
    for entry, _ in reader.iterate(prefix, prefix + revision_key, reverse=True):
        return entry[-revision.SIZE :]
    return None
