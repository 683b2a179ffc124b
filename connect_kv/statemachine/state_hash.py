"""A hash of the replicated state as a whole, alike on all members that have applied the same entries."""

from __future__ import annotations

import asyncio
import zlib

from connect_kv.kv import layout, scan
from connect_kv.storage import codec
from connect_kv.storage.engine import Reader

SPACES = (
    codec.KV_CURRENT,
    codec.KV_HISTORY,
    codec.KV_KEY_INDEX,
    codec.LEASES,
    codec.LEASE_KEYS,
    codec.MACHINE_DATA,
    codec.MACHINES,
    codec.AUTH,
    codec.CLUSTER,
)
"""What members keep alike. The rest says how far one of them has come with work of its own."""


async def state_hash(reader: Reader) -> int:
    """CRC-32 of it, in slices of the loop."""
    checksum = zlib.crc32(reader.get(layout.STATE) or b"")
    for space in SPACES:
        for pair in scan.sliced(reader.iterate(bytes((space,)), bytes((space + 1,)))):
            if pair is None:
                await asyncio.sleep(0)
            else:
                checksum = zlib.crc32(pair[1], zlib.crc32(pair[0], checksum))
    return checksum
