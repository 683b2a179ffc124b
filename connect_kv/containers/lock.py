"""A lock with fencing."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from connect_kv.client.client import Client
from connect_kv.client.lease import Lease
from connect_kv.containers.leased import Leased, LeasedClient
from connect_kv.errors import ConnectKvError
from connect_kv.framework.replicated import command, query


@dataclass
class Holder:
    """Who has the lock."""

    lease: int
    token: int
    """Larger for every later holder."""


class Lock(Leased):
    """One holder at a time, in the order of asking."""

    def __init__(self) -> None:
        self.last_token: int = 0
        self.holder: Holder | None = None
        self.waiting: dict[int, None] = {}
        """Leases, in the order of asking."""

    @command
    def acquire(self, lease: int) -> int:
        """Ask for it under that lease: the token, or 0: then it waits, and asks again later."""
        if self.holder is None or self.holder.lease != lease:
            self.waiting.setdefault(lease)
            self._serve()
        return self.holder.token if self.holder is not None and self.holder.lease == lease else 0

    @command
    def release(self, lease: int) -> bool:
        """Give it back, or stop waiting: whether there was something."""
        return self._drop(lease)

    @command
    def forget(self, leases: list[int]) -> int:
        """These leases have ended. How many had something."""
        return sum(map(self._drop, leases))

    @query
    def leases(self) -> list[int]:
        """Under which it is held, or waited for."""
        return [*([] if self.holder is None else [self.holder.lease]), *self.waiting]

    @query
    def held(self) -> Holder | None:
        """Who holds the lock, if somebody does."""
        return self.holder

    def _drop(self, lease: int) -> bool:
        had = lease in self.waiting
        self.waiting.pop(lease, None)
        if self.holder is not None and self.holder.lease == lease:
            self.holder, had = None, True
        self._serve()
        return had

    def _serve(self) -> None:
        if self.holder is None and self.waiting:
            lease = next(iter(self.waiting))
            del self.waiting[lease]
            self.last_token += 1
            self.holder = Holder(lease, self.last_token)


@dataclass(frozen=True)
class Holding:
    """A lock that is held here."""

    token: int
    """Hand it to whatever is protected, and let that refuse smaller ones: a holder that was paused may not
    know yet that it has lost the lock."""
    lease: Lease
    """`await lease.wait_lost()` tells when it is, or may be, somebody else's."""


class LockClient(LeasedClient[Lock]):
    """A replicated lock. It comes back if its holder vanishes."""

    def __init__(self, client: Client, name: str, *, ttl: int = 10) -> None:
        """`ttl`: seconds after which the lock of a vanished holder comes back."""
        super().__init__(client, name, Lock, ttl)

    @asynccontextmanager
    async def holding(self, timeout: float | None = None) -> AsyncGenerator[Holding]:
        """Wait for it and hold it while the block runs. Raises TimeoutError, NotHeld."""
        async with self._lease() as lease:
            try:
                token = await self._until(lambda: self._token(lease.id), timeout, lease)
                yield Holding(token, lease)
            finally:
                with suppress(ConnectKvError):  # it comes back with the lease, if not now
                    await self._call(Lock.release, lease.id)

    async def locked(self) -> bool:
        """Whether somebody has it."""
        return await self._call(Lock.held) is not None

    async def _token(self, lease: int) -> int | None:
        return await self._call(Lock.acquire, lease) or None
