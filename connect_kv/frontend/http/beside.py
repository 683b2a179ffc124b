"""HTTP/1.1 on the port that clients of gRPC call: the same answers as on the HTTP port."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from connect_kv.credentials import Credentials
from connect_kv.frontend.http.port import Answers, load

if TYPE_CHECKING:
    from connect_kv.frontend.http.server import HttpServer

_MOST_CONNECTIONS: Final = 4096
_MOST_EARLY: Final = 64 << 10
"""Bytes that are read of a request before there is somebody to answer it."""


class HttpBeside:
    """Makes a protocol for each connection. The library behind it is loaded for the first one."""

    def __init__(self, answers: Answers, credentials: Credentials | None = None) -> None:
        """`credentials`: of the port, if it has TLS."""
        self._answers = answers
        self._credentials = credentials
        self._server: HttpServer | None = None
        self._loading: asyncio.Task[HttpServer] | None = None
        self._stopped = False

    def protocol(self) -> asyncio.Protocol:
        """For a connection that was just made, or for which this turned out to be the protocol."""
        if self._server is None:
            if self._loading is None:
                self._loading = asyncio.get_running_loop().create_task(self._load())
            return _Waiting(self, self._loading)
        if self._stopped or len(self._server.server.connections) >= _MOST_CONNECTIONS:
            return _Refused()
        return self._server.server()

    async def stop(self) -> None:
        """End what is open."""
        self._stopped = True
        if self._loading is not None:
            await (await self._loading).stop()

    async def _load(self) -> HttpServer:
        server = await load(self._answers, self._credentials)
        await server.start()
        self._server = server
        return server


class _Waiting(asyncio.Protocol):
    """Keeps what comes until there is somebody to answer."""

    def __init__(self, beside: HttpBeside, loading: asyncio.Task[HttpServer]) -> None:
        self._beside = beside
        self._transport: asyncio.Transport
        self._early = bytearray()
        self._lost = False
        self._loading = loading

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's derives from nothing
        self._loading.add_done_callback(self._go_on)

    def data_received(self, data: bytes) -> None:
        self._early += data
        if len(self._early) > _MOST_EARLY:
            self._transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True

    def _go_on(self, loaded: asyncio.Task[HttpServer]) -> None:
        if self._lost:
            return
        if loaded.cancelled() or loaded.exception() is not None:
            self._transport.abort()
            return
        protocol = self._beside.protocol()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        if self._early:
            protocol.data_received(bytes(self._early))
        self._transport.resume_reading()


class _Refused(asyncio.Protocol):
    """Closes at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
