"""Deletes what is no longer part of the log, a little at a time, and gives its space back."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from connect_kv.storage import codec
from connect_kv.storage.codec import DiscardedRun
from connect_kv.storage.engine import Engine

RECLAIM_BYTES = 16 << 20
"""Deleted entries of this size are compacted away: measured, 0.1 s, and the log at most 50 MiB larger."""
SWEEP_SLICE = 1024
"""Entries deleted by one batch."""
SWEEP_CALL = 16 * SWEEP_SLICE
"""Entries deleted by one `sweep`: more would hold up the log. The next ones, and saves, go on."""
SWEEP_SAVE = 64
"""Entries a save deletes beside storing some, as long as there are any to delete."""

Background = Callable[[Callable[[], None]], None]
Changes = dict[bytes, bytes | None]
"""Keys with their values, or None for those that are deleted."""


class Deletion(NamedTuple):
    """Some entries to delete: to be written as one batch, alone or beside other changes."""

    changes: Changes
    """Their keys, and the record of what still waits."""
    written: Callable[[], None]
    """To be called when that is written."""


NOTHING = Deletion({}, lambda: None)


class Sweeper:
    """The entries that wait for deletion, as a record in the log's database.

    It is written with what makes them garbage, and again with each deletion, so that a crash in
    between does no harm. Belongs to the thread that writes the log; only `_reclaim` may run elsewhere.
    """

    def __init__(self, engine: Engine, background: Background | None) -> None:
        self._engine = engine
        self._background = background or (lambda work: work())
        self._garbage: list[DiscardedRun] = []
        self._garbage_bytes = 0
        self._reclaimable = 0
        self._reclaiming = False
        self._swept_to = codec.entry_key(0, 0)

    def load(self, start_of_log: bytes) -> None:
        """Take up what an earlier process left before that key. Raises ValueError."""
        self._garbage = codec.decode_runs(self._engine.get(codec.LOG_GARBAGE) or b"")
        size = self._engine.approximate_size(codec.entry_key(0, 0), start_of_log)
        if self._garbage:
            self._garbage_bytes = size
        else:
            self._reclaimable, self._swept_to = size, start_of_log

    def with_run(self, run: DiscardedRun, changes: Changes) -> list[DiscardedRun]:
        """All garbage once `run` is, and its record in `changes`; `adopt` it when that is written."""
        garbage = [*self._garbage, run] if run.start < run.end else self._garbage
        changes[codec.LOG_GARBAGE] = codec.encode_runs(garbage)
        return garbage

    def adopt(self, garbage: list[DiscardedRun], size: int) -> None:
        """What `with_run` gave is written; the run has about `size` bytes."""
        self._garbage = garbage
        self._garbage_bytes += size

    def beside(self, stored: int) -> Deletion:
        """What a save that makes so many changes deletes in the same batch: more than it stores."""
        return self._delete(max(SWEEP_SAVE, 2 * stored)) if self._garbage else NOTHING

    def sweep(self) -> None:
        """Delete a number of entries, unsynced; once it was much, compact their space away."""
        for _ in range(SWEEP_CALL // SWEEP_SLICE):
            if not self._garbage:
                break
            deletion = self._delete(SWEEP_SLICE)
            self._engine.batch(deletion.changes).write(sync=False)
            deletion.written()
        if self._reclaimable >= RECLAIM_BYTES and not self._reclaiming:
            self._reclaiming, self._reclaimable = True, 0
            self._background(self._reclaim)

    def _delete(self, count: int) -> Deletion:
        generation, start, end = self._garbage[0]
        stop = min(start + count, end)
        changes: Changes = {codec.entry_key(generation, index): None for index in range(start, stop)}
        rest = [DiscardedRun(generation, stop, end)] if stop < end else []
        garbage = rest + self._garbage[1:]
        changes[codec.LOG_GARBAGE] = codec.encode_runs(garbage)
        waiting = sum(run.end - run.start for run in self._garbage)
        size = self._garbage_bytes * (stop - start) // waiting
        self._swept_to = codec.entry_key(generation, stop)

        def written() -> None:
            self._garbage = garbage
            self._garbage_bytes -= size
            self._reclaimable += size

        return Deletion(changes, written)

    def _reclaim(self) -> None:
        """Blocks, beside writes if there is a background. Only what is deleted is looked at."""
        try:
            self._engine.compact_range(codec.entry_key(0, 0), self._swept_to)
        finally:
            self._reclaiming = False
