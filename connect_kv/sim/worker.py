"""The threads of a simulated process: calls in order, each after its time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from connect_kv.errors import NodeStopped

T = TypeVar("T")


class SimWorker:
    """Runs each call on the loop, in the order given (`interfaces.Worker`).

    ``duration()`` gives the seconds before the call has its effect and those until its caller hears
    of it. As on a thread, a call is run also when its caller has stopped waiting.
    """

    def __init__(self, duration: Callable[[], tuple[float, float]]) -> None:
        self._duration = duration
        self._calls: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def run(self, call: Callable[[], T]) -> T:
        """Run it after everything given before, and return or raise what it does."""
        if self._closed:
            raise NodeStopped("the worker has ended")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._calls.append((call, future))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())
        return await future

    async def close(self) -> None:
        """Wait for everything given so far, then end."""
        if not self._closed:
            self._closed = True
            if self._task is not None:
                await self._task

    async def _work(self) -> None:
        try:
            while self._calls:
                call, future = self._calls[0]
                before, after = self._duration()
                if before:
                    await asyncio.sleep(before)
                error: BaseException | None = None
                result: object = None
                try:
                    result = call()
                except Exception as raised:
                    error = raised
                if after:
                    await asyncio.sleep(after)
                self._calls.popleft()
                if future.done():
                    continue
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(result)
        finally:
            self._task = None
            while self._calls:
                self._calls.popleft()[1].cancel()
