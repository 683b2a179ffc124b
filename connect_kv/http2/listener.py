"""Listening sockets under asyncio. All calls that come in one turn of the loop are handed over together,
and all frames of a turn leave with one write for each connection.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import Final, cast

from connect_kv.http2 import frames, sockets
from connect_kv.http2.arrivals import Arrivals
from connect_kv.http2.calls import Call, Limited, Peer, Route, ServerTurn
from connect_kv.http2.frames import PREFACE
from connect_kv.http2.handshakes import TlsHandshakes
from connect_kv.http2.limits import Limits
from connect_kv.http2.metadata import INTERNAL, RESOURCE_EXHAUSTED, Metadata
from connect_kv.http2.requests import RequestConnection
from connect_kv.http2.server import ServerConnection
from connect_kv.http2.tasks import Handle, Serve, Tasks

logger = logging.getLogger(__name__)

Batch = Callable[[list[Call]], None]
"""Takes all calls of one method that came in a turn. It answers each with ``reply`` or ``fail``, at once or
later. When it raises, those without an answer fail."""

ALPN: Final = ["h2", "http/1.1"]
"""What an ssl.SSLContext of such a server must offer: without h2 C core refuses it."""
_TLS_RECORD: Final = b"\x16"
"""As every handshake of TLS begins."""
_TELL_AGAIN_SECONDS: Final = 60.0
_LINGER: Final = 1.0
"""Seconds that a client has to read the last GOAWAY and close."""


class Http2Server:
    """What all connections share. Use it in the loop that was running when it was made."""

    def __init__(
        self,
        unary: Mapping[str, Batch],
        tasks: Mapping[str, Handle] | None = None,
        streams: Mapping[str, Serve] | None = None,
        *,
        limits: Limits | None = None,
        http1: Callable[[], asyncio.Protocol] | None = None,
        meet: Callable[[Peer], Peer] | None = None,
        more: Callable[[Call], Metadata] | None = None,
        refuse: Mapping[str, Callable[[Call], None]] | None = None,
        waiting: Collection[str] = (),
        requests: Callable[[Call], None] | None = None,
        limited: Limited | None = None,
    ) -> None:
        """Methods by their full name, ``/package.Service/Method``.

        `http1` makes a protocol for a connection that does not begin like HTTP/2: it gets the connection with
        the bytes that were read, and whoever made it closes it. `meet` is shown each client that connects,
        and says what is to be known of it; `more` what is added to the metadata of its calls. `refuse`, by
        method, answers a call of which there are too many (`Limits.served`). Unary calls of `waiting` wait
        for others, and are not counted. `requests` is given each request that is no call of gRPC, on a
        `RequestConnection`; without it they are told 415. `limited` is told of calls and connections that are
        refused because they are too much, before a handler sees them.
        """
        self.limits = limits or Limits()
        self.http1 = http1
        self.loop = asyncio.get_running_loop()
        self._tasks = Tasks(self.flush_soon, self.flush)
        routes: dict[bytes, Route] = {}
        self._batches: dict[Route, Batch] = {}
        for name, batch in unary.items():
            route = routes[name.encode()] = Route(name.encode())
            self._batches[route] = batch
        for name, handle in (tasks or {}).items():
            route = routes[name.encode()] = Route(name.encode())
            self._batches[route] = partial(self._tasks.answer_each, handle)
        for name, serve in (streams or {}).items():
            routes[name.encode()] = Route(name.encode(), partial(self._tasks.serve, serve))
        for name, refusing in (refuse or {}).items():
            routes[name.encode()].refuse = refusing
        for name in waiting:
            routes[name.encode()].waits = True
        self.turn = ServerTurn(routes, None if requests is None else Route(b"", requests))
        self.turn.wake = self._woken
        if more is not None:
            self.turn.more = more
        if limited is not None:
            self.turn.limited = limited
        self.in_turn = False
        """What is to be written is written without being asked for."""
        self.meet = meet
        self.sockets: set[_Socket] = set()
        self.arrivals = Arrivals(self.limits.arrivals)
        self.refused_connections = 0
        """For there were too many."""
        self._handshakes: TlsHandshakes | None = None
        self.unanswered = 0
        """Unary calls of all connections."""
        self.full = False
        """Whether nothing is read for now."""
        self.stopping = False
        self._bound: list[socket.socket] = []
        self._listening: list[asyncio.Server] = []
        self._handing_over = self._flushing = False
        self._all_closed = asyncio.Event()
        self._tell_tls_at = 0.0

    async def listen(self, host: str, port: int, context: ssl.SSLContext | None = None) -> int:
        """Accept connections; returns the port. `context`: with TLS, see `ALPN`. Raises OSError."""
        port = await self.bind(host, port)
        await self.start(context)
        return port

    async def bind(self, host: str, port: int) -> int:
        """Take the address; returns the port. Whoever connects waits for `start`. Raises OSError."""
        self._bound += await sockets.bind(host, port)
        return int(self._bound[0].getsockname()[1])

    async def start(self, context: ssl.SSLContext | None = None) -> None:
        """Accept connections at all addresses that were bound. `context`: with TLS, see `ALPN`."""
        if context is not None:
            self._handshakes = TlsHandshakes(
                context, self.arrivals, self.limits.handshake, self.protocol, self.made_room
            )
        while self._bound:
            bound = self._bound.pop()
            if self._handshakes is not None:
                self._handshakes.listen(bound)
            else:
                server = await self.loop.create_server(self.protocol, sock=bound, backlog=sockets.BACKLOG)
                self._listening.append(server)

    def tls_came(self, address: str) -> None:
        """To a port that does not speak it: one line, at most once a minute."""
        if self.loop.time() >= self._tell_tls_at:
            self._tell_tls_at = self.loop.time() + _TELL_AGAIN_SECONDS
            logger.warning("TLS came to a port that does not speak it", extra={"peer": address})

    def protocol(self) -> asyncio.Protocol:
        """For one accepted socket, or behind its handshake."""
        return _Socket(self)

    def made_room(self, address: str) -> None:
        """A connection from there was closed before it had shown who it is, so that others get a place."""
        self.turn.limited(address, b"", RESOURCE_EXHAUSTED, "closed to make room: it had not shown who it is")

    def meet_again(self) -> None:
        """Show `meet` everybody who is connected once more: whoever is refused by now is told and goes, with
        all streams.
        """
        for one in list(self.sockets):
            one.meet_again()
        self.flush()

    # Turns.

    def hand_over_soon(self) -> None:
        """Calls are ready; those that come in this turn on other connections go with them."""
        if not self._handing_over:
            self._handing_over = True
            self.loop.call_soon(self._hand_over)

    def _woken(self) -> None:
        if not self.in_turn:
            self.flush_soon()

    def _hand_over(self) -> None:
        self._handing_over, self.in_turn = False, True
        excess = self.unanswered - self.limits.served
        for route, calls in self.turn.take():
            if excess > 0 and route.refuse is not None:
                for call in calls[-excess:]:
                    route.refuse(call)
                calls, excess = calls[:-excess], excess - len(calls)
                if not calls:
                    continue
            try:
                self._batches[route](calls)
            except Exception as error:
                logger.exception("a batch of calls failed", extra={"method": route.path.decode("latin-1")})
                for call in calls:
                    call.fail(INTERNAL, f"{type(error).__name__}: {error}")
        self.in_turn = False
        self.flush()

    def flush_soon(self) -> None:
        """Write, once what is under way now has added to it."""
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what waits, on connections where something does."""
        self._flushing = False
        dirty, self.turn.dirty = self.turn.dirty, []
        for core in dirty:
            core.owner.write()
        if self.turn.dirty:
            self.flush_soon()
        if self.unanswered > self.limits.unanswered if not self.full else self._room_again():
            self.full = not self.full
            for one in self.sockets:
                one.read_or_not()

    def _room_again(self) -> bool:
        return self.unanswered <= self.limits.unanswered * 3 // 4

    # The end.

    async def stop(self, grace: float) -> None:
        """Take no new connections and calls, give the calls under way `grace` seconds, close. Clients are
        told in two steps, so that none has a call that this server has not looked at.
        """
        self.stopping = True
        for bound in self._bound:
            bound.close()
        for server in self._listening:
            server.close()
        if self._handshakes is not None:
            await self._handshakes.stop()
        for one in list(self.sockets):
            one.drain()
        self.flush()
        await self._until_closed(grace)
        await self._tasks.cancel()
        for one in list(self.sockets):
            one.end("the server stops")
        self.flush()
        await self._until_closed(2 * _LINGER)  # each is aborted after one
        if self.sockets:
            logger.error("connections were not closed", extra={"count": len(self.sockets)})

    async def _until_closed(self, seconds: float) -> None:
        if not self.sockets:
            return
        self._all_closed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._all_closed.wait()

    def closed(self, one: _Socket) -> None:
        """A connection is over."""
        self.sockets.discard(one)
        self.arrivals.settled(one)
        if not self.sockets:
            self._all_closed.set()


class _Socket(asyncio.Protocol):
    """One accepted connection."""

    def __init__(self, server: Http2Server) -> None:
        self._server = server
        self._core: ServerConnection | None = None
        """None until it is clear that the client speaks HTTP/2."""
        self._transport: asyncio.Transport
        self._begun = b""
        self._counted = 0
        self._known = False
        """Whether the client's SETTINGS have come."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client must speak first; a client of HTTP/2 waits for our settings, though."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's derives from nothing
        server = self._server
        crowded = len(server.sockets) >= server.limits.connections
        server.sockets.add(self)
        server.arrivals.add(self, self._make_room)
        tls = transport.get_extra_info("ssl_object")
        chosen = tls.selected_alpn_protocol() if tls is not None else None
        if crowded:
            server.refused_connections += 1
            core = self._start()
            server.turn.limited(core.peer.address, b"", RESOURCE_EXHAUSTED, "too many connections")
            core.end(frames.NO_ERROR, "too many connections")
        elif chosen == "h2" or server.http1 is None:
            self._start()
        elif chosen == "http/1.1":
            self._hand_over_http1(b"")
        else:
            self._schedule(server.loop.time() + server.limits.handshake)
        if server.stopping:
            self.drain()
        server.flush()

    def _make_room(self) -> None:
        self._server.made_room(sockets.address(self._transport.get_extra_info("peername")))
        self._transport.abort()

    def _start(self) -> ServerConnection:
        server, transport = self._server, self._transport
        tls = transport.get_extra_info("ssl_object")
        address = sockets.address(transport.get_extra_info("peername"))
        peer = Peer(address, None if tls is None else tls.getpeercert(True))
        if server.meet is not None:
            peer = server.meet(peer)
        kind = ServerConnection if server.turn.requests is None else RequestConnection
        core = kind(server.turn, server.limits, server.loop.time(), peer)
        core.owner, self._core = self, core
        if server.full:
            self.read_or_not()
        self._schedule(core.next_time())
        return core

    def meet_again(self) -> None:
        """It may be one that is no longer let in."""
        core, meet = self._core, self._server.meet
        if core is None or core.closing or meet is None or core.peer.refusal is not None:
            return
        refusal = meet(Peer(core.peer.address, core.peer.certificate)).refusal
        if refusal is not None:
            core.end(frames.NO_ERROR, refusal.text)

    def _hand_over_http1(self, data: bytes) -> None:
        assert self._server.http1 is not None
        protocol = self._server.http1()
        self._cancel_timer()
        self._server.closed(self)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        if data:
            protocol.data_received(data)

    def data_received(self, data: bytes) -> None:
        """Calls wait for the others of this turn; all else is answered at once."""
        server, core = self._server, self._core
        if core is None:
            data = self._begun + data
            self._begun = data
            ours = PREFACE.startswith(data[: len(PREFACE)])
            if not ours and b"A" <= data[:1] <= b"Z":  # as all methods of HTTP/1.1 begin
                self._hand_over_http1(data)
                return
            if ours and len(data) < 4:  # the beginning of a method of HTTP/1.1, for all we know
                return
            core = self._start()  # who speaks neither is told what is spoken
            if data[:1] == _TLS_RECORD:
                server.tls_came(core.peer.address)
        server.in_turn = True
        try:
            core.receive(data, server.loop.time())
        except Exception:
            logger.exception("a connection failed", extra={"peer": core.peer.address})
            core.end(frames.INTERNAL_ERROR, "internal error")
        server.in_turn = False
        if not self._known and core.life.greeted:
            self._known = True
            server.arrivals.settled(self)
        self._count()
        if core.soonest < self._timer_at:
            self._schedule(core.soonest)
        if server.turn.ready:
            server.hand_over_soon()
        elif core.out:
            server.flush()
        elif core.done:
            self.write()

    def _count(self) -> None:
        core = self._core
        assert core is not None
        count = len(core.streams) - core.long_calls
        self._server.unanswered += count - self._counted
        self._counted = count

    def write(self) -> None:
        """Write what waits, unless the socket takes no more."""
        core = self._core
        assert core is not None
        self._count()
        out = core.out
        if self._closing:  # its last words were spoken
            out.clear()
            return
        if out and (not core.paused or core.closing):
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            self._transport.write(data)
            core.written()
        if (core.closing or core.done) and not out:
            self._close()

    def _close(self) -> None:
        """Close so that the client still reads what was sent: a socket closed with unread bytes takes it all
        back.
        """
        if self._closing:
            return
        self._closing = True
        self._cancel_timer()
        transport = self._transport
        if transport.is_closing():
            pass  # the client was faster, or the network
        elif transport.can_write_eof():
            try:
                transport.write_eof()
            except OSError:  # reset meanwhile, which the loop has yet to tell
                transport.abort()
            else:
                transport.resume_reading()
        else:
            transport.close()
        self._timer = self._server.loop.call_later(_LINGER, transport.abort)

    def drain(self) -> None:
        """Take no new calls, and close after the last answer."""
        if self._core is None:
            self._transport.abort()
        else:
            self._core.now = self._server.loop.time()
            self._core.drain()
            self._schedule(self._core.next_time())

    def end(self, reason: str) -> None:
        """Close now."""
        if self._core is None:
            self._transport.abort()
        else:
            self._core.end(frames.NO_ERROR, reason)
            self.write()

    # Time.

    def _schedule(self, at: float) -> None:
        if self._closing:
            return
        self._cancel_timer()
        self._timer_at = at
        self._timer = self._server.loop.call_at(at, self._tick)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        core = self._core
        if core is None:
            self._transport.abort()
            return
        # Timers fire up to a tick of the loop's clock early: what is due then is due now.
        core.tick(max(self._server.loop.time(), self._timer_at))
        if not core.closing:
            self._schedule(core.next_time())
        self._server.flush()

    # The socket.

    def pause_writing(self) -> None:
        """Whoever does not take answers asks no more questions either."""
        if self._core is not None:
            self._core.pause(self._server.loop.time())
            self.read_or_not()
            self._schedule(self._core.next_time())

    def resume_writing(self) -> None:
        """What was written has left, for the most part."""
        if self._core is not None:
            self._core.resume()
            self.read_or_not()
            self.write()
            self._server.flush_soon()

    def read_or_not(self) -> None:
        """As the server and this socket say."""
        core = self._core
        if core is None or self._closing or self._transport.is_closing():
            return
        if core.paused or self._server.full:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """All its calls are over."""
        self._closing = True
        self._cancel_timer()
        if self._core is not None:
            self._core.lost("the connection was lost")
            self._count()
        self._server.closed(self)
