"""The time limit of all calls under way: one timer, whatever their number."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from itertools import takewhile
from types import TracebackType
from typing import Any, TypeVar

from connect_kv.errors import OutcomeUnknown
from connect_kv.events import gradually

T = TypeVar("T")

_STEP_SECONDS = 0.01
"""Between two looks. Calls that began together end together: so much later than they might."""


class DeadlineExceeded(Exception):
    """The time of the call is over. For whoever awaits what the call was last `waiting` for."""


class WaitingCall:
    """One request that waits, or a batch of them, as the context in which it does."""

    __slots__ = ("_deadlines", "_future", "over", "until")

    def __init__(self, deadlines: Deadlines, until: float) -> None:
        self._deadlines = deadlines
        self._future: asyncio.Future[Any] | None = None
        self.until = until
        """When its time ends, on the loop's clock."""
        self.over = False
        """Whether it has ended. Look before something is begun; awaiting then raises DeadlineExceeded."""

    def waiting(self, future: asyncio.Future[T]) -> asyncio.Future[T]:
        """Await what this returns: the same future, which fails with DeadlineExceeded when the time is over.

        So it is the future that ends and not the task that is cancelled: whoever gave it away finds it
        done, as when the caller has gone.
        """
        self._future = future
        return future

    def end(self) -> None:
        """The call's time is over: its future fails."""
        self.over = True
        if self._future is not None and not self._future.done():
            self._future.set_exception(DeadlineExceeded())

    def __enter__(self) -> WaitingCall:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.forget(self)


class Deadlines:
    """Calls that may take `seconds` each, in the order in which they began: so the first is due first.

    A timer and a cancelled task for each call cost a fifth of the loop's time of a put; here a call that
    is answered in time costs an entry in a dictionary, and the timer of the first one is that of all.
    Time is the loop's, as for every timer.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        # In order: that of a set would depend on addresses in memory.
        self._calls: dict[WaitingCall, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._calls)

    def begin(self) -> WaitingCall:
        """A call begins now."""
        loop = asyncio.get_running_loop()
        call = WaitingCall(self, loop.time() + self.seconds)
        self._calls[call] = None
        if self._timer is None:
            self._timer = loop.call_at(call.until, self._sweep)
        return call

    def forget(self, call: WaitingCall) -> None:
        """It has been answered, or ended."""
        self._calls.pop(call, None)

    def _sweep(self) -> None:
        """End those that are due, and look again when the first of the others is."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        due = list(takewhile(lambda call: call.until <= now, self._calls))
        for call in due:
            del self._calls[call]
        gradually(due, WaitingCall.end)
        first = next(iter(self._calls), None)
        # At each look the first has nearly its whole time left: a busy member looks once in `seconds`.
        self._timer = None
        if first is not None:
            self._timer = loop.call_at(max(first.until, now + _STEP_SECONDS), self._sweep)


def begun(work: Coroutine[None, None, T]) -> asyncio.Future[T]:
    """What comes of it, as a future that may end before (`WaitingCall.waiting`), and the work with it."""
    loop = asyncio.get_running_loop()
    task, outcome = loop.create_task(work), loop.create_future()

    def ended(task: asyncio.Task[T]) -> None:
        if outcome.done():
            if not task.cancelled():
                task.exception()  # nobody waits for it any more
        elif task.cancelled():
            outcome.set_exception(OutcomeUnknown("the call was broken off"))
        elif (error := task.exception()) is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(task.result())

    task.add_done_callback(ended)
    outcome.add_done_callback(lambda _: task.cancel())
    return outcome
