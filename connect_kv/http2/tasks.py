"""Calls that have a task of their own, which is cancelled when nobody waits any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Final

from connect_kv.http2.calls import Call
from connect_kv.http2.metadata import INTERNAL, UNAVAILABLE, UNKNOWN, StatusError

logger = logging.getLogger(__name__)

_PATIENCE: Final = 10.0
"""Seconds that handlers have to end when they are cancelled."""

Handle = Callable[[Call], Awaitable[bytes]]
"""Answers one unary call. It may raise StatusError."""
Serve = Callable[["ServerStream"], Awaitable[None]]
"""Serves one stream. It may raise StatusError; returning is OK."""


class Tasks:
    """The tasks in which a server answers calls."""

    def __init__(self, flush_soon: Callable[[], None], flush: Callable[[], None]) -> None:
        self._flush_soon = flush_soon
        self._flush = flush
        self._running: set[asyncio.Task[None]] = set()

    def answer_each(self, handle: Handle, calls: list[Call]) -> None:
        """A batch whose calls have a task each."""
        for call in calls:
            self._spawn(call, self._answer(handle, call))

    def serve(self, serve: Serve, call: Call) -> None:
        """A stream has begun."""
        stream = ServerStream(call, self._flush_soon, self._flush)
        self._spawn(call, self._serve(serve, stream), stream)

    def _spawn(
        self, call: Call, work: Coroutine[None, None, None], stream: ServerStream | None = None
    ) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        call.notify = _Running(call, task, stream).notify

    async def _answer(self, handle: Handle, call: Call) -> None:
        try:
            message = await handle(call)
            call.notify = None  # what ends the call here must not cancel this task
            call.reply(message)
            self._flush_soon()
        except BaseException as error:
            self._failed(call, error)

    async def _serve(self, serve: Serve, stream: ServerStream) -> None:
        call = stream.call
        try:
            await serve(stream)
            call.notify = None
            call.connection.finish(call)
            self._flush_soon()
        except BaseException as error:
            self._failed(call, error)

    def _failed(self, call: Call, error: BaseException) -> None:
        call.notify = None
        if isinstance(error, StatusError):
            call.fail(error.code, error.text, error.trailing)
        elif isinstance(error, asyncio.CancelledError):
            call.fail(UNAVAILABLE, "the server stops")
        elif isinstance(error, Exception):
            logger.error("a call failed", exc_info=error, extra={"peer": call.peer.address})
            call.fail(UNKNOWN, f"{type(error).__name__}: {error}")
        else:
            raise error
        self._flush_soon()

    async def cancel(self) -> None:
        """End every task that runs."""
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            _, stuck = await asyncio.wait(running, timeout=_PATIENCE)
            for task in stuck:
                logger.error("a call does not end although it was cancelled", extra={"task": repr(task)})


class _Running:
    """A call and its task."""

    __slots__ = ("_call", "_stream", "_task")

    def __init__(self, call: Call, task: asyncio.Task[None], stream: ServerStream | None) -> None:
        self._call, self._task, self._stream = call, task, stream

    def notify(self) -> None:
        """Something has changed for the call."""
        if self._call.gone():
            self._task.cancel()
        elif self._stream is not None:
            self._stream.tell()


class ServerStream:
    """One stream as its handler sees it: to wait for with `read` and `write`, or to `watch`.

    One task may read while another writes.
    """

    __slots__ = ("_flush", "_flush_soon", "_reader", "_watcher", "_writer", "call")

    def __init__(self, call: Call, flush_soon: Callable[[], None], flush: Callable[[], None]) -> None:
        self.call = call
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._flush_soon = flush_soon
        self._flush = flush
        self._watcher: Callable[[], None] | None = None

    def tell(self) -> None:
        """Something has changed for it."""
        for waiter in (self._reader, self._writer):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        if self._watcher is not None:
            self._watcher()

    def watch(self, watcher: Callable[[], None] | None) -> None:
        """Have it called whenever a message has come or there is room for another, within the turn that
        brings it. It must not raise. `poll` and `push` are for it.
        """
        self._watcher = watcher

    def poll(self) -> bytes | None:
        """The next message if one has come whole. Raises StatusError for one that cannot be taken."""
        return self.call.connection.take(self.call)

    @property
    def over(self) -> bool:
        """Whether no message follows those that `poll` has given."""
        parts = self.call.parts
        return self.call.gone() or (self.call.ended and not (parts is not None and parts.inbox))

    @property
    def backlog(self) -> bool:
        """Whether what was sent before still waits for the client to take it."""
        parts = self.call.parts
        return parts is not None and bool(parts.waiting)

    def push(self, message: bytes) -> None:
        """Send a message at once; best without a `backlog`."""
        if not self.call.gone():
            self.call.connection.send(self.call, message)
            self._flush()

    async def read(self) -> bytes | None:
        """The next message; None after the last. Raises StatusError for one that cannot be taken."""
        connection = self.call.connection
        while (message := connection.take(self.call)) is None:
            if self.call.ended:
                parts = self.call.parts
                if parts is not None and parts.received:
                    raise StatusError(INTERNAL, "the last message is cut off")
                return None
            self._reader = self._changed()
            await self._reader
        if connection.out:
            self._flush_soon()
        return message

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self.read()) is not None:
            yield message

    async def write(self, message: bytes) -> None:
        """Send a message, once the client takes what was sent before."""
        while self.backlog:
            self._writer = self._changed()
            await self._writer
        if not self.call.gone():
            self.call.connection.send(self.call, message)
            self._flush_soon()

    def _changed(self) -> asyncio.Future[None]:
        self._flush_soon()
        return asyncio.get_running_loop().create_future()
