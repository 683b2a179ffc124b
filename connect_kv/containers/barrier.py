"""A barrier."""

from __future__ import annotations

from connect_kv.client.client import Client
from connect_kv.containers.container import forwarded
from connect_kv.containers.leased import Leased, LeasedClient
from connect_kv.framework.replicated import command, query


class Barrier(Leased):
    """Opens when so many have arrived, then is closed for the next ones. Who vanishes has not arrived."""

    def __init__(self) -> None:
        self.parties: int = 2
        self.round: int = 0
        """How often it has opened."""
        self.arrived: dict[int, None] = {}
        """Leases, in the order of arrival."""

    @command
    def resize(self, parties: int) -> None:
        """How many have to arrive."""
        if parties < 1:
            raise ValueError("a barrier is for at least one")
        self.parties = parties
        self._open()

    @command
    def arrive(self, lease: int) -> int:
        """Arrive under that lease; the round in which it may pass: once `opened` is as large."""
        expected = self.round + 1
        self.arrived.setdefault(lease)
        self._open()
        return expected

    @command
    def forget(self, leases: list[int]) -> int:
        """These leases have ended. How many had arrived."""
        gone = [lease for lease in leases if lease in self.arrived]
        for lease in gone:
            del self.arrived[lease]
        return len(gone)

    @query
    def leases(self) -> list[int]:
        """Of those who have arrived, and wait."""
        return list(self.arrived)

    @query
    def opened(self) -> int:
        """How often it has opened."""
        return self.round

    def _open(self) -> None:
        while len(self.arrived) >= self.parties:
            for lease in list(self.arrived)[: self.parties]:
                del self.arrived[lease]
            self.round += 1


class BarrierClient(LeasedClient[Barrier]):
    """A replicated barrier."""

    def __init__(self, client: Client, name: str, *, ttl: int = 10) -> None:
        """`ttl`: seconds after which somebody who vanished does not count any more."""
        super().__init__(client, name, Barrier, ttl)

    resize = forwarded(Barrier.resize)

    async def wait(self, timeout: float | None = None) -> int:
        """Arrive, and wait until all have. The number of the round. Raises TimeoutError, NotHeld."""
        async with self._lease() as lease:
            expected = await self._call(Barrier.arrive, lease.id)
            try:
                return await self._until(lambda: self._passed(expected), timeout, lease)
            except BaseException:
                await self._call(Barrier.forget, [lease.id])
                raise

    async def _passed(self, expected: int) -> int | None:
        return expected if await self._call(Barrier.opened) >= expected else None
