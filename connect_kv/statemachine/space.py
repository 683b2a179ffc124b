"""Gives back the disk space of what was deleted.

LevelDB keeps deleted data until it happens to rewrite the tables it is in. Here it is told to, a piece
at a time on a thread of its own: reads and writes go on, and closing has to wait for one piece only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from functools import partial

from connect_kv.errors import NodeStopped, StorageError
from connect_kv.interfaces import Clock, Worker
from connect_kv.storage import codec
from connect_kv.storage.engine import Engine

logger = logging.getLogger(__name__)

PIECE_BYTES = 32 << 20
_SHARE = 10
"""After a cleanup of so many seconds the next one waits that many times as long."""
_KEYS = bytes((codec.KV_CURRENT,)), bytes((codec.KV_META,))
_EVERYTHING = b"", bytes((codec.CLUSTER + 1,))
_KEY_BYTES = 16
"""How much of a key counts when a range is split."""


class Space:
    """`cleaned` after each cleanup of the history, `defragment` when somebody asks."""

    def __init__(self, engine: Callable[[], Engine], worker: Worker, clock: Clock) -> None:
        """`engine` is the current one: it may be exchanged."""
        self._engine = engine
        self._worker = worker
        self._clock = clock
        self._turn = asyncio.Lock()
        self._wanted = False
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def cleaned(self) -> None:
        """History was removed: give its space back soon, and not too often."""
        self._wanted = True
        if self._task is None and not self._closed:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="give back space")

    async def defragment(self) -> None:
        """Give back all there is to give back. Raises NodeStopped."""
        async with self._turn:
            await self._compact(*_EVERYTHING)

    async def close(self) -> None:
        """Stop after the piece under way."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        async with self._turn:
            pass

    async def _run(self) -> None:
        try:
            while self._wanted:
                self._wanted = False
                begun = self._clock.now()
                async with self._turn:
                    await self._compact(*_KEYS)
                await self._clock.sleep(_SHARE * (self._clock.now() - begun))
        except NodeStopped:
            return
        finally:
            self._task = None

    async def _compact(self, start: bytes, stop: bytes) -> None:
        engine = self._engine()
        before = engine.disk_size()
        for first, last in list(pieces(engine, start, stop)):
            if self._closed or self._engine() is not engine:
                raise NodeStopped("this node is stopping, or its state was replaced")
            try:
                await asyncio.shield(self._worker.run(partial(engine.compact_range, first, last)))
            except StorageError:
                if self._engine() is engine and not self._closed:
                    raise
        logger.debug("space given back", extra={"before": before, "after": engine.disk_size()})


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
