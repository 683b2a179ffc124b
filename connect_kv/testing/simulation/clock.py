"""Virtual time: an asyncio loop that jumps to the next timer instead of waiting for it.

Half an hour of timers takes as long as the code they run. Nothing may wait for another thread or
a socket on this loop: when nothing is left to happen, it raises instead of hanging.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Generator
from contextvars import Context, copy_context
from heapq import heappop, heappush
from typing import Any

EPOCH = 1_700_000_000_000_000_000
"""Wall time at loop time 0, nanoseconds since 1970."""


class Stuck(RuntimeError):
    """Every task waits and no timer is set: nothing will ever happen again."""


class _NoSelector(selectors.SelectSelector):
    """Nothing from outside is ever looked for: it would come when chance has it."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """No file descriptor is ever ready."""
        return []


class Handle(list[Any]):
    """A callback that waits for its turn, its arguments and its context; empty if cancelled.

    `asyncio.Handle` without what only debugging needs. A list is made without running any Python.
    """

    __slots__ = ()

    def cancel(self) -> None:
        """Do not call it; what it would have been called with may go before its time has come."""
        self.clear()

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return not self


class _Timer(Handle):
    __slots__ = ("due",)

    due: float

    def when(self) -> float:
        """Loop time at which it is due."""
        return self.due


class _Pause:
    """What a task awaits that sleeps: the timer itself wakes it, without a future in between.

    As much of a future as a task asks for; exactly one task awaits it, at once.
    """

    __slots__ = ("_asyncio_future_blocking", "_cancelled", "_loop", "_timer", "_wake", "_when")

    def __init__(self, loop: VirtualLoop, when: float) -> None:
        self._asyncio_future_blocking = False
        self._loop = loop
        self._when = when
        self._cancelled = False

    def __await__(self) -> Generator[_Pause, None, None]:
        self._asyncio_future_blocking = True
        yield self

    def get_loop(self) -> VirtualLoop:
        return self._loop

    def add_done_callback(self, wake: Callable[[_Pause], object], *, context: Context) -> None:
        self._wake = wake, context
        self._timer = self._loop.call_at(self._when, wake, self, context=context)

    def cancel(self, msg: object = None) -> bool:
        if self._cancelled or self._loop.now >= self._when:
            return False
        self._cancelled = True
        self._timer.cancel()
        wake, context = self._wake
        self._loop.call_soon(wake, self, context=context)
        return True

    def result(self) -> None:
        # The timer and the pause know each other: what is used up should go at once, unsearched for.
        del self._timer, self._wake
        if self._cancelled:
            raise asyncio.CancelledError


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time` moves only from timer to timer, from 0.

    Timers that are due at one moment are called in the order in which they were set. A turn costs a
    third of asyncio's: nothing is polled, and nothing is recorded for debugging.
    """

    def __init__(self) -> None:
        super().__init__(_NoSelector())
        self.now = 0.0
        self._turn: list[Handle] = []
        self._timers: list[tuple[float, int, _Timer]] = []
        self._timers_set = 0
        self._ending = False
        # Asked whenever a future is made: the answer is always `bool()`.
        setattr(self, "get_debug", bool)  # noqa: B010

    def time(self) -> float:
        """Virtual seconds."""
        return self.now

    def stall(self, seconds: float) -> None:
        """As if a callback had taken that long, or the process had been paused."""
        self.now += seconds

    def stop(self) -> None:
        """Return from `run_forever` after this turn."""
        self._ending = True
        super().stop()

    def call_soon(
        self, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> Any:
        """Call it in the next turn."""
        handle = Handle((callback, args, copy_context() if context is None else context))
        self._turn.append(handle)
        return handle

    call_soon_threadsafe = call_soon
    """Nothing here runs on another thread."""

    def call_at(
        self, when: float, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> Any:
        """Call it at that time."""
        timer = _Timer((callback, args, copy_context() if context is None else context))
        timer.due = when
        self._timers_set += 1
        heappush(self._timers, (when, self._timers_set, timer))
        return timer

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> Any:
        """Call it so many seconds from now."""
        return self.call_at(self.now + delay, callback, *args, context=context)

    async def sleep(self, seconds: float) -> None:
        """`asyncio.sleep`, in one step instead of two."""
        if seconds > 0:
            await _Pause(self, self.now + seconds)
        else:
            await asyncio.sleep(0)

    def run_turn(self, handles: list[Handle]) -> None:
        """Call each as asyncio does."""
        for handle in handles:
            if handle:
                callback, args, context = handle
                try:
                    context.run(callback, *args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    self.failed(callback, error)

    def failed(self, callback: Callable[..., object], error: BaseException) -> None:
        """Report what a callback raised."""
        self.call_exception_handler({"message": f"Exception in callback {callback}", "exception": error})

    def _run_once(self) -> None:
        """Turn after turn: what became due, and what was called for in the turn before."""
        timers, run_turn = self._timers, self.run_turn
        while True:
            turn, self._turn = self._turn, []
            while timers and not timers[0][2]:
                heappop(timers)
            if not turn and not self._ending:
                if not timers:
                    raise Stuck("all tasks wait and no timer is set")
                self.now = max(self.now, timers[0][0])
            while timers and timers[0][0] <= self.now:
                turn.append(heappop(timers)[2])
            run_turn(turn)
            if self._ending:
                self._ending = False
                return


class VirtualClock:
    """The `Clock` of a machine on a virtual loop.

    `epoch` is the wall time at loop time 0, in nanoseconds; `offset` shifts this clock's wall time
    against others (seconds); `rate` is how many of its seconds pass in one of the loop's.
    """

    def __init__(
        self,
        *,
        epoch: int = EPOCH,
        offset: float = 0.0,
        rate: float = 1.0,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """`loop`: None is the one that runs when it is asked."""
        self._epoch = epoch
        self._loop = loop
        self.offset = offset
        self.rate = rate
        self.told: Callable[[int], None] = lambda wall: None
        """Is told each wall time that is read."""

    def now(self) -> float:
        """Monotonic seconds."""
        return (self._loop or asyncio.get_running_loop()).time() * self.rate

    def wall(self) -> int:
        """Nanoseconds since 1970: set from outside now and then, so it does not drift."""
        wall = self._epoch + int(((self._loop or asyncio.get_running_loop()).time() + self.offset) * 1e9)
        self.told(wall)
        return wall

    async def sleep(self, seconds: float) -> None:
        """Wait on this clock."""
        loop = self._loop or asyncio.get_running_loop()
        if isinstance(loop, VirtualLoop):
            await loop.sleep(seconds / self.rate)
        else:
            await asyncio.sleep(seconds / self.rate)
