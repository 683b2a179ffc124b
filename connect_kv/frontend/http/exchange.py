"""One request and its answer, as a handler sees them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case."""


class TooLarge(Exception):
    """The body is over the limit of one request."""


class Crowded(Exception):
    """The bodies of all requests together are over their limit."""


class Body:
    """What comes with a request, piece by piece."""

    __slots__ = (
        "_ahead",
        "_connection",
        "_failed",
        "_pieces",
        "_waiter",
        "complete",
        "hurried",
        "size",
        "taken",
    )

    def __init__(self, connection: ExchangeWire) -> None:
        self._connection = connection
        self._pieces: deque[bytes] = deque()
        self._ahead = 0
        self._waiter: asyncio.Future[None] | None = None
        self._failed: Exception | None = None
        self.complete = False
        """Whether all of it has come."""
        self.size = 0
        """Bytes of the body that have come."""
        self.taken = False
        """Whether somebody waits for more of it."""
        self.hurried = False
        """Whether it must come soon then."""

    @property
    def ahead(self) -> int:
        """Bytes that nobody has taken."""
        return self._ahead

    def feed(self, data: bytes) -> None:
        """More of the body has come."""
        self._pieces.append(data)
        self._ahead += len(data)
        self.size += len(data)
        self._wake()

    def reopen(self) -> None:
        """It has not ended after all, and nobody has looked at it yet."""
        self.complete = False

    def end(self) -> None:
        """All of the body has come."""
        self.complete = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """Nothing more of the body will come, and why; whoever reads hears of it."""
        self._failed = error
        self._wake()

    async def read(self) -> bytes | None:
        """What has come since; waits for something. None after the end. Raises TooLarge, Crowded."""
        while not self._pieces or self._failed is not None:
            if self._failed is not None:
                raise self._failed
            if self.complete:
                return None
            await self._more(patient=True)
        found = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self.drop()
        return found

    def now(self) -> bytes:
        """All of it, once it is complete. Raises TooLarge, Crowded."""
        if self._failed is not None:
            raise self._failed
        found = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self.drop()
        return found

    async def whole(self) -> bytes:
        """All of it, once it has come. Raises TooLarge, Crowded."""
        while not self.complete and self._failed is None:
            await self._more(patient=False)
        if self._failed is not None:  # then what has come is not all, also when its end has come
            raise self._failed
        return await self.read() or b""

    def drop(self) -> None:
        """What has come is held no more."""
        size, self._ahead = self._ahead, 0
        self._pieces.clear()
        if size:
            self._connection.taken(size)

    async def _more(self, *, patient: bool) -> None:
        """`patient`: a stream of requests has no pace of its own."""
        self.taken = True
        self.hurried = not patient
        self._waiter = asyncio.get_running_loop().create_future()
        self._connection.waits()
        try:
            await self._waiter
        finally:
            self._waiter = None
            self.taken = self.hurried = False
            self._connection.waits()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class ExchangeWire(Protocol):
    """What an exchange needs of its connection."""

    def waits(self) -> None:
        """Somebody waits for more of a body, or does so no more."""

    def taken(self, size: int) -> None:
        """So many bytes of a body were taken."""

    def respond(self, exchange: Exchange, status: int, fields: bytes, body: bytes) -> None:
        """Write a whole answer."""

    def begin(self, exchange: Exchange, status: int, fields: bytes) -> None:
        """Write the head of an answer whose length is not known."""

    async def send(self, exchange: Exchange, data: bytes) -> None:
        """Write a piece of it, once the client takes what was sent before."""

    def finish(self, exchange: Exchange) -> None:
        """The answer is over."""

    def switch(self, exchange: Exchange, answer: bytes) -> None:
        """Speak another protocol from now on, after writing `answer`."""

    def run(self, exchange: Exchange, handler: Callable[[Exchange], Awaitable[None]]) -> None:
        """Answer it in a task."""


class Exchange:
    """A request, and the means to answer it once: with `respond`, or `begin`, `send` and `finish`."""

    __slots__ = (
        "_wire",
        "always",
        "begun",
        "body",
        "direct",
        "done",
        "gone",
        "headers",
        "keep_alive",
        "method",
        "minor",
        "peer",
        "secure",
        "target",
        "upgrade",
    )

    def __init__(
        self,
        wire: ExchangeWire,
        *,
        method: str,
        target: bytes,
        headers: Headers,
        minor: int,
        keep_alive: bool,
        upgrade: bool,
        secure: bool,
        peer: str,
    ) -> None:
        """`target`: as the first line has it; `minor`: of HTTP/1;
        `upgrade`: to WebSocket; `secure`: it came over TLS;
        `peer`: the client's ``host:port``.
        """
        self._wire = wire
        self.method = method
        self.target = target
        self.headers = headers
        self.minor = minor
        self.keep_alive = keep_alive
        self.upgrade = upgrade
        self.secure = secure
        self.peer = peer
        self.body = Body(wire)
        self.always = b""
        """Lines of fields of any answer to this request."""
        self.begun = False
        self.done = False
        self.direct = False
        """It is answered without a task: `respond` is the end of it."""
        self.gone = False
        """The client has gone."""

    def header(self, name: bytes) -> bytes | None:
        """The value of the first header field of that name, which is in lower case; None without one."""
        for one, value in self.headers:
            if one == name:
                return value
        return None

    def respond(self, status: int, fields: bytes, body: bytes = b"") -> None:
        """Answer, as a whole. `fields`: lines; those of length, date and connection are added."""
        self.begun = self.done = True
        self._wire.respond(self, status, fields, body)

    def begin(self, status: int, fields: bytes) -> None:
        """Begin an answer of pieces."""
        self.begun = True
        self._wire.begin(self, status, fields)

    async def send(self, data: bytes) -> None:
        """A piece, at once; over HTTP/1.1 one chunk. Waits while the client takes nothing."""
        await self._wire.send(self, data)

    def finish(self) -> None:
        """No more pieces."""
        self.done = True
        self._wire.finish(self)

    def run(self, handler: Callable[[Exchange], Awaitable[None]]) -> None:
        """Answer it in a task after all."""
        self.direct = False
        self._wire.run(self, handler)

    def switch(self, answer: bytes) -> None:
        """After `answer` the connection speaks another protocol: `body` is all that the client sends from now
        on, `send` writes bytes as they are, `finish` closes.
        """
        self.begun = True
        self.keep_alive = False
        self.body = Body(self._wire)
        self._wire.switch(self, answer)
