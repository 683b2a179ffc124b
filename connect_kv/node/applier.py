"""Applying what is committed and persisted here, and dropping the log behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

from connect_kv.node.context import NodeContext
from connect_kv.raft.types import Entry, EntryId

R = TypeVar("R")


class Applier(Generic[R]):
    """Owns the only calls of `ReplicatedState.apply`."""

    def __init__(
        self, context: NodeContext[R], applied: Callable[[Sequence[Entry], Sequence[Sequence[R]], bool], None]
    ) -> None:
        """`applied` is told each slice, its results, and whether the membership changed in it."""
        self._context = context
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
            if await self._slice() and self._more:
                self._work.set()
                await asyncio.sleep(0)

    @property
    def _more(self) -> bool:
        return self._context.core.apply_index > self._context.history.applied.index

    async def _slice(self) -> bool:
        async with self.quiet:
            core, history = self._context.core, self._context.history
            start, end = history.applied.index + 1, core.apply_index + 1
            # Before the log's first entry only a snapshot helps: the state was lost.
            if start >= end or start < core.first_index:
                return False
            size = self._context.config.apply_slice_bytes
            entries: Sequence[Entry] | None = core.entries(start, end, size)
            if not entries:
                load = partial(self._context.log.entries, start, end, size)
                entries = await self._context.log_worker.run(load)
            told = self._context.spans
            spans = () if told is None else told.applying(entries)
            started = self._context.clock.now()
            results = await self._context.state.apply(entries)
            for span in spans:
                span.end()
            self._context.metrics.applied(self._context.clock.now() - started, len(entries))
            changed = history.note(entries)
            core.applied(entries[-1].id.index)
            self._applied(entries, results, changed)
            return True


class Compactor(Generic[R]):
    """Moves the durable index forward on a schedule, then drops the log behind it."""

    def __init__(self, context: NodeContext[R], held: Callable[[], int | None]) -> None:
        """`held` says after which index the log is still wanted by somebody."""
        self._context = context
        self._held = held
        self._due = asyncio.Event()
        self._pending = 0
        self._done = context.history.applied.index
        self.quiet = asyncio.Lock()
        """Hold it to keep the state from being forced to disk, and the log from being compacted."""

    def applied(self, size: int) -> None:
        """So many bytes of entries were applied."""
        self._pending += size
        if self._pending >= self._context.config.durable_bytes:
            self._due.set()

    async def run(self) -> None:
        """Do so when enough was applied or enough time has passed, for ever."""
        while True:
            try:
                async with asyncio.timeout(self._context.config.durable_seconds):
                    await self._due.wait()
            except TimeoutError:
                pass
            self._due.clear()
            self._pending = 0
            async with self.quiet:
                await self._advance()

    async def _advance(self) -> None:
        if self._context.history.applied.index != self._done:
            self._done = self._context.history.applied.index
            index = await self._context.state.make_durable()
            await self._context.log_worker.run(partial(self._set_durable, index))
        target = self._target(self._context.log.durable_index)
        if target is not None:
            await self._compact(target)

    def _set_durable(self, index: int) -> None:
        if index > self._context.log.durable_index:
            self._context.log.set_durable(index)

    def _target(self, limit: int) -> EntryId | None:
        held = self._held()
        # A follower that is being sent a snapshot needs what comes after it; but not at any price.
        if (
            held is not None
            and self._context.history.bytes_after(held) <= self._context.config.snapshot_keep_bytes
        ):
            limit = min(limit, held)
        return self._context.history.behind(
            entries=self._context.config.keep_entries, size=self._context.config.keep_bytes, limit=limit
        )

    async def _compact(self, target: EntryId) -> None:
        membership = self._context.history.membership_at(target.index)
        # The core first: what it asks to be read from now on is not among what goes.
        self._context.core.compacted(target)
        await self._context.log_worker.run(partial(self._context.log.compact, target, membership))
        self._context.history.compacted(target.index)
