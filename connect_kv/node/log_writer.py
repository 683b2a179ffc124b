"""What waits for the log's disk: every step of the core that is queued becomes one batch and one fsync."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from itertools import chain

from connect_kv.interfaces import Clock, LogStore, Worker
from connect_kv.node.context import NodeMetrics
from connect_kv.node.entry_spans import EntrySpans
from connect_kv.raft.ready import Ready
from connect_kv.raft.types import SnapshotMeta

SOON_SECONDS = 0.002
"""Within which a fast disk writes."""


class LogWriter:
    """Writes each Ready in order and reports it once everything up to it is durable."""

    def __init__(
        self,
        *,
        log: LogStore,
        worker: Worker,
        clock: Clock,
        metrics: NodeMetrics,
        install: Callable[[SnapshotMeta], Awaitable[None]],
        persisted: Callable[[Sequence[Ready]], None],
        written: Callable[[], None],
        spans: EntrySpans | None = None,
    ) -> None:
        """`persisted` is told of every Ready; `written` after those that did wait, and may submit more."""
        self._log = log
        self._worker = worker
        self._clock = clock
        self._metrics = metrics
        self._install = install
        self._persisted = persisted
        self._written = written
        self._spans = spans
        self._waiting: list[Ready] = []
        self._hint: Ready | None = None
        self._work = asyncio.Event()
        self._rest = asyncio.Event()
        self._rest.set()
        self.oldest: float | None = None
        """Since when the oldest unfinished write is under way; None if there is none."""
        self._queued: float = 0.0
        self._took = 0.0
        """Seconds of the last write."""

    @property
    def idle(self) -> bool:
        """Whether nothing is being written or waits for it."""
        return self.oldest is None

    @property
    def young(self) -> bool:
        """Whether a write has just begun on a disk that was fast the last time: it returns soon."""
        if self.oldest is None or self._took > SOON_SECONDS:
            return False
        return self._clock.now() - self.oldest < SOON_SECONDS

    def submit(self, ready: Ready) -> None:
        """Queue its disk part. With none, and nothing before it, it is reported at once.

        What has none and sends nothing afterwards is not reported: nobody waits for it.
        """
        if not _must_be_durable(ready):
            told = ready.messages_after_persist
            if not self._waiting and (self.idle or not told):
                if ready.hard_state is not None:
                    # Only a hint: it rides with the next write, and losing it costs nothing.
                    self._hint = ready
                if told:
                    self._persisted((ready,))
                return
            if not (told or ready.hard_state):
                return
        if not self._waiting:
            self._queued = self._clock.now()
            if self.oldest is None:
                self.oldest = self._queued
        self._waiting.append(ready)
        self._rest.clear()
        self._work.set()

    async def run(self) -> None:
        """Write what comes, for ever. Raises StorageError; then nothing more is reported."""
        while True:
            await self._work.wait()
            self._work.clear()
            while self._waiting:
                await self._write()
            self._rest.set()

    async def rest(self) -> None:
        """Wait until all that was submitted is durable."""
        await self._rest.wait()

    async def _write(self) -> None:
        batch, self._waiting = self._waiting, []
        started = self._clock.now()
        spans = [] if self._spans is None else self._spans.writing(chain(*(one.entries for one in batch)))
        if any(map(_has_disk_part, batch)):
            hints = [self._hint] if self._hint is not None else []
            self._hint = None
            for part in _parts([*hints, *batch]):
                if part[0].install is not None:
                    await self._install(part[0].install)
                await self._worker.run(partial(self._log.save, part))
            self._took = self._clock.now() - started
            self._metrics.log_written(self._took, len(batch))
        for span in spans:
            span.end()
        self.oldest = self._queued if self._waiting else None
        self._persisted(batch)
        self._written()


def _must_be_durable(ready: Ready) -> bool:
    return ready.must_sync or bool(ready.entries) or ready.install is not None


def _has_disk_part(ready: Ready) -> bool:
    return ready.hard_state is not None or _must_be_durable(ready)


def _parts(batch: Sequence[Ready]) -> Iterator[list[Ready]]:
    """Cut before each Ready that installs a snapshot: what came before it is stored first. Not of nothing."""
    part: list[Ready] = []
    for ready in batch:
        if ready.install is not None and part:
            yield part
            part = []
        part.append(ready)
    yield part
