"""Batches of one state database, written in the order in which they were prepared."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

from connect_kv.interfaces import Worker
from connect_kv.storage.engine import Engine
from connect_kv.storage.state_dirs import StateDatabase

INLINE_BYTES = 16 << 10
"""A smaller batch is written at once: that takes 10 us, and a thread's turn ten times as long."""


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

        Per-key work is done here, the write of all but small batches on the state thread.
        """
        async with self.quiet:
            at = self.database.last_applied if last_applied is None else last_applied
            batch = self.database.prepare(changes, at)
            if batch.size < INLINE_BYTES:
                batch.write(sync=False)
            else:
                await self._worker.run(partial(batch.write, sync=False))
