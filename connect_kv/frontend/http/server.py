"""HTTP/1 for clients: what all connections share, whoever accepted them."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Sequence
from functools import partial

from connect_kv.credentials import Credentials
from connect_kv.etcd_errors import Code
from connect_kv.frontend.http.connection import Bounded, Direct, Handler, HttpConnection
from connect_kv.frontend.http.heads import DateLine
from connect_kv.frontend.http.limits import HttpLimits, Limited, nobody_is_told

logger = logging.getLogger(__name__)

_TELL_AGAIN_SECONDS = 60.0
_TOLD_HOSTS = 1000
_SWEEPS = 5
"""Looks for what takes too long, within the shortest of the times that are allowed."""
_LONGEST_SWEEP = 5.0
_BACKLOG = 1024
_GRACE_SECONDS = 1.0


class HttpServer:
    """Use it in the loop that was running when it was made."""

    def __init__(self, limits: HttpLimits | None = None, limited: Limited | None = None) -> None:
        """`limited` is told of connections that are refused for there are too many."""
        self._limited = limited or nobody_is_told
        self.limits = limits or HttpLimits()
        self.clock = DateLine()
        self.held = 0
        self.stopping = False
        self._loop = asyncio.get_running_loop()
        self._connections: dict[Bounded, None] = {}
        self._servers: list[asyncio.Server] = []
        self._told: dict[str, float] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._all_closed = asyncio.Event()

    def protocol(
        self, handler: Handler, credentials: Credentials | None = None, direct: Direct | None = None
    ) -> asyncio.Protocol:
        """For one accepted connection; `credentials`: of its port, if that speaks TLS."""
        return HttpConnection(self, handler, credentials, direct)

    async def listen(
        self,
        sockets: Sequence[socket.socket],
        handler: Handler,
        credentials: Credentials | None = None,
        direct: Direct | None = None,
    ) -> None:
        """Accept what comes to these, with TLS if there are credentials."""
        context = None if credentials is None else credentials.server_context(["http/1.1"])
        for one in sockets:
            server = await self._loop.create_server(
                partial(self.protocol, handler, credentials, direct), sock=one, ssl=context, backlog=_BACKLOG,
                ssl_handshake_timeout=None if context is None else self.limits.head_seconds,
            )  # fmt: skip
            self._servers.append(server)

    async def stop(self, grace: float = _GRACE_SECONDS) -> None:
        """Accept nothing, give what is under way `grace` seconds, end what is open."""
        self.stopping = True
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.drain()
        if self._connections:
            self._all_closed.clear()
            try:
                async with asyncio.timeout(grace):
                    await self._all_closed.wait()
            except TimeoutError:
                pass
        for connection in list(self._connections):
            connection.abort()
        if self._connections:
            self._all_closed.clear()
            await self._all_closed.wait()
        if self._sweeping is not None:
            self._sweeping.cancel()

    # For connections.

    def opened(self, connection: Bounded) -> bool:
        """One more; False if it is one too many."""
        self._connections[connection] = None
        if self._sweeping is None:
            self._sweep_later()
        if self.stopping:
            connection.drain()
        return len(self._connections) <= self.limits.connections

    def too_many(self, address: str) -> None:
        """One from there was refused."""
        self._limited(address, "", Code.RESOURCE_EXHAUSTED, "too many connections")

    def closed(self, connection: Bounded) -> None:
        """One less."""
        self._connections.pop(connection, None)
        if not self._connections:
            self._all_closed.set()

    def strange(self, host: str, reason: str) -> None:
        """What came is no HTTP: one line, at most once a minute for each host."""
        now = time.monotonic()
        if now - self._told.get(host, -_TELL_AGAIN_SECONDS) < _TELL_AGAIN_SECONDS:
            return
        if len(self._told) >= _TOLD_HOSTS:
            self._told.clear()
        self._told[host] = now
        logger.warning("no HTTP came to the port for HTTP", extra={"host": host, "reason": reason})

    def _sweep_later(self) -> None:
        limits = self.limits
        shortest = min(
            limits.head_seconds, limits.body_seconds, limits.unread_seconds, limits.idle_seconds
        )  # fmt: skip
        self._sweeping = self._loop.call_later(min(_LONGEST_SWEEP, shortest / _SWEEPS), self._sweep)

    def _sweep(self) -> None:
        """One timer for all connections: one each would be set and cancelled with every request."""
        now = self._loop.time()
        for connection in list(self._connections):
            connection.look()
            if connection.due <= now:
                connection.overdue()
        self._sweeping = None
        if self._connections:
            self._sweep_later()
