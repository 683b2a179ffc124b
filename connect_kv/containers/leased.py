"""What is held by somebody who may vanish: it hangs on a lease, and comes back when the lease has ended.

A machine has no clock that measures durations, and needs none: it only notes under which lease something is
held. A holder puts a key on its lease before it asks for anything. Whoever waits looks which of the noted
leases have no key any more, by a read that sees everything acknowledged, and tells the machine to forget
these. So no wall clock can shorten what a holder has, and nothing is lost with it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from connect_kv import errors
from connect_kv.client.client import Client
from connect_kv.client.lease import Lease
from connect_kv.containers.container import TypedClient
from connect_kv.framework.replicated import Replicated, command, query

R = TypeVar("R")

FIRST_WAIT, LONGEST_WAIT = 0.01, 0.25
"""Seconds between two tries of a client that waits."""
LOOK_FOR_THE_GONE = 1.0
"""Seconds between two looks for leases that have ended, while it waits."""


class Leased(Replicated):
    """A machine whose parts are held under leases."""

    @query
    def leases(self) -> list[int]:
        """Under which something is held, or waited for."""
        raise NotImplementedError

    @command
    def forget(self, leases: list[int]) -> int:
        """These leases have ended: give back what was held under them. How many had something."""
        raise NotImplementedError


def key_of(name: str, lease: int) -> str:
    """The key that stands for a holder: it must hang on the lease before anything is held under it."""
    return f"{prefix_of(name)}{lease:016x}"


def prefix_of(name: str) -> str:
    """Of the keys of all holders of a machine."""
    return f"connect_kv.types/{name}/"


L = TypeVar("L", bound=Leased)


class LeasedClient(TypedClient[L]):
    """Holds, waits, and gives back for those who vanished."""

    def __init__(self, client: Client, name: str, machine: type[L], ttl: int) -> None:
        super().__init__(client, name, machine)
        self._kind = machine
        self._ttl = ttl

    async def reclaim(self) -> int:
        """Give back what is held under leases that have ended; how many had something.

        Whoever waits does it anyway, once a second.
        """
        noted = await self._call(self._kind.leases)
        if not noted:
            return 0
        # The keys are read after the leases: a lease that was noted has its key, or has ended.
        alive = {kv.key.decode() for kv in await self._client.get_prefix(prefix_of(self._name))}
        gone = [lease for lease in noted if key_of(self._name, lease) not in alive]
        return await self._call(self._kind.forget, gone) if gone else 0

    @asynccontextmanager
    async def _lease(self) -> AsyncGenerator[Lease]:
        """A lease of its own, with its key; it is revoked at the end."""
        async with self._client.lease(self._ttl) as lease:
            await self._client.put(key_of(self._name, lease.id), "", lease=lease.id)
            yield lease

    async def _until(
        self, attempt: Callable[[], Awaitable[R | None]], timeout: float | None, lease: Lease | None = None
    ) -> R:
        """Try until it gives something. Raises TimeoutError, or NotHeld if `lease` ends meanwhile."""
        loop = asyncio.get_running_loop()
        wait, looked = FIRST_WAIT, -LOOK_FOR_THE_GONE
        # No try is cancelled when the time is over: it could have given something to nobody.
        end = math.inf if timeout is None else loop.time() + timeout
        while True:
            if (found := await attempt()) is not None:
                return found
            if lease is not None and not lease.alive:
                raise errors.NotHeld(f"the lease ended while it waited for {self._name!r}")
            if loop.time() >= end:
                raise TimeoutError(f"{self._name!r}: nothing within {timeout} s")
            if loop.time() - looked >= LOOK_FOR_THE_GONE:
                looked = loop.time()
                if await self.reclaim():
                    continue
            await asyncio.sleep(min(wait, max(0.0, end - loop.time())))
            wait = min(2 * wait, LONGEST_WAIT)
