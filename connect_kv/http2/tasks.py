"""Calls that have a task of their own, which is cancelled when nobody waits any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

from connect_kv.http2.calls import Call
from connect_kv.http2.metadata import INTERNAL, UNAVAILABLE, UNKNOWN, StatusError

logger = logging.getLogger(__name__)

Handle = Callable[[Call], Awaitable[bytes]]
"""Answers one unary call. It may raise StatusError."""
Serve = Callable[["ServerStream"], Awaitable[None]]
"""Serves one stream. It may raise StatusError; returning is OK."""


class Tasks:
    """Those of one server."""

    def __init__(self, flush_soon: Callable[[], None], flush: Callable[[], None]) -> None:
        self._flush_soon = flush_soon
        self._flush = flush
        self._running: set[asyncio.Task[None]] = set()

    def answer_each(self, handle: Handle, calls: list[Call]) -> None:
        """A batch whose calls have a task each."""

        async def answer(call: Call) -> None:
            message = await handle(call)
            call.connection.notify(call, None)
            call.reply(message)

        for call in calls:
            self._spawn(call, partial(answer, call), None)

    def serve(self, serve: Serve, call: Call) -> None:
        """A stream has begun."""
        stream = ServerStream(call, self._flush_soon, self._flush)

        async def finish() -> None:
            await serve(stream)
            call.connection.notify(call, None)
            call.connection.finish(call)

        self._spawn(call, finish, stream.tell)

    def _spawn(
        self, call: Call, work: Callable[[], Awaitable[None]], changed: Callable[[], None] | None
    ) -> None:
        task = asyncio.get_running_loop().create_task(self._end(call, work))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

        def notify() -> None:
            if call.gone():
                task.cancel()
            elif changed is not None:
                changed()

        call.connection.notify(call, notify)

    async def _end(self, call: Call, work: Callable[[], Awaitable[None]]) -> None:
        """Let `work` end the call, or end it as `work` fails: neither must cancel the task by `notify`."""
        outcome = None
        try:
            await work()
        except StatusError as error:
            outcome = error
        except asyncio.CancelledError:
            outcome = StatusError(UNAVAILABLE, "the server stops")
        except Exception as error:
            logger.exception("a call failed", extra={"peer": call.peer.address})
            outcome = StatusError(UNKNOWN, f"{type(error).__name__}: {error}")
        if outcome is not None:
            call.connection.notify(call, None)
            call.fail(outcome.code, outcome.text, outcome.trailing)
        self._flush_soon()

    async def cancel(self) -> None:
        """End all that run."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class ServerStream:
    """One stream as its handler sees it: to wait for with `read` and `write`, or to `watch`."""

    def __init__(self, call: Call, flush_soon: Callable[[], None], flush: Callable[[], None]) -> None:
        self.call = call
        self.changed = asyncio.Event()
        self._flush_soon = flush_soon
        self._flush = flush
        self._watcher: Callable[[], None] | None = None

    def tell(self) -> None:
        """Something has changed for it."""
        self.changed.set()
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
            await self._change()
        if connection.out:
            self._flush_soon()
        return message

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self.read()) is not None:
            yield message

    async def write(self, message: bytes) -> None:
        """Send a message, once the client takes what was sent before."""
        while self.backlog:
            await self._change()
        if not self.call.gone():
            self.call.connection.send(self.call, message)
            self._flush_soon()

    async def _change(self) -> None:
        self._flush_soon()
        self.changed.clear()
        await self.changed.wait()
