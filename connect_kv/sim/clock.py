"""Virtual time: an asyncio loop that jumps to the next timer instead of waiting for it.

Half an hour of timers takes as long as the code they run. Nothing may wait for another thread or
a socket on this loop: when nothing is left to happen, it raises instead of hanging.
"""

from __future__ import annotations

import asyncio
import selectors

EPOCH = 1_700_000_000_000_000_000
"""Wall time at loop time 0, nanoseconds since 1970."""


class Stuck(RuntimeError):
    """Every task waits and no timer is set: nothing will ever happen again."""


class _JumpingSelector(selectors.SelectSelector):
    """Adds the time it was asked to wait to `now`, and returns at once."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Nothing from outside is ever looked for: it would come when chance has it."""
        if timeout is None:
            raise Stuck("all tasks wait and no timer is set")
        if timeout > 0:
            self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time` moves only from timer to timer, from 0."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds."""
        return self._jumping.now

    def stall(self, seconds: float) -> None:
        """As if a callback had taken that long, or the process had been paused."""
        self._jumping.now += seconds


class VirtualClock:
    """The `Clock` of a machine on a virtual loop.

    `epoch` is the wall time at loop time 0, in nanoseconds; `offset` shifts this clock's wall time
    against others (seconds); `rate` is how many of its seconds pass in one of the loop's.
    """

    def __init__(self, *, epoch: int = EPOCH, offset: float = 0.0, rate: float = 1.0) -> None:
        self._epoch = epoch
        self.offset = offset
        self.rate = rate

    def now(self) -> float:
        """Monotonic seconds."""
        return asyncio.get_running_loop().time() * self.rate

    def wall(self) -> int:
        """Nanoseconds since 1970: set from outside now and then, so it does not drift."""
        return self._epoch + int((asyncio.get_running_loop().time() + self.offset) * 1e9)

    async def sleep(self, seconds: float) -> None:
        """Wait on this clock."""
        await asyncio.sleep(seconds / self.rate)
