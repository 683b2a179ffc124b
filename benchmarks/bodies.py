"""Unary calls of which each has another message: h2load sends one again and again.

Frames are made here, and of the answers only their ends are looked at, so that the load takes little of the
processors that the servers need.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import cast

from connect_kv.http2 import frames
from connect_kv.http2.hpack import FieldEncoder

PER_CONNECTION = 100
"""Calls of one connection at a time. Their messages fit into the first window of every server."""
_OPENING = (
    frames.PREFACE
    + frames.settings({frames.INITIAL_WINDOW_SIZE: frames.LARGEST_WINDOW})
    + frames.window_update(0, frames.LARGEST_WINDOW - frames.DEFAULT_WINDOW)
)


class CallsFailed(Exception):
    """A server reset calls, or closed a connection, before all were answered."""


async def closed_loop(
    addresses: list[str], path: str, messages: Iterator[bytes], *, callers: int
) -> list[float]:
    """As many callers, spread over the addresses, who go on as soon as they were answered, until there is no
    message left. Milliseconds of each call, in order of size. Raises CallsFailed, OSError.
    """
    loop = asyncio.get_running_loop()
    connections = -(-callers // PER_CONNECTION)
    shares = [callers // connections + (at < callers % connections) for at in range(connections)]
    made: list[_Calls] = []
    try:
        for at, share in enumerate(shares):
            host, _, port = addresses[at % len(addresses)].rpartition(":")
            _, calls = await loop.create_connection(lambda: _Calls(path, messages), host, int(port))
            made.append(calls)
            calls.authority, calls.share = f"{host}:{port}", share
        for calls in made:
            calls.begin()
        await asyncio.gather(*(calls.ended for calls in made))
    finally:
        for calls in made:
            calls.close()
    return sorted(took * 1000 for calls in made for took in calls.took)


class _Calls(asyncio.Protocol):
    """Those of one connection."""

    def __init__(self, path: str, messages: Iterator[bytes]) -> None:
        self.authority = ""
        self.share = 0
        self.took: list[float] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._path = path.encode()
        self._messages = messages
        self._transport: asyncio.Transport
        self._encoder = FieldEncoder()
        self._number = 1
        self._calling = False
        self._begun: dict[int, float] = {}
        self._out: list[bytes] = []
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(_OPENING)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"{self.authority} closed the connection")

    def begin(self) -> None:
        """All callers call."""
        self._calling = True
        for _ in range(self.share):
            self._call()
        self._flush()

    def close(self) -> None:
        """Whatever is still under way is given up."""
        self._transport.abort()
        if self.ended.done() and not self.ended.cancelled():
            self.ended.exception()

    def data_received(self, data: bytes) -> None:
        """Who was answered calls again."""
        received, at = self._received, 0
        received += data
        while len(received) - at >= frames.FRAME_HEAD.size:
            head, flags, number = frames.FRAME_HEAD.unpack_from(received, at)
            size, kind = head >> 8, head & 0xFF
            end = at + frames.FRAME_HEAD.size + size
            if end > len(received):
                break
            if kind in (frames.HEADERS, frames.DATA):
                if flags & frames.END_STREAM:
                    self.took.append(time.perf_counter() - self._begun.pop(number))
                    self._call()
            elif kind == frames.PING and not flags & frames.ACK:
                self._out.append(frames.frame(kind, frames.ACK, 0, bytes(received[end - size : end])))
            elif kind == frames.SETTINGS and not flags & frames.ACK:
                self._out.append(frames.frame(kind, frames.ACK, 0, b""))
            elif kind in (frames.RST_STREAM, frames.GOAWAY):
                self._fail(f"{self.authority} does not take all calls")
            at = end
        del received[:at]
        self._flush()

    def _call(self) -> None:
        message = next(self._messages, None)
        if message is None:
            return
        block = self._encoder.encode(
            (
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", self._path),
                (b":authority", self.authority.encode()),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
            )
        )
        self._begun[self._number] = time.perf_counter()
        self._out.append(frames.headers(self._number, block, 0))
        self._out.append(frames.message_frame(self._number, message, frames.END_STREAM))
        self._number += 2

    def _flush(self) -> None:
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()
        if self._calling and not self._begun and not self.ended.done():
            self.ended.set_result(None)

    def _fail(self, why: str) -> None:
        if not self.ended.done():
            self.ended.set_exception(CallsFailed(why))
