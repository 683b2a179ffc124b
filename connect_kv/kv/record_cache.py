"""The current records of the keys rewritten last: a put of a key in use finds here what it replaces.

Without it each put reads its key from LevelDB first, and that walk through a write buffer that
processor caches do not hold is an eighth of a node's processor time.
"""

from __future__ import annotations

GENERATION_BYTES = 16 << 20
"""What each of the two generations may take, roughly."""
ENTRY_BYTES = 300
"""What an entry takes besides its record: key, tuple, a number, its place in a dict."""
LARGEST_RECORD = 64 << 10
"""A larger one is not kept: reading it costs little beside writing it."""

Known = tuple[bytes, int, int, int]
"""A record, and of it what the next change of its key needs: create revision, version, lease."""


class RecordCache:
    """Keys and their current records, as far as there is room.

    Two generations: once the young one is full, what was not written again since the one before
    was full is dropped. A key that is not found here may exist all the same.
    """

    __slots__ = ("_generation_bytes", "_old", "_room", "_young")

    def __init__(self, generation_bytes: int = GENERATION_BYTES) -> None:
        self._generation_bytes = generation_bytes
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._young: dict[bytes, Known] = {}
        self._old: dict[bytes, Known] = {}
        self._room = self._generation_bytes

    def get(self, key: bytes) -> Known | None:
        """What is known of `key`."""
        return self._young.get(key) or self._old.get(key)

    def put(self, key: bytes, known: Known) -> None:
        """`key` has been written."""
        size = len(known[0])
        if size > LARGEST_RECORD:
            self.discard(key)
            return
        young = self._young
        if key in young:
            self._room -= size - len(young[key][0])
        else:
            self._room -= size + ENTRY_BYTES
        young[key] = known
        if self._room < 0:
            self._old = young
            self._young = {}
            self._room = self._generation_bytes

    def discard(self, key: bytes) -> None:
        """`key` does not exist any more, or is not worth keeping."""
        self._old.pop(key, None)
        gone = self._young.pop(key, None)
        if gone is not None:
            self._room += len(gone[0]) + ENTRY_BYTES
