"""When a member begins to serve: once the cluster knows its name and where clients reach it.

Clients take their endpoints from MemberList. A member that served before it had published itself would be
without an address in its own list, and a client that asked just then would have lost an endpoint.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from connect_kv.errors import NodeStopped, NoLeader, Overloaded

MOST_WAITING = 4096
"""Calls that may wait; more are refused."""


class Opening:
    """Closed at first. `open` is for good, and so is `stop`."""

    def __init__(self, *, time_limit: float = 7.0, why: Callable[[], str] = lambda: "") -> None:
        """`time_limit`: seconds a call waits at most; `why`: the reason why it has to, if one is known."""
        self.is_open = False
        self._decided = asyncio.Event()
        self._time_limit = time_limit
        self._why = why
        self._waiting = 0

    @classmethod
    def at_once(cls) -> Opening:
        """An opening that is open from the start."""
        opening = cls()
        opening.open()
        return opening

    def open(self) -> None:
        """Let in who waits, and all who come."""
        self.is_open = True
        self._decided.set()

    def stop(self) -> None:
        """This member stops: who waits for it hears so."""
        self._decided.set()

    async def opened(self) -> None:
        """Until it is open, however long that takes. Raises NodeStopped."""
        await self._decided.wait()
        if not self.is_open:
            raise NodeStopped

    async def wait(self) -> None:
        """The same, for a call.

        Raises NoLeader after the time limit (to publish itself a member needs one), NodeStopped, and
        Overloaded at once if too many wait already.
        """
        if self._waiting >= MOST_WAITING:
            raise Overloaded(f"{self._waiting} calls wait for this member to start")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._time_limit):
                await self.opened()
        except TimeoutError:
            raise NoLeader(self._why()) from None
        finally:
            self._waiting -= 1
