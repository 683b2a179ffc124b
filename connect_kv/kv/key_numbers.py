"""What a put needs to know of the record that it replaces, kept beside the database: its numbers.

Without it each put reads its key first. That walk through write buffers and tables, most of which no cache
holds, grows with the number of keys, and LevelDB merges tables for having been looked into (seek compaction):
among a million keys the reads were two thirds of what a put cost.

Keys written lately stand in a dict, 150 bytes each. What has become old moves into packed tables
(`packed_numbers`), some 60 bytes a key, where it is found in as little time among ten million as among ten.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from connect_kv.kv.packed_numbers import PackedNumbers

ABSENT = 0
"""As the numbers of a key: there is no such key."""
_VERSION_BITS = 64
_VERSION_MASK = (1 << _VERSION_BITS) - 1

YOUNG_KEYS = 1 << 17
"""In the dict, and as many again that are on their way out of it."""
MOST_KEYS = 16 << 20
"""In packed tables: a gigabyte. Beyond that all is forgotten, and read again as it is needed."""
LARGEST_KEY = 256
"""Bytes. A larger one is not kept itself."""
_STEP = 64
"""So many keys come before twice as many leave, together: the way out is free before it is needed again."""


def numbers(created: int, version: int) -> int:
    """Create revision and version as one number: one more is the next version."""
    return created << _VERSION_BITS | version


def created_and_version(packed: int) -> tuple[int, int]:
    """The inverse."""
    return packed >> _VERSION_BITS, packed & _VERSION_MASK


class KeyNumbers:
    """Numbers of keys that were put, deleted or read since `clear`, and leases of those that have one."""

    __slots__ = (
        "_leaving",
        "_old",
        "_packed",
        "_step",
        "_until",
        "_young",
        "_young_keys",
        "complete",
        "leases",
    )

    def __init__(self, young_keys: int = YOUNG_KEYS, most_keys: int = MOST_KEYS) -> None:
        self._young_keys = young_keys
        self._step = min(_STEP, young_keys)
        self._packed = PackedNumbers(most_keys)
        self.leases: dict[bytes, int] = {}
        """Those of the keys that have one, as far as their numbers are known."""
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._young: dict[bytes, int] = {}
        self._old: dict[bytes, int] = {}
        """What was young once: it moves into the packed tables, and is forgotten here once all of it has."""
        self._leaving: Iterator[tuple[bytes, int]] = iter(())
        self._until = self._step
        self._packed.clear()
        self.leases.clear()
        self.complete = False
        """Set it where the store is empty: `get` then knows of every key whether it exists."""

    def get(self, key: bytes) -> int | None:
        """Its numbers; ABSENT, or None if they are not known."""
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
            if found is None:
                found = self._packed.get(key)
                if found is None and self.complete:
                    return ABSENT
        return found

    def set(self, key: bytes, packed: int) -> None:
        """It has these numbers now."""
        if len(key) > LARGEST_KEY:
            self._pack([(key, packed)])
            return
        self._young[key] = packed
        self._until -= 1
        if not self._until:
            self._until = self._step
            self._age()

    def _age(self) -> None:
        """Some of what is old leaves; or what is young becomes old."""
        if self._old:
            young = self._young
            leaving = list(islice(self._leaving, 2 * self._step))
            if not leaving:
                self._old = {}
            else:
                self._pack([pair for pair in leaving if pair[0] not in young])
        elif len(self._young) >= self._young_keys:
            self._old, self._young = self._young, {}
            self._leaving = iter(self._old.items())

    def _pack(self, pairs: Iterable[tuple[bytes, int]]) -> None:
        """Into the tables. If they are full, nothing is known any more, of these keys either."""
        if not self._packed.set(pairs):
            self.clear()
