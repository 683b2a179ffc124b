"""The state database as the host uses it: batches written in order, frozen views, a hash of all of it."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from connect_kv.interfaces import Worker
from connect_kv.kv import layout, scan
from connect_kv.storage import codec, transfer
from connect_kv.storage.engine import Engine, Reader, View, WriteBatch
from connect_kv.storage.state_dirs import StateDatabase

PIECE = 2048
"""Changes put into a batch between two pauses: about a millisecond."""


class BatchWriter:
    """Writes to the current state database, whichever that is."""

    def __init__(self, database: StateDatabase, worker: Worker) -> None:
        self.database = database
        self.quiet = asyncio.Lock()
        """Held while a batch is under way; hold it to exchange the database."""
        self._worker = worker

    @property
    def engine(self) -> Engine:
        """What has been written, to be read."""
        return self.database.engine

    async def write(self, changes: Mapping[bytes, bytes | None], last_applied: int | None = None) -> None:
        """One batch, unsynced; `last_applied` stays where it is unless one is given.

        Per-key work is done here, in pieces; the write itself on the state thread, however small:
        LevelDB lets a writer wait when it cannot keep up, and heartbeats must not wait with it.
        """
        async with self.quiet:
            begun: WriteBatch | None = None
            if len(changes) > PIECE:
                begun, changes = await self._begin(changes)
            at = self.database.last_applied if last_applied is None else last_applied
            batch = self.database.prepare(changes, at, begun)
            await self._worker.run(partial(batch.write, sync=False))

    async def _begin(
        self, changes: Mapping[bytes, bytes | None]
    ) -> tuple[WriteBatch, Mapping[bytes, bytes | None]]:
        """Take in most of them, others running in between. Nothing has happened if this is given up."""
        batch = self.engine.batch({})
        items = iter(changes.items())
        while len(piece := dict(islice(items, PIECE))) == PIECE:
            batch.add(piece)
            await asyncio.sleep(0)
        return batch, piece


class ViewSource:
    """A view of the state database (`interfaces.SnapshotSource`)."""

    def __init__(self, engine: Engine, last_applied: int, closed: Callable[[ViewSource], None]) -> None:
        self._view = engine.view()
        self._last_applied = last_applied
        self._closed = closed
        self._approximate_bytes = engine.approximate_size(b"", bytes((codec.CLUSTER + 1,)))

    @property
    def last_applied(self) -> int:
        """The index it stands at."""
        return self._last_applied

    @property
    def approximate_bytes(self) -> int:
        """Roughly how much `chunks` will yield."""
        return self._approximate_bytes

    @property
    def view(self) -> View:
        """The state itself."""
        return self._view

    def chunks(self) -> AsyncIterator[bytes]:
        """The state in pieces."""
        return transfer.dump(self._view)

    def close(self) -> None:
        """Give the view back. Safe to repeat."""
        self._view.close()
        self._closed(self)


class StateCopy(NamedTuple):
    """A frozen state as files of their own."""

    path: Path
    """Of a database."""
    last_applied: int
    """The index it stands at."""
    discard: Callable[[], Awaitable[None]]
    """To be called when it is no longer needed; safe to repeat."""


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
