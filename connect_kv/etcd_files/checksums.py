"""CRC-32C, the checksum of etcd's hashes and of its log."""

from __future__ import annotations

from collections.abc import Callable


def crc32c() -> Callable[[int, bytes], int]:
    """``extend(checksum, data)``: the checksum of what had that one (0: nothing) and `data` behind it.

    Loaded when it is first needed: a member may run for years without.
    """
    from google_crc32c import extend

    found: Callable[[int, bytes], int] = extend
    return found
