"""A lock has one holder, whoever dies; an election's observers see every leader."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from pathlib import Path

import connect_kv
from connect_kv.client.client import Client
from connect_kv.client.lease import Lease
from connect_kv.client.lock import Lock
from connect_kv.testing.processes import ProcessCluster, until
from tests.cluster.conftest import rounds, scaled

TTL = 2
CALLERS = 8


class Protected:
    """What a lock is for: it notes who is inside, and refuses a holder that was overtaken."""

    def __init__(self) -> None:
        self.inside: set[Lock] = set()
        self.revisions: list[int] = []

    def enter(self, lock: Lock) -> None:
        assert lock.revision > max(self.revisions, default=0), "an earlier holder came later"
        assert not any(other.held for other in self.inside), "two holders, both sure of it"
        self.revisions.append(lock.revision)
        self.inside.add(lock)


async def hold_and_vanish(client: Client, protected: Protected) -> None:
    """A holder whose machine dies: its lease is renewed no more, and nothing is given back."""

    async def nothing(_: int) -> None:
        """It cannot revoke either."""

    async def dying() -> Lease:
        asked_at = asyncio.get_running_loop().time()
        id, ttl = await client.grant_lease(TTL, timeout=30)
        return Lease(id, ttl, asked_at, nothing)

    lock = client.lock("name")
    lock._make_lease = dying  # type: ignore[assignment]  # awaited like the real one
    with suppress(connect_kv.Unavailable, connect_kv.Refused):  # over before its turn came
        async with lock:
            protected.enter(lock)


async def test_one_holder_at_a_time_under_leader_kills_and_lease_expiry(tmp_path: Path) -> None:
    wanted = int(scaled(60, 1000))
    protected = Protected()

    async def caller(cluster: ProcessCluster, number: int) -> None:
        turns = 0
        async with connect_kv.connect(cluster.endpoints) as client:
            while len(protected.revisions) < wanted:
                turns += 1
                if number == 0 and not turns % 5:
                    await hold_and_vanish(client, protected)
                    continue
                with suppress(connect_kv.Unavailable, connect_kv.Refused):  # its lease ended in the turmoil
                    async with client.lock("name", ttl=TTL) as lock:
                        protected.enter(lock)
                        await asyncio.sleep(0)
                        protected.inside.discard(lock)

    async def acquired(count: int) -> None:
        async def enough() -> bool:
            return len(protected.revisions) >= count or len(protected.revisions) >= wanted

        await until(enough, scaled(60, 300), f"{count} acquisitions")

    async with ProcessCluster(tmp_path) as cluster, asyncio.TaskGroup() as tasks:
        for number in range(CALLERS):
            tasks.create_task(caller(cluster, number))
        for number in range(rounds(2)):
            await acquired((number + 1) * wanted // (rounds(2) + 1))
            leader = await cluster.leader()
            await leader.kill()
            await acquired(len(protected.revisions) + 3)
            await leader.start()
            await leader.ready()
        await acquired(wanted)
    print(f"{len(protected.revisions)} acquisitions, {rounds(2)} leaders killed")


async def test_observers_see_every_leader_under_leader_kills(tmp_path: Path) -> None:
    wanted = int(scaled(30, 300))
    led: list[bytes] = []
    seen: list[bytes] = []

    async def candidate(cluster: ProcessCluster, number: int) -> None:
        turn = 0
        async with connect_kv.connect(cluster.endpoints) as client:
            while len(led) < wanted:
                turn += 1
                me = f"{number}/{turn}".encode()
                with suppress(connect_kv.Unavailable, connect_kv.Refused):
                    async with client.election("name", me, ttl=TTL):
                        led.append(me)

    async def observe(cluster: ProcessCluster) -> None:
        async with (
            connect_kv.connect(cluster.endpoints) as client,
            aclosing(client.election("name").observe()) as leaders,
        ):
            async for leader in leaders:
                seen.append(leader.value)

    async with ProcessCluster(tmp_path) as cluster:
        observing = asyncio.create_task(observe(cluster))
        async with asyncio.TaskGroup() as tasks:
            for number in range(3):
                tasks.create_task(candidate(cluster, number))
            await until(lambda: _reached(led, wanted // 2), scaled(60, 300), "half of the elections")
            leader = await cluster.leader()
            await leader.kill()
        await until(lambda: _reached(seen, len(led)), 20, "the observer to see them all")
        observing.cancel()
    # Who led without knowing it, because the answer was lost, was seen as well.
    missed = [one for one in led if one not in seen]
    assert not missed
    assert [one for one in seen if one in set(led)] == led


async def _reached(found: list[bytes], count: int) -> bool:
    return len(found) >= count
