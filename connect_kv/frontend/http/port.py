"""The HTTP port: taken at once, answered once there is time to load what answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from connect_kv.credentials import Credentials
from connect_kv.metrics import Metrics

if TYPE_CHECKING:
    from connect_kv.frontend.http.server import HttpServer

Check = Callable[[], Awaitable[str | None]]
"""None if all is well, otherwise why not."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Where what is asked for comes from."""

    health: Callable[[bool, frozenset[str]], Awaitable[str | None]]
    """Given (serializable, alarms not to count): the reason why this member is not healthy."""
    live: Mapping[str, Check]
    ready: Mapping[str, Check]
    version: Mapping[str, str]
    metrics: Metrics


class HttpPort:
    """Listens, and later serves. Whoever connects in between waits for the answer.

    The library for HTTP takes a third of the processor time that a node needs to start, and clients
    and peers need none of it.
    """

    def __init__(self, answers: Answers, credentials: Credentials | None = None) -> None:
        """`credentials`: for TLS."""
        self._answers = answers
        self._credentials = credentials
        self._sockets: list[socket.socket] = []
        self._server: HttpServer | None = None

    @property
    def port(self) -> int:
        """The port listened on; 0 if none is."""
        return int(self._sockets[0].getsockname()[1]) if self._sockets else 0

    async def bind(self, host: str, port: int) -> None:
        """Listen on every address of that host. Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, address in dict.fromkeys((one[0], one[4][:2]) for one in found):
            self._sockets.append(socket.create_server(address, family=family))

    async def serve(self) -> None:
        """Answer, from now on, if there is a port."""
        if self._sockets:
            self._server = await load(self._answers, self._credentials)
            await self._server.start(self._sockets)

    async def stop(self) -> None:
        """Stop listening and end what is open."""
        if self._server is not None:
            await self._server.stop()
        for one in self._sockets:
            one.close()


async def load(answers: Answers, credentials: Credentials | None) -> HttpServer:
    """What answers, with the library that it needs."""

    def read() -> type[HttpServer]:
        from connect_kv.frontend.http.server import HttpServer

        return HttpServer

    return (await asyncio.to_thread(read))(answers, credentials)
