"""A client at a socket, whose frames are written and read by hand."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress

import hpack

from connect_kv.http2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    frame,
    settings,
)
from tests.http2.wire import Frame, message, request


class Peer:
    """A socket whose frames are written and read by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._encoder = hpack.Encoder()
        self._next = 1

    @classmethod
    async def connect(cls, port: int, context: ssl.SSLContext | None = None, greet: bool = True) -> Peer:
        peer = cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context))
        if greet:
            peer.writer.write(PREFACE + settings({}))
        return peer

    def call(self, path: str = "/t.T/Echo", body: bytes = b"") -> bytes:
        """The bytes of a call."""
        number, self._next = self._next, self._next + 2
        block = self._encoder.encode(request(path=path.encode()))
        return frame(HEADERS, END_HEADERS, number, block) + frame(DATA, END_STREAM, number, message(body))

    async def frame(self) -> Frame | None:
        """The next one; None at the end."""
        try:
            head = await self.reader.readexactly(9)
            payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return None
        return Frame(head[3], head[4], int.from_bytes(head[5:9], "big"), payload)

    async def until(self, kind: int) -> Frame:
        async with asyncio.timeout(10):
            while (one := await self.frame()) is not None:
                if one.kind == kind:
                    return one
        raise AssertionError(f"closed without a frame {kind}")

    async def answer(self) -> None:
        """The end of a call."""
        while not (await self.until(HEADERS)).flags & END_STREAM:
            pass

    async def rest(self) -> list[Frame]:
        """Until the server closes."""
        found = []
        async with asyncio.timeout(10):
            while (one := await self.frame()) is not None:
                found.append(one)
        return found

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()
