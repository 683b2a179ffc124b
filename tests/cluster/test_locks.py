"""A lock has one holder, whoever dies; an election's observers see every leader."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path

import connect_kv
from connect_kv.client.lock import Lock
from connect_kv.testing.processes import ProcessCluster, until
from tests.cluster.conftest import rounds, scaled

TTL = 2
CALLERS = 8


class Protected:
    """What a lock is for: it notes who is inside, and refuses a holder that was overtaken."""

    def __init__(self) -> None:
        self.inside: set[Lock] = set()
        self.vanished = 0
        """Holders that gave nothing back."""
        self.revisions: list[int] = []

    def enter(self, lock: Lock) -> None:
        assert lock.revision > max(self.revisions, default=0), "an earlier holder came later"
        assert not any(other.held for other in self.inside), "two holders, both sure of it"
        self.revisions.append(lock.revision)
        self.inside.add(lock)


async def hold_and_vanish(cluster: ProcessCluster, protected: Protected) -> None:
    """A holder whose machine dies: its lease is renewed no more, and nothing is given back."""
    async with connect_kv.connect(cluster.endpoints) as client:
        lock = client.lock("name", ttl=TTL)
        await lock.__aenter__()
        protected.enter(lock)
        protected.vanished += 1


async def test_one_holder_at_a_time_under_leader_kills_and_lease_expiry(tmp_path: Path) -> None:
    wanted = int(scaled(60, 1000))
    protected = Protected()

    async def caller(cluster: ProcessCluster, number: int) -> None:
        turns = 0
        async with connect_kv.connect(cluster.endpoints) as client:
            while len(protected.revisions) < wanted:
                turns += 1
                with suppress(connect_kv.Unavailable, connect_kv.Refused):  # its lease ended in the turmoil
                    if number == 0 and turns % 5 == 2:
                        await hold_and_vanish(cluster, protected)
                        continue
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
    assert protected.vanished
    print(
        f"{len(protected.revisions)} acquisitions, each with a higher fencing revision; "
        f"{protected.vanished} holders vanished, {rounds(2)} leaders killed"
    )


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
            for number in range(rounds(1)):
                part = (number + 1) * wanted // (rounds(1) + 1)
                await until(partial(_reached, led, part), scaled(60, 300), f"{part} elections")
                leader = await cluster.leader()
                await leader.kill()
                await until(partial(_reached, led, part + 3), 60, "three more")
                await leader.start()
                await leader.ready()
        await until(lambda: _reached(seen, len(led)), 20, "the observer to see them all")
        observing.cancel()
    # Who led without knowing it, because the answer was lost, was seen as well.
    missed = [one for one in led if one not in seen]
    assert not missed
    assert [one for one in seen if one in set(led)] == led
    print(f"{len(led)} led, {len(seen)} seen, {rounds(1)} leaders of the cluster killed")


async def _reached(found: list[bytes], count: int) -> bool:
    return len(found) >= count
