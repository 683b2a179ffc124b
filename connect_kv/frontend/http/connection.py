"""One connection of HTTP/1: requests in order, one answer at a time.

The grammar is the library's (llhttp, as Node.js uses it). Here is what stands around it: how much of it is
read and held, for how long, and when the connection ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, cast

import httptools

from connect_kv.credentials import Credentials
from connect_kv.frontend.http import heads
from connect_kv.frontend.http.exchange import Crowded, Exchange, TooLarge
from connect_kv.frontend.http.limits import HttpLimits

logger = logging.getLogger(__name__)

Handler = Callable[[Exchange], Awaitable[None]]
Take = Callable[[Exchange, bytes], None]
"""Takes a request and its body, and answers it later with `Exchange.respond`: never within this call."""
Direct = Callable[[Exchange], Take | None]
"""Who takes such a request without a task, if anybody does."""

_SLICE = 8 << 10
"""Bytes that are parsed at a time: so many small requests fit into it, and no more are made at once."""
_AHEAD = 256 << 10
"""Bytes of a body that are read before anybody takes them."""
_NEVER = float("inf")
_OF_BODIES = (b"content-length", b"transfer-encoding")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Bounded(Protocol):
    """What counts among the connections of a server: a connection of HTTP/1, or a request over HTTP/2."""

    due: float
    """When, by the loop's clock, whatever is waited for has taken too long."""

    def overdue(self) -> None:
        """It has."""

    def look(self) -> None:
        """Whether whoever is there is still let in."""

    def drain(self) -> None:
        """The server stops: nothing more after what is being answered."""

    def abort(self) -> None:
        """The server has stopped: end now."""


class Shared(Protocol):
    """What all connections of a server share."""

    limits: HttpLimits
    clock: heads.DateLine
    held: int
    """Bytes of bodies that nobody has taken."""
    stopping: bool

    def opened(self, connection: Bounded) -> bool:
        """Note it; False if there are too many."""

    def too_many(self, address: str) -> None:
        """One from there was refused."""

    def closed(self, connection: Bounded) -> None:
        """It is over."""

    def strange(self, host: str, reason: str) -> None:
        """What came is no HTTP."""


class HttpConnection(asyncio.Protocol):
    """Made for each accepted socket; also for one whose first bytes somebody else has read."""

    def __init__(
        self,
        shared: Shared,
        handler: Handler,
        credentials: Credentials | None = None,
        direct: Direct | None = None,
    ) -> None:
        """`credentials`: of the port, if it speaks TLS; then whoever connected is looked at in a task."""
        self._shared = shared
        self._direct = direct if credentials is None else None
        self._take: Take | None = None
        """Waits for the body of the request that is being answered."""
        self._handler = handler
        self._credentials = credentials
        self._reloads = 0 if credentials is None else credentials.reloads
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._secure = False
        self._peer = ""
        self._parser: Any = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._uncounted = 0
        """Bytes that came since the parser last gave something to us."""
        self._in_head = False
        self._requests: deque[Exchange] = deque()
        """Not answered; the first is being answered."""
        self._incoming: Exchange | None = None
        """Whose body comes."""
        self._pending = b""
        """Read, and not parsed: too many requests wait, or one that wants another protocol."""
        self._upgrading = False
        self._resumed: Exchange | None = None
        """Whose head the parser is told again, for the sake of its body."""
        self._task: asyncio.Task[None] | None = None
        self._reading = True
        self._writable: asyncio.Future[None] | None = None
        self._ending = False
        """No more requests are taken."""
        self._switched: Exchange | None = None
        """Who speaks another protocol on this connection."""
        self._fault: tuple[int, str] | None = None
        """What is to be said once the requests before it are answered."""
        self.due = _NEVER
        """When, by the loop's clock, whatever is waited for has taken too long."""

    # The socket.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client speaks first."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's derives from nothing
        self._secure = transport.get_extra_info("ssl_object") is not None
        name = transport.get_extra_info("peername")
        self._peer = f"{name[0]}:{name[1]}" if isinstance(name, tuple) else ""
        self.due = self._loop.time() + self._shared.limits.head_seconds
        if not self._shared.opened(self):
            self._shared.too_many(self._peer)
            self._refuse(503, "too many connections")

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse it, unless requests that came before have to be answered first."""
        if self._ending:
            return
        if self._switched is not None:
            self.on_body(data)
            self._read_or_not()
            return
        self._pending = self._pending + data if self._pending else data
        if len(self._pending) <= _SLICE and not self._requests:
            data, self._pending = self._pending, b""
            self._feed(data)
            if not self._pending:
                return
        self._parse()

    def eof_received(self) -> bool:
        """Who only stops sending may want the answer that is due; for long, it has gone."""
        current = self._requests[0] if self._requests else None
        if current is None or self._secure or current.begun or not current.body.complete:
            return False
        self._ending = True
        current.keep_alive = False
        self._loop.call_later(self._shared.limits.linger_seconds, self._transport.abort)
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """Nobody waits for answers any more."""
        self._ending = True
        self.due = _NEVER
        self._shared.closed(self)
        self._pending = b""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        for request in self._requests:
            request.gone = True
            request.body.drop()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        """The client does not take what is sent."""
        self._writable = self._loop.create_future()
        self.due = self._loop.time() + self._shared.limits.unread_seconds

    def resume_writing(self) -> None:
        """It does again."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None
        self._set_due()

    # What comes.

    def _parse(self) -> None:
        """As much of what was read as may be."""
        while self._pending and not self._upgrading and not self._ending and self._fault is None:
            if len(self._requests) >= self._shared.limits.pipelined:
                break
            data, self._pending = self._pending[:_SLICE], self._pending[_SLICE:]
            self._feed(data)
        self._read_or_not()

    def _feed(self, data: bytes) -> None:
        self._uncounted += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._pending = data[upgrade.args[0] :] + self._pending
            self._upgrade()
        except httptools.HttpParserError as error:
            self._broken(error)
            return
        if self._uncounted > self._shared.limits.head:
            self._fail(431, "Request Header Fields Too Large")

    def _upgrade(self) -> None:
        """The parser has stopped behind the head of the last request. WebSocket may follow; else HTTP/1 goes
        on, with the body of that request (Java's client asks for h2c with every POST).
        """
        exchange = self._requests[-1]
        if exchange.upgrade:
            self._upgrading = True
            return
        self._parser = httptools.HttpRequestParser(self)
        sizes = [(name, value) for name, value in exchange.headers if name in _OF_BODIES]
        if sizes:
            exchange.body.reopen()
            self._resumed = exchange
            lines = b"".join(b"%b: %b\r\n" % one for one in sizes)
            self._parser.feed_data(b"POST / HTTP/1.1\r\n" + lines + b"\r\n")

    def on_message_begin(self) -> None:
        """Of the parser: a first line begins."""
        self._target, self._headers, self._in_head = b"", [], True
        if not self._requests:
            self.due = self._loop.time() + self._shared.limits.head_seconds

    def on_url(self, url: bytes) -> None:
        """Of the parser."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of the parser; trailers, too, which nobody reads."""
        if self._in_head:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Of the parser: a request can be served; its body may be still to come."""
        parser = self._parser
        self._in_head, self._uncounted = False, 0
        if self._resumed is not None:
            self._incoming, self._resumed = self._resumed, None
            return
        method, version = parser.get_method().decode(), parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise ValueError(version)  # the parser passes it on as an error of its own
        websocket = parser.should_upgrade() and method == "GET" and _asks_for_websocket(self._headers)
        exchange = Exchange(
            self,
            method=method,
            target=self._target,
            headers=self._headers,
            minor=0 if version == "1.0" else 1,
            keep_alive=parser.should_keep_alive() and not self._shared.stopping,
            upgrade=websocket,
            secure=self._secure,
            peer=self._peer,
        )
        self._incoming = exchange
        self._requests.append(exchange)
        if len(self._requests) == 1:
            self._serve_next()

    def on_body(self, data: bytes) -> None:
        """Of the parser: a piece of the body."""
        self._uncounted = 0
        exchange = self._incoming
        assert exchange is not None
        body, shared = exchange.body, self._shared
        if exchange.done:
            return
        if body.ahead + len(data) > shared.limits.body:
            body.fail(TooLarge())
            self._hand_over_late()
            return
        if shared.held + len(data) > shared.limits.held:
            body.fail(Crowded())
            self._hand_over_late()
            return
        shared.held += len(data)
        body.feed(data)
        if body.hurried:
            self._set_due()

    def on_message_complete(self) -> None:
        """Of the parser: the body is there."""
        self._uncounted = 0
        if self._incoming is not None:
            exchange, self._incoming = self._incoming, None
            exchange.body.end()
            if self._take is not None and exchange is self._requests[0]:
                self._hand_over(exchange, self._take)

    def _broken(self, error: Exception) -> None:
        text = str(error)
        reason = "gRPC: clients have another address" if "HTTP/2" in text or "PRI" in text else text
        self._shared.strange(self._peer.rpartition(":")[0] or "unknown", reason)
        self._fail(400, "Bad Request")

    def _fail(self, status: int, reason: str) -> None:
        """What follows cannot be read; who asked before is answered first."""
        self._pending = b""
        if self._requests and self._incoming is None:
            self._fault = status, reason
        else:
            self._refuse(status, reason)

    def _refuse(self, status: int, reason: str) -> None:
        """Say so, and close; what is being answered is broken off."""
        text = f"{status} {reason}".encode()
        current = self._requests[0] if self._requests else None
        if current is None or not current.begun:
            ending = b"Content-Length: %d\r\nConnection: close\r\n" % len(text)
            fields = heads.constant(heads.TEXT)
            self._transport.write(heads.head(status, fields, 1, self._shared.clock.line(), ending) + text)
        self._end(linger=True)
        if self._task is not None:
            self._task.cancel()

    # Serving.

    def _serve_next(self) -> None:
        exchange = self._requests[0]
        if exchange.minor and b"expect" in (name for name, _ in exchange.headers):
            self._expected(exchange)
        self.due = _NEVER
        take = None if self._direct is None else self._direct(exchange)
        if take is None:
            self.run(exchange, self._handler)
        elif exchange.body.complete:
            self._hand_over(exchange, take)
        else:
            self._take = take
            exchange.body.taken = exchange.body.hurried = True
            self._set_due()

    def run(self, exchange: Exchange, handler: Handler) -> None:
        """In a task."""
        self._task = self._loop.create_task(self._serve(exchange, handler))

    def _hand_over(self, exchange: Exchange, take: Take) -> None:
        self._take = None
        exchange.body.taken = exchange.body.hurried = False
        self.due = _NEVER
        try:
            body = exchange.body.now()
        except (TooLarge, Crowded):
            self.run(exchange, self._handler)
            return
        exchange.direct = True
        take(exchange, body)

    def _hand_over_late(self) -> None:
        """To a task: somebody must say what is wrong with the body."""
        if self._take is not None and self._incoming is self._requests[0]:
            self._take = None
            self._requests[0].body.taken = self._requests[0].body.hurried = False
            self.run(self._requests[0], self._handler)

    def _expected(self, exchange: Exchange) -> None:
        """Whoever asks whether to send its body is told to."""
        said = exchange.header(b"expect") or b""
        if said.lower() == b"100-continue" and not exchange.body.size and not exchange.body.complete:
            self._transport.write(_CONTINUE)

    async def _serve(self, exchange: Exchange, handler: Handler) -> None:
        try:
            if self._credentials is not None and (refusal := self._credentials.refusal(self._certificate())):
                exchange.respond(403, heads.constant(heads.TEXT), f"{refusal}\n".encode())
            else:
                await handler(exchange)
        except asyncio.CancelledError:
            if not self._ending:
                self._transport.abort()
            return
        except Exception:
            logger.exception("a request failed", extra={"target": exchange.target.decode("latin-1")})
            if exchange.begun:
                self._transport.abort()
                return
            exchange.keep_alive = False
            exchange.respond(500, heads.constant(heads.TEXT), b"Internal Server Error\n")
        if not exchange.done:
            self._transport.abort()  # an answer without an end must not look like a whole one
            return
        self._answered(exchange)

    def _certificate(self) -> bytes | None:
        """What the client showed; the handshake has verified the chain."""
        found = self._transport.get_extra_info("ssl_object")
        shown: bytes | None = None if found is None else found.getpeercert(True)
        return shown

    def _answered(self, exchange: Exchange) -> None:
        self._task = None
        exchange.body.drop()
        self._requests.popleft()
        if self._ending or not exchange.keep_alive:
            self._end(linger=self._incoming is not None or bool(self._requests))
            return
        if not self._requests and self._fault is not None:
            self._refuse(*self._fault)
            return
        if exchange.upgrade:  # was not taken up: what follows is HTTP/1 as before
            self._upgrading = False
            self._parser = httptools.HttpRequestParser(self)
        if self._requests:
            self._serve_next()
        else:
            self._set_due()
        if self._pending or not self._reading:
            self._parse()

    def _end(self, *, linger: bool) -> None:
        """Close. `linger`: the client still sends; it must have read what was sent to it before a socket is
        closed with unread bytes, which takes it all back.
        """
        transport = self._transport
        if transport.is_closing():
            return
        self._ending = True
        self._pending = b""
        self.due = _NEVER
        if not linger or not transport.can_write_eof():
            transport.close()
            return
        transport.write_eof()
        transport.resume_reading()
        self._loop.call_later(self._shared.limits.linger_seconds, transport.abort)

    # What exchanges ask for.

    def waits(self) -> None:
        """Somebody waits for more of a body, or does so no more."""
        self._set_due()
        self._read_or_not()

    def taken(self, size: int) -> None:
        """So much of a body is held no more."""
        self._shared.held -= size
        if not self._reading:
            self._read_or_not()

    def respond(self, exchange: Exchange, status: int, fields: bytes, body: bytes) -> None:
        """A whole answer in one write."""
        size = b"" if status == 304 else b"Content-Length: %d\r\n" % len(body)  # RFC 9110, section 8.6
        ending = size + self._connection(exchange)
        date = self._shared.clock.line()
        head = heads.head(status, exchange.always + fields, exchange.minor, date, ending)
        self._transport.write(head if exchange.method == "HEAD" else head + body)
        if exchange.direct:
            self._answered(exchange)

    def begin(self, exchange: Exchange, status: int, fields: bytes) -> None:
        """The head of an answer in pieces."""
        if exchange.minor:
            ending = b"Transfer-Encoding: chunked\r\n" + self._connection(exchange)
        else:
            exchange.keep_alive = False  # the end of the connection is that of the answer
            ending = b"Connection: close\r\n"
        date = self._shared.clock.line()
        self._transport.write(heads.head(status, exchange.always + fields, exchange.minor, date, ending))

    async def send(self, exchange: Exchange, data: bytes) -> None:
        """One chunk."""
        if self._writable is not None:
            await self._writable
        if not data or exchange.method == "HEAD" or self._transport.is_closing():
            return  # who has gone is told nothing; this task is cancelled soon
        chunked = exchange.minor and self._switched is None
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)

    def finish(self, exchange: Exchange) -> None:
        """End the answer: the chunk without bytes."""
        if exchange.minor and exchange.method != "HEAD" and self._switched is None:
            self._transport.write(b"0\r\n\r\n")

    def switch(self, exchange: Exchange, answer: bytes) -> None:
        """Another protocol, which begins with what the client has sent already."""
        self._switched = self._incoming = exchange
        self.due = _NEVER
        pending, self._pending = self._pending, b""
        self._transport.write(answer)
        if pending:
            self.on_body(pending)
        self._read_or_not()

    def _connection(self, exchange: Exchange) -> bytes:
        if not exchange.body.complete or self._shared.stopping:
            exchange.keep_alive = False  # what is left of the body will not be read
        if not exchange.keep_alive:
            return b"Connection: close\r\n"
        return b"" if exchange.minor else b"Connection: keep-alive\r\n"

    # Limits.

    def drain(self) -> None:
        """The server stops: no more requests after the one that is being answered."""
        if not self._requests and not self._transport.is_closing():
            self._ending = True
            self._transport.close()

    def look(self) -> None:
        """Whoever was let in may be revoked, once the files have changed; requests are looked at one by one,
        and one that goes on for long ends.
        """
        if self._credentials is None or self._credentials.reloads == self._reloads:
            return
        self._reloads = self._credentials.reloads
        if self._requests and self._credentials.refusal(self._certificate()):
            self._transport.abort()

    def overdue(self) -> None:
        """What is waited for has taken too long."""
        self.due = _NEVER
        if self._writable is None and (self._in_head or (self._requests and self._requests[0].body.hurried)):
            self._refuse(408, "Request Timeout")
        else:
            self._transport.abort()

    def _set_due(self) -> None:
        if self._writable is not None or self._ending:
            return
        limits, now = self._shared.limits, self._loop.time()
        if self._requests:
            self.due = now + limits.body_seconds if self._requests[0].body.hurried else _NEVER
        else:
            self.due = now + (limits.head_seconds if self._in_head else limits.idle_seconds)

    def _read_or_not(self) -> None:
        """Whoever sends more than is taken waits."""
        if self._ending or self._transport.is_closing():
            return
        incoming = self._incoming
        ahead = incoming is not None and incoming.body.ahead > _AHEAD and not incoming.body.taken
        wanted = not self._pending and not ahead
        if wanted and not self._reading:
            self._reading = True
            self._transport.resume_reading()
        elif not wanted and self._reading:
            self._reading = False
            self._transport.pause_reading()


def _asks_for_websocket(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(name == b"upgrade" and value.lower() == b"websocket" for name, value in headers)
