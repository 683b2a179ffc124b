"""When the state is forced to disk, and how much of the log may go then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from connect_kv.node.parts import Parts
from connect_kv.raft.types import EntryId

R = TypeVar("R")


class Compactor(Generic[R]):
    """Moves the durable index forward on a schedule, then drops the log behind it."""

    def __init__(self, parts: Parts[R], held: Callable[[], int | None]) -> None:
        """`held` says after which index the log is still wanted by somebody."""
        self._parts = parts
        self._held = held
        self._due = asyncio.Event()
        self._pending = 0
        self._done = parts.history.applied.index
        self.quiet = asyncio.Lock()
        """Hold it to keep the state from being forced to disk, and the log from being compacted."""

    def applied(self, size: int) -> None:
        """So many bytes of entries were applied."""
        self._pending += size
        if self._pending >= self._parts.config.durable_bytes:
            self._due.set()

    async def run(self) -> None:
        """Do so when enough was applied or enough time has passed, for ever."""
        while True:
            try:
                async with asyncio.timeout(self._parts.config.durable_seconds):
                    await self._due.wait()
            except TimeoutError:
                pass
            self._due.clear()
            self._pending = 0
            async with self.quiet:
                await self._advance()

    async def _advance(self) -> None:
        if self._parts.history.applied.index != self._done:
            self._done = self._parts.history.applied.index
            index = await self._parts.state.make_durable()
            await self._parts.log_worker.run(partial(self._set_durable, index))
        target = self._target(self._parts.log.durable_index)
        if target is not None:
            await self._compact(target)

    def _set_durable(self, index: int) -> None:
        if index > self._parts.log.durable_index:
            self._parts.log.set_durable(index)

    def _target(self, limit: int) -> EntryId | None:
        held = self._held()
        # A follower that is being sent a snapshot needs what comes after it; but not at any price.
        if (
            held is not None
            and self._parts.history.bytes_after(held) <= self._parts.config.snapshot_keep_bytes
        ):
            limit = min(limit, held)
        return self._parts.history.behind(
            entries=self._parts.config.keep_entries, size=self._parts.config.keep_bytes, limit=limit
        )

    async def _compact(self, target: EntryId) -> None:
        membership = self._parts.history.membership_at(target.index)
        # The core first: what it asks to be read from now on is not among what goes.
        self._parts.core.compacted(target)
        await self._parts.log_worker.run(partial(self._parts.log.compact, target, membership))
        self._parts.history.compacted(target.index)
