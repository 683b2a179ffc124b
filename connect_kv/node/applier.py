"""Applying: entries that are committed and persisted here, in order, a bounded slice at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

from connect_kv.node.parts import Parts
from connect_kv.raft.types import Entry

R = TypeVar("R")


class Applier(Generic[R]):
    """Owns the only calls of `ReplicatedState.apply`."""

    def __init__(
        self, parts: Parts[R], applied: Callable[[Sequence[Entry], Sequence[Sequence[R]], bool], None]
    ) -> None:
        """`applied` is told each slice, its results, and whether the membership changed in it."""
        self._parts = parts
        self._applied = applied
        self._work = asyncio.Event()
        self.quiet = asyncio.Lock()
        """Hold it to have the state stand still."""

    def wake(self) -> None:
        """There may be more to apply."""
        self._work.set()

    async def run(self) -> None:
        """Apply what comes, for ever. Raises what the state raises: the node must stop then."""
        while True:
            await self._work.wait()
            self._work.clear()
            if await self._slice():
                self._work.set()
                await asyncio.sleep(0)

    async def _slice(self) -> bool:
        async with self.quiet:
            core, history = self._parts.core, self._parts.history
            start, end = history.applied.index + 1, core.apply_index + 1
            # Before the log's first entry only a snapshot helps: the state was lost.
            if start >= end or start < core.first_index:
                return False
            size = self._parts.config.apply_slice_bytes
            entries: Sequence[Entry] | None = core.entries(start, end, size)
            if not entries:
                load = partial(self._parts.log.entries, start, end, size)
                entries = await self._parts.log_worker.run(load)
            started = self._parts.clock.now()
            results = await self._parts.state.apply(entries)
            self._parts.metrics.applied(self._parts.clock.now() - started, len(entries))
            changed = history.note(entries)
            core.applied(entries[-1].id.index)
            self._applied(entries, results, changed)
            return True
