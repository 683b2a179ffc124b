"""Leases and a lock on them: none ends early, all end, and the lock has one holder at a time."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from random import Random
from typing import NamedTuple

from chaos.recording import Log
from connect_kv import errors
from connect_kv.client import client as door
from connect_kv.client import txn
from connect_kv.client.lease import Lease

LOCK = "lock/only"
LOCK_TTL = 3
TRUST = 0.9
"""A holder trusts its lease for this part of its time."""


class TrustedHolder(NamedTuple):
    """Someone believed to hold the lock, from when it was told so until it let go or its trust ended."""

    who: str
    fence: int
    start: float
    end: float


class LockClaims:
    """All holders of one lock."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.held: list[TrustedHolder] = []

    async def use(self, who: str, client: door.Client, rng: Random, pause: float) -> None:
        """Take it, hold it a moment, let go or disappear, until cancelled."""
        async with client:
            while True:
                await asyncio.sleep(rng.expovariate(1 / pause))
                try:
                    await self._once(who, client, rng)
                except errors.ConnectKvError:
                    continue

    async def _once(self, who: str, client: door.Client, rng: Random) -> None:
        lease = await self._log.timed("lock", client.lease(LOCK_TTL))
        fence, start = 0, 0.0
        try:
            taking = client.transaction(
                [txn.version(LOCK, "=", 0)], [txn.put(LOCK, who, lease=lease.id)], timeout=LOCK_TTL
            )
            answer = await self._log.timed("lock", taking)
            if answer.succeeded:
                fence, start = answer.header.revision, self._log.now
                await self._hold(lease, rng.uniform(0, 1) if rng.random() < 0.8 else 2 * LOCK_TTL)
        finally:
            if fence:
                end = min(self._log.now, trusted_until(lease) - self._log.began)
                self.held.append(TrustedHolder(who, fence, start, end))
            if rng.random() < 0.8:
                await lease.revoke()
            else:
                lease.lost()  # as if its holder had died: nobody renews it

    async def _hold(self, lease: Lease, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < min(end, trusted_until(lease)):  # noqa: ASYNC110  # its end may move
            await asyncio.sleep(0.02)

    def violations(self) -> list[str]:
        """Two holders at once, or numbers that do not grow."""
        found = []
        held = sorted((one for one in self.held if one.end > one.start), key=lambda one: one.start)
        for before, after in pairwise(held):
            if after.start < before.end:
                found.append(f"lock: held twice: {before} and {after}")
            if after.fence <= before.fence:
                found.append(f"lock: fencing numbers do not grow: {before} and {after}")
        return found


def trusted_until(lease: Lease) -> float:
    """Until when, on the loop's clock, the lease certainly lives."""
    return lease.valid_until - lease.ttl * (1 - TRUST)


class Leases:
    """Leases that are left alone, and some that are renewed."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.granted: list[int] = []
        self.watched = 0

    async def abandon(self, name: str, client: door.Client, rng: Random, pause: float) -> None:
        """Leases of a few seconds: shorter than most faults."""
        await self._one_by_one(name, client, rng, pause, (2, 4))

    async def abandon_long(self, name: str, client: door.Client, rng: Random, pause: float) -> None:
        """Leases that outlive a restart of all: what is left to them must not be less for it."""
        await self._one_by_one(name, client, rng, pause, (15, 22))

    async def _one_by_one(
        self, name: str, client: door.Client, rng: Random, pause: float, ttls: tuple[int, int]
    ) -> None:
        """Grant, hang a key on it, and look until it is gone: not before its time. Until cancelled."""
        number = 0
        async with client:
            while True:
                await asyncio.sleep(rng.expovariate(1 / pause))
                number += 1
                try:
                    await self._abandon(client, f"lease/{name}.{number}", rng.randint(*ttls))
                except errors.ConnectKvError:
                    continue

    async def _abandon(self, client: door.Client, key: str, ttl: int) -> None:
        began = self._log.now
        lease, ttl = await self._log.timed("leases", client.grant_lease(ttl))
        self.granted.append(lease)
        await self._log.timed("leases", client.put(key, "held", lease=lease))
        while await self._held(client, key):  # noqa: ASYNC110  # it is asked
            await asyncio.sleep(0.1)
        if self._log.now < began + ttl:
            self._log.violations.append(
                f"lease {lease}: gone {self._log.now - began:.3f} s after it was asked for, not {ttl} s"
            )
        self.watched += 1

    async def _held(self, client: door.Client, key: str) -> bool:
        """Ask until somebody answers: what ends with a restart is gone by then."""
        while True:
            try:
                return await self._log.timed("leases", client.get(key)) is not None
            except errors.ConnectKvError:
                await asyncio.sleep(0.1)

    async def keep(self, name: str, client: door.Client, rng: Random, pause: float) -> None:
        """Hold a lease for long and look at its key: while the client may trust it, it is there."""
        number = 0
        async with client:
            while True:
                number += 1
                try:
                    await self._keep(client, f"kept/{name}.{number}", rng.uniform(5, 15), pause)
                except errors.ConnectKvError:
                    await asyncio.sleep(pause)

    async def _keep(self, client: door.Client, key: str, seconds: float, pause: float) -> None:
        async with client.lease(3) as lease:
            self.granted.append(lease.id)
            await self._log.timed("leases", client.put(key, "kept", lease=lease.id))
            end = self._log.now + seconds
            while self._log.now < end and lease.alive:
                found = await self._log.timed("leases", client.get(key))
                if found is None and lease.alive:
                    self._log.violations.append(f"lease {lease.id}: its key is gone while it is renewed")
                    return
                await asyncio.sleep(pause)
            self.watched += 1

    async def all_end(self, client: door.Client, timeout: float = 30.0) -> list[str]:
        """After the last fault: every lease must end by itself soon."""
        end = self._log.now + timeout
        while True:
            left = set(await client.leases(timeout=10)) & set(self.granted)
            if not left:
                return []
            if self._log.now > end:
                return [f"leases: {len(left)} have not ended {timeout:g} s after nobody renews them any more"]
            await asyncio.sleep(0.2)
