"""How long a turn of the loop takes: so late is a timer that became due in it."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager


class Turns:
    """Measures every turn, in processor time of this thread: other processes delay timers, too."""

    def __init__(self) -> None:
        self.longest = 0.0
        """Seconds."""
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
    found = Turns()
    try:
        yield found
    finally:
        found.end()
        gc.enable()
