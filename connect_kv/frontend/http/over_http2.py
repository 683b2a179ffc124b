"""Requests that come over HTTP/2, beside calls of gRPC on the clients' port: each is an exchange of its own.

What they ask for, and how it looks, is the same as over HTTP/1 (`site`, `gateway`); here is only how an
exchange reads and writes a stream. Many are under way on one connection, none waits for another.
"""

from __future__ import annotations

import asyncio
import logging
from functools import lru_cache
from typing import Final, cast

from connect_kv.frontend.http import heads
from connect_kv.frontend.http.connection import Direct, Handler, Take
from connect_kv.frontend.http.exchange import Crowded, Exchange, TooLarge
from connect_kv.frontend.http.server import HttpServer
from connect_kv.http2.calls import Call
from connect_kv.http2.frames import CANCEL, INTERNAL_ERROR, PROTOCOL_ERROR
from connect_kv.http2.hpack import literal
from connect_kv.http2.requests import BodyParts, RequestConnection

logger = logging.getLogger(__name__)

_TEXT: Final = heads.constant(heads.TEXT)
_NEVER: Final = float("inf")
_KNOWN_HEADS: Final = 256
_LONGEST_KNOWN: Final = 1024
"""Bytes of the lines of a head that is kept ready."""
_PSEUDO: Final = b":"


class Http2Requests:
    """Those of the clients' port."""

    def __init__(self, server: HttpServer, handler: Handler, direct: Direct, *, secure: bool) -> None:
        """`secure`: the port speaks TLS."""
        self._server = server
        self._handler = handler
        self._direct = direct
        self._secure = secure

    def begin(self, call: Call) -> None:
        """A request has come, perhaps without its body. Its connection is a `RequestConnection`."""
        Http2Request(self._server, call, self._handler, secure=self._secure).serve(self._direct)


class Http2Request:
    """One stream: the wire of one exchange."""

    def __init__(self, shared: HttpServer, call: Call, handler: Handler, *, secure: bool) -> None:
        self._shared = shared
        self._call = call
        self._connection = cast(RequestConnection, call.connection)  # who has requests has no others
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._take: Take | None = None
        """Waits for the body."""
        self._writable: asyncio.Future[None] | None = None
        self.due = _NEVER
        """When, by the loop's clock, whatever is waited for has taken too long."""
        said = dict(call.head.fields)
        authority = said.get(b":authority")
        headers = [] if authority is None else [(b"host", authority)]
        headers += [
            (name, value)
            for name, value in call.head.fields
            if name[:1] != _PSEUDO and not (name == b"host" and value == authority)
        ]
        self._exchange = Exchange(
            self,
            method=said[b":method"].decode("latin-1"),
            target=said[b":path"],
            headers=headers,
            minor=1,
            keep_alive=True,
            upgrade=False,
            secure=secure,
            peer=call.peer.address,
        )

    def serve(self, direct: Direct) -> None:
        """Answer it, now or later."""
        exchange, call = self._exchange, self._call
        call.notify = self._changed
        if not self._shared.opened(self):
            self._shared.too_many(call.peer.address)
            exchange.respond(503, _TEXT, b"503 too many connections")
        elif call.peer.refusal is not None:
            exchange.respond(403, _TEXT, f"{call.peer.refusal.text}\n".encode())
        else:
            if exchange.header(b"expect") == b"100-continue" and not call.ended:
                self._connection.go_on(call)
            self._take = direct(exchange)
            if self._take is None:
                self.run(exchange, self._handler)
            else:
                exchange.body.taken = exchange.body.hurried = True
                self.waits()
            self._changed()
            return
        self._closed()

    def _changed(self) -> None:
        """Something has come, may be sent, or the client has given up."""
        call, body = self._call, self._exchange.body
        if call.gone():
            self._gone()
            return
        for piece in self._connection.pieces(call):
            if body.ahead + len(piece) > self._shared.limits.body:
                body.fail(TooLarge())
                self._hand_over_late()
                break
            body.feed(piece)
            self._set_due()
        if isinstance(call.parts, BodyParts) and call.parts.refused:
            body.fail(Crowded())
            self._hand_over_late()
        elif call.ended and not body.complete:
            self._ended()
        else:
            self._connection.consumed(call)
        if self._writable is not None and not self._connection.backlog(call):
            self._wake()

    def _ended(self) -> None:
        """All of the body is there."""
        exchange = self._exchange
        told = exchange.header(b"content-length")
        if told is not None and told != b"%d" % exchange.body.size:
            self._abandon(PROTOCOL_ERROR)  # RFC 9113, 8.1.1
            return
        exchange.body.end()
        if self._take is not None:
            take, self._take = self._take, None
            self._not_waiting()
            exchange.direct = True
            take(exchange, exchange.body.now())

    def _hand_over_late(self) -> None:
        """To a task: somebody must say what is wrong with the body."""
        if self._take is not None:
            self._take = None
            self._not_waiting()
            self.run(self._exchange, self._handler)

    def _not_waiting(self) -> None:
        self._exchange.body.taken = self._exchange.body.hurried = False
        self.waits()

    def _gone(self) -> None:
        """Nobody waits for the answer any more."""
        self._exchange.gone = True
        self._call.notify = None
        self._exchange.body.drop()
        self._wake()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self._closed()

    def _closed(self) -> None:
        self.due = _NEVER
        self._shared.closed(self)

    def _wake(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # Serving.

    def run(self, exchange: Exchange, handler: Handler) -> None:
        """In a task."""
        self._task = self._loop.create_task(self._serve(handler))

    async def _serve(self, handler: Handler) -> None:
        exchange = self._exchange
        try:
            await handler(exchange)
        except asyncio.CancelledError:
            self.abort()
            return
        except Exception:
            logger.exception("a request failed", extra={"target": exchange.target.decode("latin-1")})
            if not exchange.begun:
                exchange.respond(500, _TEXT, b"Internal Server Error\n")
        if not exchange.done:
            self._abandon(INTERNAL_ERROR)
        self._closed()

    # What exchanges ask for.

    def waits(self) -> None:
        """Somebody waits for more of a body, or does so no more."""
        parts = self._call.parts
        if isinstance(parts, BodyParts):
            parts.wanted = self._exchange.body.taken
            self._connection.consumed(self._call)
        self._set_due()

    def taken(self, size: int) -> None:
        """So much of a body is held no more."""
        self._connection.taken(self._call, size)

    def respond(self, exchange: Exchange, status: int, fields: bytes, body: bytes) -> None:
        """A whole answer."""
        length = b"" if status == 304 else literal(b"content-length", b"%d" % len(body))
        self._connection.begin_answer(self._call, self._head(status, fields) + length)
        if exchange.method != "HEAD":
            self._connection.send_body(self._call, body)
        self._connection.end_answer(self._call)
        if exchange.direct:
            exchange.body.drop()
            self._closed()

    def begin(self, exchange: Exchange, status: int, fields: bytes) -> None:
        """The head of an answer in pieces."""
        self._connection.begin_answer(self._call, self._head(status, fields))

    async def send(self, exchange: Exchange, data: bytes) -> None:
        """One piece, which is frames of its own."""
        while self._connection.backlog(self._call) and not self._call.gone():
            self._writable = self._loop.create_future()
            self._set_due()
            try:
                await self._writable
            finally:
                self._writable = None
                self._set_due()
        if exchange.method != "HEAD":
            self._connection.send_body(self._call, data)

    def finish(self, exchange: Exchange) -> None:
        """End the answer."""
        self._connection.end_answer(self._call)

    def switch(self, exchange: Exchange, answer: bytes) -> None:
        """Nobody may: only what asked for another protocol is switched, and over HTTP/2 nothing can ask."""
        raise AssertionError("a stream of HTTP/2 stays one")

    def _head(self, status: int, fields: bytes) -> bytes:
        lines = self._exchange.always + fields
        block = _known_head(status, lines) if len(lines) <= _LONGEST_KNOWN else _head(status, lines)
        return block + _date(self._shared.clock.line())

    # Limits.

    def drain(self) -> None:
        """The server stops: the connection takes no more, this one has its answer."""

    def abort(self) -> None:
        """Give it up."""
        self._abandon(CANCEL)

    def look(self) -> None:
        """Who is at the other end, the connection looks at."""

    def overdue(self) -> None:
        """What is waited for has taken too long."""
        if self._exchange.begun:
            self._abandon(CANCEL)
            return
        self._take = None
        self._exchange.respond(408, _TEXT, b"408 Request Timeout")
        self._gone()

    def _abandon(self, code: int) -> None:
        self._call.notify = None
        self._connection.abandon(self._call, code)
        self._gone()

    def _set_due(self) -> None:
        limits, now = self._shared.limits, self._loop.time()
        if self._writable is not None:
            self.due = now + limits.unread_seconds
        else:
            self.due = now + limits.body_seconds if self._exchange.body.hurried else _NEVER


def _head(status: int, lines: bytes) -> bytes:
    """Lines of HTTP/1 as fields of HTTP/2: none of those that only HTTP/1 has is among them."""
    fields = [literal(b":status", b"%d" % status)]
    for line in lines.split(b"\r\n"):
        name, colon, value = line.partition(b": ")
        if colon:
            fields.append(literal(name.lower(), value))
    return b"".join(fields)


_known_head = lru_cache(_KNOWN_HEADS)(_head)


@lru_cache(1)
def _date(line: bytes) -> bytes:
    return literal(b"date", line.partition(b": ")[2].rstrip())
