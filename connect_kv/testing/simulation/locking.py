"""A lock on a lease, and what its holders may rely on: no two at once, and fencing numbers that grow."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from connect_kv import errors
from connect_kv.client import txn
from connect_kv.client.client import Client
from connect_kv.client.lease import Lease
from connect_kv.testing.simulation.invariants import Violation
from connect_kv.testing.simulation.world import World

NAME = "lock"
TTL = 2
LONG_TTL = 30
RATE = 0.95
"""A client trusts its lease for this part of its time: clocks may differ by the rest."""


class LockHolder(NamedTuple):
    """Someone believed to hold the lock."""

    who: str
    fence: int
    start: float
    end: float


@dataclass
class LockHistory:
    """All holders of one lock."""

    world: World
    held: list[LockHolder] = field(default_factory=list)

    async def use(self, who: str, pause: float) -> None:
        """Take the lock, hold it for a moment, and let go, crash, or stay too long; for ever."""
        rng = self.world.chance(f"lock {who}")
        async with self.world.client(who, session=rng.random() < 0.5, timeout=3) as client:
            while True:
                await asyncio.sleep(rng.expovariate(1 / pause))
                try:
                    await self._once(client, who, rng.random(), rng.expovariate(1 / pause))
                except (errors.ConnectKvError, TimeoutError):
                    continue

    async def _once(self, client: Client, who: str, luck: float, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        lease = await client.lease(TTL)
        fence, start = 0, 0.0
        try:
            answer = await client.transaction(
                [txn.version(NAME, "=", 0)], [txn.put(NAME, who, lease=lease.id)]
            )
            if not answer.succeeded:
                return
            fence, start = answer.header.revision, loop.time()
            await self._hold(lease, seconds if luck < 0.8 else 2 * TTL)
        finally:
            if fence:
                self.held.append(LockHolder(who, fence, start, min(loop.time(), _trusted(lease))))
            if luck < 0.6:
                await lease.revoke()
            else:
                lease.lost()  # as if its holder had died

    async def _hold(self, lease: Lease, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await lease.wait_lost()

    def check(self) -> None:
        """Raise a Violation if two held it at once, or a later one has a lower number."""
        before: LockHolder | None = None
        for held in sorted(self.held, key=lambda one: one.start):
            if held.end <= held.start:
                continue
            if before is not None and held.start < before.end:
                raise Violation(f"the lock was held twice: {before} and {held}")
            if before is not None and held.fence <= before.fence:
                raise Violation(f"fencing numbers do not grow: {before} and {held}")
            before = held


def _trusted(lease: Lease) -> float:
    return lease.valid_until - lease.ttl * (1 - RATE)


async def abandon_leases(world: World, name: str, pause: float) -> None:
    """Grant leases, hang keys on them, renew some, grant some ids again, forget all; for ever."""
    rng = world.chance(f"leases {name}")
    known: list[int] = []
    async with world.client(name, session=rng.random() < 0.5, timeout=3) as client:
        while True:
            await asyncio.sleep(rng.expovariate(1 / pause))
            try:
                if known and rng.random() < 0.4:
                    await client.renew_lease(rng.choice(known[-4:]))
                elif known and rng.random() < 0.3:
                    await client.put(f"e{rng.randrange(4)}", name, lease=rng.choice(known[-4:]))
                else:
                    id = 0
                    if rng.random() < 0.3:
                        id, _ = await client.grant_lease(LONG_TTL)
                        await client.revoke_lease(id)
                    id, _ = await client.grant_lease(rng.randint(2, 4), id=id)
                    known.append(id)
                    await client.put(f"e{rng.randrange(4)}", name, lease=id)
            except errors.ConnectKvError:
                continue


async def compact_history(world: World, name: str, pause: float) -> None:
    """Forget the past from time to time; for ever."""
    rng = world.chance(f"compaction {name}")
    async with world.client(name, session=False, timeout=3) as client:
        while True:
            await asyncio.sleep(rng.expovariate(1 / pause))
            try:
                answer = await client.range("r0", serializable=True)
                revision = answer.header.revision - rng.randrange(30)
                if revision > 1:
                    await client.compact(revision)
            except errors.ConnectKvError:
                continue
