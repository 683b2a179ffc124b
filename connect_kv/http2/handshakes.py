"""Handshakes of TLS: each connection is counted before anything is spent on it."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
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
_LEAST: Final = 0.001
"""Seconds: no handshake may have none."""
_AT_ONCE: Final = 16
"""Connections that are accepted in one turn of the loop."""
_HEAD: Final = 6
"""Bytes that tell what comes: the head of a record, and one of what is in it (RFC 8446, 5.1)."""
_HANDSHAKE: Final = 0x16
"""The first of them."""
_LONGEST_HELLO: Final = 8192
"""Bytes of a first record that are waited for before anything is spent on it; one that says it is longer is
looked at by the library at once."""


@dataclass(slots=True)
class _Silent:
    """A connection that has not said what it wants."""

    protocol: asyncio.Protocol
    address: str
    until: float
    """When its time is over, by the loop's clock."""
    begun: bool = False
    """The head of its first record has come."""


class TlsHandshakes:
    """Accepts connections of one server. A loop that listens by itself begins any number at once.

    Who says nothing, or stops in the middle of its first record, costs a file and an entry here, no more:
    what a handshake needs is made once there is something to answer. And one handshake begins in a turn of
    the loop, so that those who are served get theirs.
    """

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
        self._loop = asyncio.get_running_loop()
        self._context = context
        self._arrivals = arrivals
        self._limit = limit
        self._make = make
        self._made_room = made_room
        self._listening: list[socket.socket] = []
        self._silent: OrderedDict[socket.socket, _Silent] = OrderedDict()
        """Those that have not spoken, in the order in which they came."""
        self._speaking: deque[socket.socket] = deque()
        """Of them, those that have, meanwhile."""
        self._sweeping: asyncio.TimerHandle | None = None
        # In order: that of a set would depend on addresses in memory.
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._told: OrderedDict[str, float] = OrderedDict()

    def listen(self, listening: socket.socket) -> None:
        """Accept what comes there, until `stop`, which closes it."""
        listening.setblocking(False)
        self._listening.append(listening)
        self._loop.add_reader(listening, self._accept, listening)

    async def stop(self) -> None:
        """Accept no more, and end the handshakes under way."""
        for one in self._listening:
            self._loop.remove_reader(one)
            one.close()
        self._listening.clear()
        for connection in list(self._silent):
            self._drop(connection)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Who has not spoken.

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, name = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.warning(
                    "a connection was not accepted", extra={"reason": error.strerror or str(error)}
                )
                self._loop.remove_reader(listening)
                self._loop.call_later(_PAUSE, self._accept_again, listening)
                return
            connection.setblocking(False)
            _wake_at(connection, _HEAD)
            silent = _Silent(self._make(), sockets.address(name), self._loop.time() + self._limit)
            self._silent[connection] = silent
            self._arrivals.add(silent.protocol, partial(self._crowded_out, connection, silent.address))
            if connection in self._silent:  # and was not the one that made room
                self._loop.add_reader(connection, self._spoke, connection)
            if self._sweeping is None:
                self._sweeping = self._loop.call_at(silent.until, self._sweep)

    def _accept_again(self, listening: socket.socket) -> None:
        if listening in self._listening:
            self._loop.add_reader(listening, self._accept, listening)

    def _spoke(self, connection: socket.socket) -> None:
        """Its first record has come, or the head of it, or its end; handshakes begin one in a turn."""
        silent = self._silent[connection]
        if not silent.begun:
            silent.begun = True
            if (size := _first_record(connection)) > 0:
                _wake_at(connection, size)
                return
        self._loop.remove_reader(connection)
        self._speaking.append(connection)
        if len(self._speaking) == 1:
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        connection = self._speaking.popleft()
        if self._speaking:
            self._loop.call_soon(self._begin)
        silent = self._silent.pop(connection, None)
        if silent is None:
            return  # it was dropped in between
        _wake_at(connection, 1)
        task = self._loop.create_task(self._shake(connection, silent))
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        task.add_done_callback(partial(_closed, connection))
        self._arrivals.add(silent.protocol, partial(self._make_room, task, silent.address))

    def _sweep(self) -> None:
        """Who has said nothing for too long goes."""
        self._sweeping = None
        now = self._loop.time()
        while self._silent:
            connection, silent = next(iter(self._silent.items()))
            if silent.until > now:
                self._sweeping = self._loop.call_at(silent.until, self._sweep)
                return
            self._drop(connection)

    def _crowded_out(self, connection: socket.socket, address: str) -> None:
        self._made_room(address)
        self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        silent = self._silent.pop(connection, None)
        if silent is not None:
            self._loop.remove_reader(connection)
            self._arrivals.settled(silent.protocol)
            connection.close()

    # Handshakes.

    def _make_room(self, task: asyncio.Task[None], address: str) -> None:
        self._made_room(address)
        task.cancel()

    async def _shake(self, connection: socket.socket, silent: _Silent) -> None:
        """Ends when the handshake does; the protocol has its connection then, and is counted by itself."""
        left = max(silent.until - self._loop.time(), _LEAST)
        try:
            await self._loop.connect_accepted_socket(
                lambda: silent.protocol, connection, ssl=self._context, ssl_handshake_timeout=left
            )
        except BaseException as error:
            self._arrivals.settled(silent.protocol)
            self._failed(connection, silent.address, error)
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


def _wake_at(connection: socket.socket, size: int) -> None:
    """The loop hears of it once there are so many bytes, or its end; where that is not known, of any."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)


def _first_record(connection: socket.socket) -> int:
    """Bytes of the record that has begun; 0 where there is nothing to wait for."""
    try:
        head = connection.recv(_HEAD, socket.MSG_PEEK)
    except OSError:
        return 0
    if len(head) < _HEAD or head[0] != _HANDSHAKE:
        return 0
    size = 5 + int.from_bytes(head[3:5], "big")
    return size if size <= _LONGEST_HELLO else 0


def _closed(connection: socket.socket, task: asyncio.Task[None]) -> None:
    if task.cancelled():  # perhaps before it had begun
        connection.close()
