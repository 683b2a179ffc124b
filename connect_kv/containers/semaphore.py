"""A semaphore."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from connect_kv.client.client import Client
from connect_kv.client.lease import Lease
from connect_kv.containers.container import forwarded
from connect_kv.containers.leased import Leased, LeasedClient
from connect_kv.errors import ConnectKvError
from connect_kv.framework.replicated import command, query


class Semaphore(Leased):
    """At most so many permits are out at a time; who waits is served in the order of asking."""

    def __init__(self) -> None:
        self.permits: int = 1
        self.holders: dict[int, int] = {}
        """By lease: how many permits."""
        self.waiting: dict[int, int] = {}
        """By lease, in the order of asking."""

    @command
    def resize(self, permits: int) -> None:
        """How many there are. None that is out is taken away: nobody gets one until enough are back."""
        if permits < 1:
            raise ValueError("a semaphore has at least one permit")
        self.permits = permits
        self._serve()

    @command
    def acquire(self, lease: int, permits: int = 1) -> bool:
        """Ask for permits under that lease: whether it has them. If not, it waits, and asks again later."""
        if not 1 <= permits <= self.permits:
            raise ValueError(f"permits: from 1 to {self.permits}")
        if lease not in self.holders:
            self.waiting.setdefault(lease, permits)
            self._serve()
        return lease in self.holders

    @command
    def release(self, lease: int) -> bool:
        """Give back what is held under that lease, or stop waiting: whether there was something."""
        return self._drop(lease)

    @command
    def forget(self, leases: list[int]) -> int:
        """These leases have ended. How many had something."""
        return sum(map(self._drop, leases))

    @query
    def leases(self) -> list[int]:
        """Under which permits are held, or waited for."""
        return [*self.holders, *self.waiting]

    @query
    def free(self) -> int:
        """Permits that are not out."""
        return max(0, self.permits - sum(self.holders.values()))

    def _drop(self, lease: int) -> bool:
        had = self.holders.pop(lease, 0) or self.waiting.pop(lease, 0)
        self._serve()
        return bool(had)

    def _serve(self) -> None:
        # In order: a large wish at the head is not passed by for ever by small ones behind it.
        while self.waiting:
            lease, permits = next(iter(self.waiting.items()))
            if sum(self.holders.values()) + permits > self.permits:
                return
            del self.waiting[lease]
            self.holders[lease] = permits


class SemaphoreClient(LeasedClient[Semaphore]):
    """A replicated semaphore. Permits come back if their holder vanishes."""

    def __init__(self, client: Client, name: str, *, ttl: int = 10) -> None:
        """`ttl`: seconds after which permits of a vanished holder come back."""
        super().__init__(client, name, Semaphore, ttl)

    resize = forwarded(Semaphore.resize)
    free = forwarded(Semaphore.free)

    @asynccontextmanager
    async def holding(self, permits: int = 1, timeout: float | None = None) -> AsyncGenerator[Lease]:
        """Wait for permits and hold them while the block runs; `await lease.wait_lost()` tells of their end.

        Raises TimeoutError, NotHeld if the lease ended before there were any.
        """
        async with self._lease() as lease:
            try:
                await self._until(lambda: self._granted(lease.id, permits), timeout, lease)
                yield lease
            finally:
                with suppress(ConnectKvError):  # they come back with the lease, if not now
                    await self._call(Semaphore.release, lease.id)

    async def _granted(self, lease: int, permits: int) -> bool | None:
        return await self._call(Semaphore.acquire, lease, permits) or None
