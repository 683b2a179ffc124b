"""Calls to one server under asyncio, over our own client's side of HTTP/2."""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Final, Self, cast

from connect_kv.http2 import frames
from connect_kv.http2.client import ClientCall, ClientConnection
from connect_kv.http2.limits import Limits
from connect_kv.http2.metadata import INTERNAL, UNAVAILABLE, Metadata, StatusError
from connect_kv.http2.sending import Turn

logger = logging.getLogger(__name__)

_LINGER: Final = 1.0
"""Seconds that the last words may take."""
CLIENT_LIMITS: Final = Limits(message=0x7FFF_FFFF, connections=1)
"""The usual ones, but for the size of an answer, which the server knows to limit."""


class Channel:
    """One connection to one server, for any number of calls at a time. Once it is `leaving`, make another.

    Not for use by several threads.
    """

    def __init__(self, core: ClientConnection, loop: asyncio.AbstractEventLoop) -> None:
        self._core = core
        self._loop = loop
        self._turn = core.turn
        self._flushing = False
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._greeted: asyncio.Future[None] = loop.create_future()
        self._closed = asyncio.Event()

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        context: ssl.SSLContext | None = None,
        *,
        limits: Limits = CLIENT_LIMITS,
        name: str | None = None,
    ) -> Channel:
        """A connection that the server has greeted within ``limits.handshake``. Raises OSError, TimeoutError;
        StatusError if it does not speak HTTP/2. `name`: what the server is called, and has a certificate for,
        if that is not `host`.
        """
        loop = asyncio.get_running_loop()
        called = name or host
        authority = f"[{called}]:{port}" if ":" in called else f"{called}:{port}"
        scheme = "http" if context is None else "https"
        core = ClientConnection(Turn(), limits, loop.time(), authority, scheme)
        channel = cls(core, loop)
        core.owner = channel
        async with asyncio.timeout(limits.handshake):
            server_name = called if context is not None else None
            await loop.create_connection(
                lambda: _ClientSocket(channel, core), host, port, ssl=context, server_hostname=server_name
            )
            try:
                await channel._greeted
            except BaseException:
                channel._transport.abort()
                raise
        return channel

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def leaving(self) -> str:
        """Why new calls fail here, or nothing. Calls under way may still be answered."""
        return self._core.leaving

    async def unary(
        self, path: str, message: bytes, timeout: float = math.inf, metadata: Metadata = ()
    ) -> bytes:
        """One request, one answer, within `timeout` seconds. Raises StatusError. Cancelling gives it up."""
        changed, core = asyncio.Event(), self._core
        core.now = now = self._loop.time()
        call = core.unary(path.encode(), message, changed.set, now + timeout, metadata)
        self.wrote()
        try:
            while not call.done:
                changed.clear()
                await changed.wait()
        except asyncio.CancelledError:
            core.cancel(call)
            self.wrote()
            raise
        if call.outcome is not None:
            raise call.outcome
        return call.message

    def stream(self, path: str, timeout: float = math.inf, metadata: Metadata = ()) -> ClientStream:
        """Begin a call of any number of requests and answers."""
        self._core.now = now = self._loop.time()
        stream = ClientStream(self, self._core)
        stream.call = self._core.stream(path.encode(), stream.tell, now + timeout, metadata)
        self.wrote()
        return stream

    async def close(self) -> None:
        """Give up all calls and close."""
        self._core.end(frames.NO_ERROR, "the channel was closed")
        self.flush()
        timer = self._loop.call_later(_LINGER, self._transport.abort)
        await self._closed.wait()
        timer.cancel()

    # For the socket and the streams.

    def wrote(self) -> None:
        """Something is to be written: with what else there is in this turn."""
        if self._turn.dirty and not self._flushing:
            self._flushing = True
            self._loop.call_soon(self.flush)
        if self._core.soonest < self._timer_at:
            self.schedule()

    def flush(self) -> None:
        """Write what waits."""
        self._flushing = False
        self._turn.dirty.clear()
        core = self._core
        out = core.out
        if out and (not core.paused or core.closing) and not self._transport.is_closing():
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            self._transport.write(data)
            core.written()
            self.wrote()
        if core.closing or core.done:
            self._transport.close()

    def schedule(self) -> None:
        """Look after deadlines and signs of life when it is time."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._core.closing:
            self._timer_at = self._core.next_time()
            self._timer = self._loop.call_at(self._timer_at, self._tick)

    def _tick(self) -> None:
        self._core.tick(max(self._loop.time(), self._timer_at))
        self.schedule()
        self.flush()

    def made(self, transport: asyncio.Transport) -> None:
        """The socket is connected."""
        self._transport = transport
        self.flush()
        self.schedule()

    def received(self) -> None:
        """Something has come."""
        if self._core.life.greeted and not self._greeted.done():
            self._greeted.set_result(None)
        if self._core.out:
            self.wrote()
        elif self._core.done:
            self._transport.close()

    def lost(self, error: Exception | None) -> None:
        """The socket is closed."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._greeted.done():
            never = StatusError(UNAVAILABLE, self._core.leaving, unprocessed=True)
            never.__cause__ = error
            self._greeted.set_exception(never)
        self._closed.set()


class ClientStream:
    """One call with any number of messages in both directions: to wait for with `read` and `write`, or to
    `watch`.
    """

    def __init__(self, channel: Channel, core: ClientConnection) -> None:
        self.call: ClientCall
        self.changed = asyncio.Event()
        self._channel = channel
        self._core = core
        self._watcher: Callable[[], None] | None = None

    def tell(self) -> None:
        """Something has changed for it."""
        self.changed.set()
        if self._watcher is not None:
            self._watcher()

    def watch(self, watcher: Callable[[], None] | None) -> None:
        """Have it called whenever a message has come, there is room for another, or the call is over, within
        the turn that brings it. It must not raise. `poll` and `push` are for it.
        """
        self._watcher = watcher

    def poll(self) -> bytes | None:
        """The next message if one has come whole. Raises StatusError, also for how the call ended."""
        message = self._core.take(self.call)
        if message is None and self.call.done and self.call.outcome is not None:
            raise self.call.outcome
        self._channel.wrote()
        return message

    @property
    def over(self) -> bool:
        """Whether no message follows those that `poll` has given."""
        parts = self.call.parts
        return self.call.done and not (parts is not None and parts.inbox)

    @property
    def backlog(self) -> bool:
        """Whether what was sent before still waits for the server to take it."""
        parts = self.call.parts
        return parts is not None and bool(parts.waiting) and not self.call.done

    def push(self, message: bytes) -> None:
        """Send a message at once, unless the call is over; best without a `backlog`."""
        self._core.send(self.call, message)
        self._channel.flush()

    async def write(self, message: bytes) -> None:
        """Send a message, once the server takes what was sent before. Raises StatusError after the end."""
        while self.backlog:
            await self._change()
        if self.call.done:
            raise self.call.outcome or StatusError(INTERNAL, "the server has ended the call")
        self._core.send(self.call, message)
        self._channel.wrote()

    async def read(self) -> bytes | None:
        """The next message; None after the last. Raises StatusError."""
        while (message := self.poll()) is None and not self.call.done:
            await self._change()
        return message

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self.read()) is not None:
            yield message

    def end(self) -> None:
        """No message of ours follows."""
        self._core.half_close(self.call)
        self._channel.wrote()

    def cancel(self) -> None:
        """Give the call up."""
        self._core.cancel(self.call)
        self._channel.wrote()

    async def _change(self) -> None:
        self.changed.clear()
        await self.changed.wait()


class _ClientSocket(asyncio.Protocol):
    def __init__(self, channel: Channel, core: ClientConnection) -> None:
        self._channel = channel
        self._core = core
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._channel.made(cast(asyncio.Transport, transport))  # uvloop's derives from nothing

    def data_received(self, data: bytes) -> None:
        try:
            self._core.receive(data, self._loop.time())
        except Exception:
            logger.exception("a connection failed")
            self._core.end(frames.INTERNAL_ERROR, "internal error")
        self._channel.received()

    def pause_writing(self) -> None:
        self._core.pause(self._loop.time())
        self._channel.schedule()

    def resume_writing(self) -> None:
        self._core.resume()
        self._channel.flush()

    def connection_lost(self, error: Exception | None) -> None:
        self._core.lost(f"the connection was lost: {error}" if error else "the connection was closed")
        self._channel.lost(error)
