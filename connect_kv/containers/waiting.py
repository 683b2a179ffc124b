"""Work that waits to be taken: in an order, and back in its old place if its taker vanishes."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

from connect_kv import errors
from connect_kv.client.client import Client
from connect_kv.client.lease import Lease
from connect_kv.containers.container import Values
from connect_kv.containers.leased import Leased, LeasedClient, key_of
from connect_kv.framework.replicated import command, query

V = TypeVar("V")


@dataclass
class Taken:
    """An item that was taken."""

    number: int
    """Of the item, from 1: by it, it is finished or given back."""
    value: Any


class Waiting(Leased):
    """Items by priority, lower first; those of the same priority as they came."""

    def __init__(self) -> None:
        self.last_number: int = 0
        self.order: list[tuple[int, int]] = []
        """A heap of (priority, number) of those that wait."""
        self.values: dict[int, Any] = {}
        """By number, of those that wait and those that are taken."""
        self.taken: dict[int, tuple[int, int]] = {}
        """Items that somebody works on: by number, (lease, priority)."""

    def _put(self, value: Any, priority: int) -> int:
        self.last_number += 1
        self.values[self.last_number] = value
        heapq.heappush(self.order, (priority, self.last_number))
        return self.last_number

    @command
    def take(self, lease: int = 0) -> Taken | None:
        """Take the first, under that lease; None if none waits. Without a lease it is taken for good."""
        if not self.order:
            return None
        priority, number = heapq.heappop(self.order)
        if not lease:
            return Taken(number, self.values.pop(number))
        self.taken[number] = (lease, priority)
        return Taken(number, self.values[number])

    @command
    def done(self, number: int, lease: int) -> bool:
        """A taken item is finished: it is gone. False if it is not held under that lease any more."""
        if self.taken.get(number, (0, 0))[0] != lease:
            return False
        del self.taken[number], self.values[number]
        return True

    @command
    def give_back(self, number: int, lease: int) -> bool:
        """A taken item waits again, in its old place. False if it is not held under that lease any more."""
        held, priority = self.taken.get(number, (0, 0))
        if held != lease or not lease:
            return False
        del self.taken[number]
        heapq.heappush(self.order, (priority, number))
        return True

    @command
    def forget(self, leases: list[int]) -> int:
        """These leases have ended: what is held under them waits again. How many items."""
        ended = [number for number, (lease, _) in self.taken.items() if lease in leases]
        for number in ended:
            _, priority = self.taken.pop(number)
            heapq.heappush(self.order, (priority, number))
        return len(ended)

    @query
    def leases(self) -> list[int]:
        """Under which something is held."""
        return list(dict.fromkeys(lease for lease, _ in self.taken.values()))

    @query
    def size(self) -> int:
        """How many wait."""
        return len(self.order)

    @query
    def held(self) -> int:
        """How many are taken, and neither finished nor given back."""
        return len(self.taken)


W = TypeVar("W", bound=Waiting)


class WaitingClient(LeasedClient[W], Generic[W, V]):
    """Takes work under one lease, which lives as long as this is entered.

    ``async with QueueClient(client, "jobs", Job) as jobs: async with jobs.take() as job: ...``
    """

    def __init__(self, client: Client, name: str, machine: type[W], value: type[V], ttl: int) -> None:
        super().__init__(client, name, machine, ttl)
        self._values = Values(value)
        self._held: Lease | None = None
        self._making = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """The lease is made when something is taken first."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """What is still held waits again."""
        held, self._held = self._held, None
        if held is not None:
            await held.revoke()
            await self.reclaim()

    async def get(self, timeout: float | None = None) -> V:
        """Wait for the first, and take it for good: it is lost if this process ends. Raises TimeoutError."""
        taken = await self._until(lambda: self._call(self._kind.take), timeout)
        return self._values.out(taken.value)

    async def get_nowait(self) -> V:
        """Take the first item, for good. Raises asyncio.QueueEmpty."""
        taken = await self._call(self._kind.take)
        if taken is None:
            raise asyncio.QueueEmpty
        return self._values.out(taken.value)

    @asynccontextmanager
    async def take(self, timeout: float | None = None) -> AsyncGenerator[V]:
        """Wait for the first and hold it while the block runs: done at its end, given back if it raises.

        If this process vanishes, or its lease ends otherwise, somebody else gets it. Raises TimeoutError, and
        NotHeld at the end if the lease ended meanwhile: somebody else may have done it, too.
        """
        lease = await self._own_lease()
        taken = await self._until(lambda: self._take(lease), timeout, lease)
        try:
            yield self._values.out(taken.value)
        except BaseException:
            with suppress(errors.ConnectKvError):  # it comes back with the lease, if not now
                await self._call(self._kind.give_back, taken.number, lease.id)
            raise
        if not await self._call(self._kind.done, taken.number, lease.id):
            raise errors.NotHeld(f"the lease ended: {self._name!r} gave item {taken.number} to others")

    async def _take(self, lease: Lease) -> Taken | None:
        """Take one, or none. Whoever is cancelled meanwhile does not keep what nobody knows of."""
        call = asyncio.ensure_future(self._call(self._kind.take, lease.id))
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            with suppress(errors.ConnectKvError):
                if (taken := await call) is not None:
                    await self._call(self._kind.give_back, taken.number, lease.id)
            raise
        except errors.OutcomeUnknown:
            await lease.revoke()  # what it may have taken waits again, and what others here hold under it
            raise

    async def qsize(self) -> int:
        """How many wait."""
        return await self._call(self._kind.size)

    async def empty(self) -> bool:
        """Whether none waits."""
        return not await self.qsize()

    async def held(self) -> int:
        """How many are taken, by anybody, and neither finished nor given back."""
        return await self._call(self._kind.held)

    async def _own_lease(self) -> Lease:
        async with self._making:
            if self._held is None or not self._held.alive:
                self._held = await self._client.lease(self._ttl)
                await self._client.put(key_of(self._name, self._held.id), "", lease=self._held.id)
            return self._held
