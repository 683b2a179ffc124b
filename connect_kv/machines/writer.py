"""Batches of one state database, written in the order in which they were prepared."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

from connect_kv.interfaces import Worker
from connect_kv.storage.engine import Engine
from connect_kv.storage.state_dirs import StateDatabase


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

        Per-key work is done here; the write itself on the state thread, however small: LevelDB lets
        a writer wait when it cannot keep up, and heartbeats must not wait with it.
        """
        async with self.quiet:
            at = self.database.last_applied if last_applied is None else last_applied
            batch = self.database.prepare(changes, at)
            await self._worker.run(partial(batch.write, sync=False))
