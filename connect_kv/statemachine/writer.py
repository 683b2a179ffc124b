"""Batches of one state database, written in the order in which they were prepared."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from itertools import islice

from connect_kv.interfaces import Worker
from connect_kv.storage.engine import Engine, WriteBatch
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
