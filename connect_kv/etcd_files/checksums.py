"""CRC-32C, the checksum of etcd's hashes and of its log."""

from __future__ import annotations

from collections.abc import Callable

_POLYNOMIAL = 0x82F63B78
_BITS = 32


def crc32c() -> Callable[[int, bytes], int]:
    """``extend(checksum, data)``: the checksum of what had that one (0: nothing) and `data` behind it.

    Loaded when it is first needed: a member may run for years without.
    """
    from google_crc32c import extend

    found: Callable[[int, bytes], int] = extend
    return found


def joined(first: int, second: int, size: int) -> int:
    """The checksum of two texts one after the other, from that of each; the second one has `size` bytes.

    A checksum is linear: that of the first is carried on over so many zero bytes, as a matrix over bits
    raised to that power, and what the second one has is added.
    """
    power = _squared(_squared(_squared([_POLYNOMIAL] + [1 << bit for bit in range(_BITS - 1)])))
    while size:
        if size & 1:
            first = _times(power, first)
        power = _squared(power)
        size >>= 1
    return first ^ second


def _times(matrix: list[int], vector: int) -> int:
    found = 0
    for column in matrix:
        if vector & 1:
            found ^= column
        vector >>= 1
    return found


def _squared(matrix: list[int]) -> list[int]:
    return [_times(matrix, column) for column in matrix]
