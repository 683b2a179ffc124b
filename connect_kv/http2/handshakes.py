"""TlsHandshakes of TLS: each connection is counted before anything is spent on it."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Final

from connect_kv.http2 import sockets
from connect_kv.http2.arrivals import Arrivals

logger = logging.getLogger(__name__)

_PAUSE: Final = 0.5
"""Seconds after a connection that could not be accepted: this process has no files left, most likely."""
_TELL_AGAIN: Final = 60.0
"""Seconds between two lines about handshakes of one host that failed."""
_TOLD_HOSTS: Final = 1000


class TlsHandshakes:
    """Accepts connections of one server. A loop that listens by itself begins any number at once."""

    def __init__(
        self,
        context: ssl.SSLContext,
        arrivals: Arrivals,
        limit: float,
        make: Callable[[], asyncio.Protocol],
        made_room: Callable[[str], None],
    ) -> None:
        """`limit`: seconds for each; `make`: the protocol that goes on behind it; `made_room` is told the
        address of one that is ended for others' sake.
        """
        self._made_room = made_room
        self._context = context
        self._arrivals = arrivals
        self._limit = limit
        self._make = make
        self._listening: list[socket.socket] = []
        # In order: that of a set would depend on addresses in memory.
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._told: OrderedDict[str, float] = OrderedDict()

    def listen(self, listening: socket.socket) -> None:
        """Accept what comes there, until `stop`, which closes it."""
        listening.setblocking(False)
        self._listening.append(listening)
        self._spawn(self._accept(listening))

    async def stop(self) -> None:
        """Accept no more, and end the handshakes under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for one in self._listening:
            one.close()

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        return task

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, name = await loop.sock_accept(listening)
            except OSError as error:
                logger.warning(
                    "a connection was not accepted", extra={"reason": error.strerror or str(error)}
                )
                await asyncio.sleep(_PAUSE)
                continue
            protocol = self._make()
            task = self._spawn(self._shake(connection, protocol, sockets.address(name)))
            task.add_done_callback(partial(_closed, connection))
            self._arrivals.add(protocol, partial(self._make_room, task, sockets.address(name)))

    def _make_room(self, task: asyncio.Task[None], address: str) -> None:
        self._made_room(address)
        task.cancel()

    async def _shake(self, connection: socket.socket, protocol: asyncio.Protocol, address: str) -> None:
        """Ends when the handshake does; the protocol has its connection then, and is counted by itself."""
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol, connection, ssl=self._context, ssl_handshake_timeout=self._limit
            )
        except BaseException as error:
            self._arrivals.settled(protocol)
            self._failed(connection, address, error)
            if isinstance(error, asyncio.CancelledError):
                raise

    def _failed(self, connection: socket.socket, address: str, error: BaseException) -> None:
        """Say why, now and then: whoever has a wrong CA, or speaks no TLS, finds a line at both ends."""
        if isinstance(error, asyncio.CancelledError):
            # Whoever reads it hears its end, and lets go: uvloop goes on with a handshake nobody waits for.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        elif isinstance(error, ssl.SSLError):
            self._tell(address, error.reason or str(error))
        elif not isinstance(
            error, OSError
        ):  # one of those: the client has gone, or said nothing for too long
            logger.error("a handshake failed", exc_info=error, extra={"peer": address})

    def _tell(self, address: str, reason: str) -> None:
        host, now = address.rpartition(":")[0], asyncio.get_running_loop().time()
        if now - self._told.get(host, -_TELL_AGAIN) < _TELL_AGAIN:
            return
        self._told[host] = now
        if len(self._told) > _TOLD_HOSTS:
            self._told.popitem(last=False)
        logger.warning("a handshake failed", extra={"peer": address, "reason": reason})


def _closed(connection: socket.socket, task: asyncio.Task[None]) -> None:
    if task.cancelled():  # perhaps before it had begun
        connection.close()
