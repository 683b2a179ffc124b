"""Gives back the disk space of what was deleted.

LevelDB keeps deleted data until it happens to rewrite the tables it is in. Here it is told to, a piece
at a time on a thread of its own: reads and writes go on, and closing has to wait for one piece only.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial

from connect_kv.errors import NodeStopped, StorageError
from connect_kv.interfaces import Clock, Worker
from connect_kv.storage import codec
from connect_kv.storage.engine import Engine

logger = logging.getLogger(__name__)


STEP_SECONDS = tuple(0.001 * 2**step for step in range(13))
"""Upper bounds of what single steps are counted by; during one, nothing is applied."""

WHOLE_SECONDS = tuple(0.1 * 2**step for step in range(14))
"""Upper bounds of what whole cleanups are counted by."""


class CleanupHistogram:
    """Durations, by the bound they stayed below."""

    __slots__ = ("bounds", "counts", "seconds")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """By bound; the last one counts what is longer than all of them."""
        self.seconds = 0.0
        """The sum of all durations."""

    def add(self, seconds: float) -> None:
        """Count a duration, in seconds."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds


class CleanupTimes:
    """All cleanups since this process started."""

    __slots__ = ("ended_at", "steps", "wholes")

    def __init__(self) -> None:
        self.steps = CleanupHistogram(STEP_SECONDS)
        self.wholes = CleanupHistogram(WHOLE_SECONDS)
        self.ended_at = 0.0
        """When the last one ended, seconds since 1970; 0: none has."""


PIECE_BYTES = 32 << 20

_SHARE = 10
"""After a cleanup of so many seconds the next one waits that many times as long."""

_Range = tuple[bytes, bytes]

_KEYS = bytes((codec.KV_CURRENT,)), bytes((codec.KV_META,))

_EVERYTHING = b"", bytes((codec.CLUSTER + 1,))

_KEY_BYTES = 16
"""How much of a key counts when a range is split."""


class Space:
    """`cleaned` after each cleanup of the history, `defragment` when somebody asks.

    A view that was open before the last deletions keeps LevelDB from giving anything back that it can see,
    also later, when it is closed: the tables lie lowest then, and are not rewritten for deletions alone.
    So everything is gone through once more after the last such view has closed, *thoroughly*: something is
    written at both ends of each piece first, which LevelDB has to merge with all in between.
    """

    def __init__(self, engine: Callable[[], Engine], worker: Worker, writer: Worker, clock: Clock) -> None:
        """`engine` is the current one: it may be exchanged. `writer` writes all its batches."""
        self._engine = engine
        self._worker = worker
        self._writer = writer
        self._clock = clock
        self._turn = asyncio.Lock()
        self._wanted: _Range | None = None
        self._deleted: tuple[Engine, int] | None = None
        """Views of that engine below that number may see what was deleted."""
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def cleaned(self) -> None:
        """History was removed: give its space back soon, and not too often."""
        self._note_deletions()
        self._want(_KEYS)

    async def defragment(self) -> None:
        """Give back all there is to give back. Raises NodeStopped."""
        async with self._turn:
            self._note_deletions()
            await self._give_back(_EVERYTHING, thorough=True)

    async def close(self) -> None:
        """Stop after the piece under way."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        async with self._turn:
            pass

    def _note_deletions(self) -> None:
        engine = self._engine()
        self._deleted = (engine, engine.views.mark())

    def _want(self, wanted: _Range) -> None:
        if self._closed:
            return
        self._wanted = _EVERYTHING if _EVERYTHING in (wanted, self._wanted) else wanted
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="give back space")

    async def _run(self) -> None:
        try:
            while self._wanted is not None:
                wanted, self._wanted = self._wanted, None
                begun = self._clock.now()
                async with self._turn:
                    await self._give_back(wanted, thorough=self._engine().views.held)
                await self._clock.sleep(_SHARE * (self._clock.now() - begun))
        except NodeStopped:
            return
        finally:
            self._task = None

    async def _give_back(self, wanted: _Range, *, thorough: bool) -> None:
        engine = self._engine()
        of, mark = self._deleted or (engine, 0)
        holders = engine.views.before(mark) if of is engine else frozenset()
        if not holders:
            engine.views.held = False  # whatever was held back goes now, or will be by views that close later
        await self._compact(engine, wanted, thorough=thorough and not holders)
        if holders:
            loop = asyncio.get_running_loop()

            def closed() -> None:
                with suppress(RuntimeError):  # the loop has ended, and with it the need
                    loop.call_soon_threadsafe(self._released, engine, wanted)

            engine.views.when_closed(holders, closed)

    def _released(self, engine: Engine, wanted: _Range) -> None:
        """The last view is closed that could see what was deleted before the last cleanup."""
        if engine is self._engine():
            engine.views.held = True
            self._want(wanted)

    async def _write_at_ends(self, engine: Engine, first: bytes, last: bytes) -> None:
        """Not beyond the lowest tables: a deletion of what none of them can hold never gets there."""
        ends = await self._worker.run(partial(engine.lowest_tables, first, last))
        if ends is not None:
            await asyncio.shield(self._writer.run(partial(write_again, engine, ends)))

    async def _compact(self, engine: Engine, wanted: _Range, *, thorough: bool) -> None:
        before = engine.disk_size()
        for first, last in list(pieces(engine, *wanted)):
            if self._closed or self._engine() is not engine:
                raise NodeStopped("this node is stopping, or its state was replaced")
            try:
                if thorough:
                    await self._write_at_ends(engine, first, last)
                await asyncio.shield(self._worker.run(partial(engine.compact_range, first, last)))
            except StorageError:
                if self._engine() is engine and not self._closed:
                    raise
        logger.debug("space given back", extra={"before": before, "after": engine.disk_size()})


def write_again(engine: Engine, keys: Iterable[bytes]) -> None:
    """Write what these keys have, and change nothing: one that does not exist is deleted.

    Where all batches are written: a value that came between the look and the write would be lost.
    """
    engine.batch({key: engine.get(key) for key in keys}).write(sync=False)


def pieces(
    engine: Engine, start: bytes, stop: bytes, most: int = PIECE_BYTES
) -> Iterator[tuple[bytes, bytes]]:
    """The range in parts of about `most` bytes on disk, never more where keys differ in their beginning.

    No smaller ones: each costs LevelDB a table of what was written since the last, and that has to be
    merged in its turn. Under load a range in 160 parts, nearly all of them empty, was never done.
    """
    begin, size = start, 0
    for first, part in _halves(engine, start, stop, most):
        if size + part > most and first != begin:
            yield begin, first
            begin, size = first, 0
        size += part
    yield begin, stop


def _halves(engine: Engine, start: bytes, stop: bytes, most: int) -> Iterator[tuple[bytes, int]]:
    """Where each part begins, and its bytes: the range halved by its keys until a part is small."""
    low, high = _number(start), _number(stop)
    size = engine.approximate_size(start, stop)
    if high - low < 2 or size <= most:
        yield start, size
        return
    middle = ((low + high) // 2).to_bytes(_KEY_BYTES, "big")
    yield from _halves(engine, start, middle, most)
    yield from _halves(engine, middle, stop, most)


def _number(key: bytes) -> int:
    return int.from_bytes(key[:_KEY_BYTES].ljust(_KEY_BYTES, b"\x00"), "big")
