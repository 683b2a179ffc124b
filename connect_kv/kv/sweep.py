"""Sweep: the other way to find what a compaction has made superfluous, for when that is much.

It walks the index in key order, where all changes of one key are neighbours: no search for each, but
the work is that of the whole store. Where it stands is kept in memory only: after a restart the
cleanup begins again, and what was removed is not met a second time.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from connect_kv.kv import layout, revision
from connect_kv.kv.layout import PUT
from connect_kv.kv.revision import LAST_SUB
from connect_kv.storage.engine import Reader

SLICE_ENTRIES = 512
"""Index entries looked at in one step; about two milliseconds."""


class Sweep:
    """One walk over the whole index, for one compacted revision."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.finished = False
        self._spared = revision.pack(max(target, 0), 0)
        """Changes at the target or later stay."""
        self._last = revision.pack(max(target, 0), LAST_SUB)
        self._start = layout.INDEX
        self._prefix = b""
        self._kept: bytes | None = None
        """The key's newest change so far that is older than the target, unless something came after it."""

    def step(self, reader: Reader) -> Iterator[tuple[bytes, bytes]]:
        """What to remove of the next entries: the key's part of an index entry, and the place."""
        entries = list(islice(reader.iterate(self._start, layout.META), SLICE_ENTRIES))
        for entry, kind in entries:
            prefix, place = entry[: -revision.SIZE], entry[-revision.SIZE :]
            if prefix != self._prefix:
                self._prefix, self._kept = prefix, None
            if place > self._last:
                continue
            if self._kept is not None:
                yield prefix, self._kept
            self._kept = None
            if place < self._spared:
                if kind == PUT:
                    self._kept = place
                else:
                    yield prefix, place
        if len(entries) < SLICE_ENTRIES:
            self.finished = True
        else:
            self._start = entries[-1][0] + b"\x00"
