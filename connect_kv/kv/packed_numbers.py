"""Create revisions and versions of very many keys in little memory: 32 bytes each, and the room in tables.

Keys are not kept, but 128 bits of keyed hash of each: two would be taken for one once in 10^24 clusters of
ten million keys, and nobody can look for such a pair, for the keys of the hash are this process's own.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable

_SEGMENTS = 4096
"""Tables, so that one that has become too small is copied in less than a millisecond or two."""
_FIRST_ENTRIES = 16
"""Of each table; always a power of two."""
_MANY_ENTRIES = 256
"""Up to here a table grows fourfold, later twofold."""

_LOW = (1 << 64) - 1
Table = array
"""Of int64, four an entry: two hashes, of which the first is 0 where nothing is; create revision; version."""


class PackedNumbers:
    """A hash table of hash tables, each open and probed in steps of one."""

    __slots__ = ("_entries", "_most", "_room", "_salt", "_tables")

    def __init__(self, most: int) -> None:
        """Room for that many keys, roughly."""
        self._most = most
        self._salt = os.urandom(8)
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        empty: Table[int] = array("q", bytes(8 * 4))
        self._tables: list[Table[int]] = [empty] * _SEGMENTS
        self._room = [0] * _SEGMENTS
        """Entries that may be added to each before it grows."""
        self._entries = 0
        """Those there are, and that room."""

    def get(self, key: bytes) -> int | None:
        """`key_numbers.numbers` of it; 0 if it was deleted, None if it is not known."""
        if not self._entries:
            return None
        mark = hash(key) or 1
        table = self._tables[mark & (_SEGMENTS - 1)]
        # The lowest bits chose the table, the next ones choose where in it: a multiple of four.
        at = mark >> 10 & len(table) - 4
        while found := table[at]:
            if found == mark and table[at + 1] == hash(self._salt + key):
                return table[at + 2] << 64 | table[at + 3]
            at += 4
            if at == len(table):
                at = 0
        return None

    def set(self, pairs: Iterable[tuple[bytes, int]]) -> bool:
        """Keep these `key_numbers.numbers`; 0 says that there is no such key. False if it is full."""
        tables, room, salt = self._tables, self._room, self._salt
        for key, packed in pairs:
            mark, check = hash(key) or 1, hash(salt + key)
            segment = mark & (_SEGMENTS - 1)
            table = tables[segment]
            at = mark >> 10 & len(table) - 4
            while found := table[at]:
                if found == mark and table[at + 1] == check:
                    break
                at += 4
                if at == len(table):
                    at = 0
            else:
                if not room[segment]:
                    if self._entries >= self._most:
                        return False
                    table, at = self._grown(segment, mark)
                room[segment] -= 1
                table[at] = mark
                table[at + 1] = check
            table[at + 2] = packed >> 64
            table[at + 3] = packed & _LOW
        return True

    def _grown(self, segment: int, mark: int) -> tuple[Table[int], int]:
        """Its table with room, without keys that do not exist; and where in it that one may go."""
        old = self._tables[segment]
        versions = old[3::4]
        living = len(versions) - versions.count(0)
        size = _next_size(len(versions), living)
        table: Table[int] = array("q", bytes(8 * 4 * size))
        mask = len(table) - 4
        for at in range(0, len(old), 4):
            other = old[at]
            if other and (version := old[at + 3]):
                to = other >> 10 & mask
                while table[to]:
                    to = to + 4 & mask
                table[to] = other
                table[to + 1] = old[at + 1]
                table[to + 2] = old[at + 2]
                table[to + 3] = version
        self._tables[segment] = table
        self._room[segment] = size * 3 // 4 - living
        self._entries += (size - len(versions)) * 3 // 4
        at = mark >> 10 & mask
        while table[at]:
            at = at + 4 & mask
        return table, at


def _next_size(size: int, living: int) -> int:
    """Entries of a table that takes the place of one of that size, for so many keys that exist and as many
    new ones at least.
    """
    if size < _FIRST_ENTRIES:
        return _FIRST_ENTRIES
    if living * 8 < size * 3:
        return size
    return size * (4 if size < _MANY_ENTRIES else 2)
