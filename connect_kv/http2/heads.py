"""What blocks of header fields mean, found by their bytes.

While the table stands still a block means what it meant before: one look-up instead of a decoding. A Go
client with a deadline changes the table with every call: its block is indexes, one ``grpc-timeout`` that
enters the table, and perhaps more indexes; and as each such entry moves all older ones by one place, no two
blocks are alike. So there is a second look-up, by the indexes as they were before those entries came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, Protocol, Self, TypeVar

from connect_kv.http2 import huffman
from connect_kv.http2.hpack import STATIC, Field, FieldDecoder

_KNOWN_BLOCKS: Final = 256
_LONGEST_BLOCK: Final = 1024
"""Longer ones are not remembered."""
_FIRST: Final = 0x80 + len(STATIC) + 1
"""The octet that stands for the newest entry of the dynamic table."""
_NAMED_LIKE_NEWEST: Final = 0x40 + len(STATIC) + 1
"""The octet that begins a field to be indexed whose name is that of the newest entry."""
_MOST_SHIFT: Final = 0xFE - _FIRST
_LONGEST_TIMEOUT: Final = 9
_UNKNOWN, _TIMEOUT_HERE = 0, b"\x01"


def _shifted(by: int) -> bytes:
    """A table for bytes.translate: the indexes of entries as they were `by` insertions ago."""
    known = range(0x81, _FIRST)
    older = range(_FIRST + by, 0xFF)
    return bytes(
        octet if octet in known else octet - by if octet in older else _UNKNOWN for octet in range(256)
    )


_SHIFTS: Final = [_shifted(by) for by in range(_MOST_SHIFT + 1)]


class Timed(Protocol):
    """What a block means, as far as this file is concerned."""

    def with_timeout(self, value: bytes) -> Self | None:
        """The same with another ``grpc-timeout``; None if that is none."""


H = TypeVar("H", bound=Timed)


class Heads(Generic[H]):
    """What blocks of header fields mean on one connection, where they came before."""

    def __init__(self, decoder: FieldDecoder, interpret: Callable[[list[Field], int], H]) -> None:
        self._decoder = decoder
        self._interpret = interpret
        self.same: dict[bytes, H] = {}
        """Blocks that change nothing, while the table stands still. Callers look here first."""
        self._moved: dict[bytes, H] = {}
        """By their indexes as they were when the table had had `_base` insertions."""
        self._base = 0
        self._lowest = 0
        """The oldest entry, counted from the first ever, that `_moved` relies on."""

    def find(self, block: bytes) -> H:
        """The meaning of a block that is not in `same`. Raises FieldError."""
        key = self._key(block)
        if key is not None and (known := self._moved.get(key)) is not None:
            timed = self._again(known, block)
            if timed is not None:
                return timed
        decoder = self._decoder
        changes = decoder.changes
        head = self._interpret(*decoder.decode(block))
        if decoder.changes != changes:
            self.same.clear()
            if key is not None:
                self._remember(key, head)
        elif len(block) <= _LONGEST_BLOCK:
            if len(self.same) >= _KNOWN_BLOCKS:
                self.same.clear()
            self.same[block] = head
        return head

    def _key(self, block: bytes) -> bytes | None:
        """A block of the form described above, without what changes from call to call."""
        decoder = self._decoder
        at = block.find(_NAMED_LIKE_NEWEST)
        if at < 0 or not at + 1 < len(block) <= _LONGEST_BLOCK or block[at + 1] & 0x7F > _LONGEST_TIMEOUT:
            return None
        end = at + 2 + (block[at + 1] & 0x7F)
        before, after = block[:at], block[end:]
        shift = decoder.inserted - self._base
        if shift < _MOST_SHIFT and decoder.inserted - len(decoder.entries) <= self._lowest:
            key = before.translate(_SHIFTS[shift]) + _TIMEOUT_HERE + after.translate(_SHIFTS[shift + 1])
            if _UNKNOWN not in key:
                return key
        # An entry has fallen out, or one is named that came after the base: begin anew from here.
        self._moved.clear()
        self._base = self._lowest = decoder.inserted
        key = before.translate(_SHIFTS[0]) + _TIMEOUT_HERE + after.translate(_SHIFTS[1])
        return key if _UNKNOWN not in key else None

    def _again(self, known: H, block: bytes) -> H | None:
        """`known` with the timeout of this block, which enters the table; None if it must be decoded."""
        at = block.index(_NAMED_LIKE_NEWEST)
        coded = block[at + 1]
        value = block[at + 2 : at + 2 + (coded & 0x7F)]
        decoder = self._decoder
        if not decoder.entries or decoder.entries[-1][0] != b"grpc-timeout" or coded & 0x7F != len(value):
            return None
        if coded & 0x80:
            try:
                value = huffman.decode(value)
            except ValueError:
                return None
        timed = known.with_timeout(value)
        if timed is not None:
            decoder.insert((b"grpc-timeout", value))
            self.same.clear()
        return timed

    def _remember(self, key: bytes, head: H) -> None:
        """For the next block with these indexes, if it was the timeout that entered the table."""
        decoder = self._decoder
        if decoder.entries and decoder.entries[-1][0] == b"grpc-timeout":
            # As `_base` counts, the newest entry then had the octet _FIRST.
            self._lowest = min(self._lowest, self._base - 1 - max(0, max(key) - _FIRST))
            if len(self._moved) >= _KNOWN_BLOCKS:
                self._moved.clear()
            self._moved[key] = head
