"""The threads of a simulated process: calls in order, each after its time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from connect_kv.errors import NodeStopped
from connect_kv.testing.simulation.process import Process

T = TypeVar("T")


class SimWorker:
    """Runs each call on the loop as its process, in the order given (`interfaces.Worker`).

    ``duration()`` gives the seconds before the call has its effect and those until its caller hears
    of it. As on a thread, a call is run also when its caller has stopped waiting.
    """

    def __init__(self, process: Process, duration: Callable[[], tuple[float, float]]) -> None:
        self._process = process
        self._duration = duration
        self._calls: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._closed = False

    async def run(self, call: Callable[[], T]) -> T:
        """Run it after everything given before, and return or raise what it does."""
        if self._closed:
            raise NodeStopped("the worker has ended")
        return await self._give(call)

    async def close(self) -> None:
        """Wait for everything given so far, then end."""
        if not self._closed:
            self._closed = True
            if self._calls:
                await self._give(lambda: None)

    def _give(self, call: Callable[[], T]) -> asyncio.Future[T]:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._calls.append((call, future))
        if len(self._calls) == 1:
            self._begin()
        return future

    def _begin(self) -> None:
        before, after = self._duration()
        self._process.call_later(before, self._act, after)

    def _act(self, after: float) -> None:
        call, _ = self._calls[0]
        error: BaseException | None = None
        result: object = None
        try:
            result = call()
        except Exception as raised:
            error = raised
        if after:
            self._process.call_later(after, self._report, result, error)
        else:
            self._report(result, error)

    def _report(self, result: object, error: BaseException | None) -> None:
        _, future = self._calls.popleft()
        if not future.done():
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)
        if self._calls:
            self._begin()
