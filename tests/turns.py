"""How long a turn of the loop takes: so late is a timer that became due in it."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager

USUAL_PIECE = 0.005
"""Seconds that `_piece` takes on a machine of usual pace: 3.5 to 8.5 ms were seen."""


def _piece() -> float:
    """Processor time of a piece of work that is always the same."""
    table, total = list(range(256)), 0
    begun = time.thread_time()
    for number in range(100_000):
        total += table[number & 255]
    return time.thread_time() - begun


def slowness() -> float:
    """How much slower than usual this machine is just now; at least 1.

    Processor time is no measure by itself: a slow processor, or one that shares its core and caches with
    somebody, takes twice as long for the same turn.
    """
    return max(1.0, min(_piece() for _ in range(3)) / USUAL_PIECE)


class Turns:
    """Measures every turn, in processor time of this thread: other processes delay timers, too."""

    def __init__(self) -> None:
        self.longest = 0.0
        """Seconds; once it has ended, those of a machine of usual pace."""
        self._last = time.thread_time()
        self._next = asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        now = time.thread_time()
        self.longest = max(self.longest, now - self._last)
        self._last = now
        self._next = asyncio.get_running_loop().call_soon(self._turn)

    def end(self) -> None:
        """Measure no more."""
        self._next.cancel()


async def shortest(work: Callable[[], Coroutine[object, object, None]], *, times: int = 3) -> float:
    """The longest turn while `work` is done, at its best: a busy machine makes the same code slower."""
    found = []
    for _ in range(times):
        with turns() as measured:
            await work()
        found.append(measured.longest)
    return min(found)


@contextmanager
def turns() -> Iterator[Turns]:
    """Without the collector of garbage: a node's process has it look seldom, and is measured as a whole."""
    gc.collect()
    gc.disable()
    before = slowness()
    found = Turns()
    try:
        yield found
    finally:
        found.end()
        gc.enable()
        found.longest /= max(before, slowness())
