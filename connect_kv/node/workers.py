"""Where blocking calls run: one thread per worker, first in, first out."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from connect_kv.errors import NodeStopped

T = TypeVar("T")


class _Calls:
    """From the loop to one thread, first in, first out; None ends it.

    Whoever is woken needs the interpreter lock. A queue of the library wakes it while the loop still holds
    that: the thread runs, finds it taken, sleeps, and is woken once more. To write to a descriptor gives the
    lock away.
    """

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None] | None] = deque()
        if sys.platform == "linux":
            self._token = (1).to_bytes(8, sys.byteorder)
            self._in = self._out = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_CLOEXEC)
        else:
            self._token = b"1"
            self._out, self._in = os.pipe()

    def put(self, call: Callable[[], None] | None) -> None:
        """Add one."""
        self._waiting.append(call)
        os.write(self._in, self._token)

    def get(self) -> Callable[[], None] | None:
        """Wait for the next one."""
        os.read(self._out, len(self._token))
        return self._waiting.popleft()

    def close(self) -> None:
        """After the last."""
        for descriptor in {self._in, self._out}:
            os.close(descriptor)


class ThreadWorker:
    """A thread of its own that runs calls in the order given (`interfaces.Worker`)."""

    def __init__(self, name: str, *, stack_bytes: int = 0) -> None:
        """`stack_bytes`: of the thread; 0 is what the system gives."""
        self._calls = _Calls()
        self._closed = False
        # A daemon, so that a disk that never answers cannot keep the process from exiting.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        before = threading.stack_size(stack_bytes) if stack_bytes else 0
        self._thread.start()
        if stack_bytes:
            threading.stack_size(before)

    async def run(self, call: Callable[[], T]) -> T:
        """Run it after everything given before, and return or raise what it does.

        A cancelled caller stops waiting; the call itself is still run. Raises NodeStopped after `close`.
        """
        if self._closed:
            raise NodeStopped(f"the {self._thread.name} thread has ended")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            try:
                result = call()
            except BaseException as error:
                _report(loop, _fail, future, error)
            else:
                _report(loop, _finish, future, result)

        self._calls.put(work)
        return await future

    async def close(self) -> None:
        """Wait for everything given so far, then end. Safe to repeat."""
        if self._closed:
            return
        ended = asyncio.create_task(self.run(lambda: None))
        await asyncio.sleep(0)
        self._closed = True
        self._calls.put(None)
        await ended

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
        self._calls.close()


class InlineWorker:
    """Runs each call at once, on the loop: for tests and simulation (`interfaces.Worker`)."""

    def __init__(self) -> None:
        self._closed = False

    async def run(self, call: Callable[[], T]) -> T:
        """Run `work` at once, on the caller's thread."""
        if self._closed:
            raise NodeStopped("the worker has ended")
        return call()

    async def close(self) -> None:
        """Take nothing more."""
        self._closed = True


def _report(loop: asyncio.AbstractEventLoop, how: Callable[..., None], *arguments: object) -> None:
    """Hand an outcome to the loop; if that has ended, nobody waits for it any more."""
    try:
        loop.call_soon_threadsafe(how, *arguments)
    except RuntimeError:
        if not loop.is_closed():
            raise


def _finish(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
