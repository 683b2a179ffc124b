"""Counts of ranges at revisions, for clients that read a large range page by page.

Every answer says how many keys its whole range has. They are counted for the first page; after it,
and after each that follows, it is known how many lie behind. What exists at a revision never changes.
"""

from __future__ import annotations

MOST_COUNTS = 1024
"""Kept at once, the newest."""


class PageCounts:
    """What was counted lately. Of published states: within a transaction a revision is not yet whole."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, bytes, int], int] = {}

    def get(self, key: bytes, range_end: bytes, revision: int) -> int | None:
        """How many keys the range has at that revision, if that is known."""
        return self._known.get((key, range_end, revision))

    def note(self, key: bytes, range_end: bytes, revision: int, count: int) -> None:
        """Keep how many keys the range has at that revision; the oldest number goes for it."""
        known = self._known
        known.pop((key, range_end, revision), None)
        if len(known) >= MOST_COUNTS:
            del known[next(iter(known))]
        known[key, range_end, revision] = count

    def clear(self) -> None:
        """Forget all numbers: the database is another one now."""
        self._known.clear()
