"""Writers through every node while messages are lost and nodes die: what was promised must hold.

Each writer adds numbers of its own. An acknowledged number is there for ever and once; one that
was certainly not proposed is nowhere; all members hold the same list.
"""

import asyncio
import random

import pytest

from connect_kv.errors import ConnectKvError, OutcomeUnknown
from tests.node.cluster import Host, Trio, eventually, put


class Writers:
    def __init__(self, trio: Trio) -> None:
        self.trio = trio
        self.acknowledged: set[int] = set()
        self.refused: set[int] = set()
        self.stale_reads: list[str] = []
        self.going = True

    async def write(self, rng: random.Random, first: int) -> None:
        number = first
        while self.going:
            await asyncio.sleep(rng.random() * 0.05)
            host = rng.choice(self.trio.hosts)
            try:
                await put(host, number)
            except OutcomeUnknown:
                pass
            except ConnectKvError:
                self.refused.add(number)
            else:
                self.acknowledged.add(number)
            number += 1

    async def read(self, rng: random.Random) -> None:
        while self.going:
            await asyncio.sleep(rng.random() * 0.1)
            host = rng.choice(self.trio.hosts)
            before = set(self.acknowledged)
            state = host.state
            try:
                await host.node.read_barrier()
            except ConnectKvError:
                continue
            if missing := before - set(state.numbers):
                self.stale_reads.append(f"{host.name} lacks {missing}")


async def trouble(trio: Trio, rng: random.Random) -> None:
    """One fault after another, never more than one node down."""
    for _ in range(12):
        await asyncio.sleep(rng.random() * 2)
        host = rng.choice(trio.hosts)
        match rng.randrange(4):
            case 0:
                await host.kill(power=True)
                await asyncio.sleep(rng.random() * 3)
                await _start(host)
            case 1:
                trio.network.isolate(host.address)
                await asyncio.sleep(rng.random() * 4)
                trio.network.heal()
            case 2:
                host.worker.block()
                await asyncio.sleep(rng.random() * 4)
                host.worker.unblock()
            case 3:
                await host.stop()
                await _start(host)


async def _start(host: Host) -> None:
    await host.start(keep_entries=20, durable_seconds=0.5)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(6))
async def test_promises_hold_under_faults(seed: int) -> None:
    trio = Trio(seed)
    rng = random.Random(seed)
    await trio.start(keep_entries=20, durable_seconds=0.5)
    faults = trio.network.faults
    faults.delay, faults.drop, faults.duplicate, faults.reorder = (0.0, 0.01), 0.02, 0.02, 0.02
    writers = Writers(trio)
    tasks = [
        asyncio.create_task(writers.write(random.Random(seed * 10 + i), i * 1_000_000)) for i in range(6)
    ]
    tasks += [asyncio.create_task(writers.read(random.Random(seed * 10 + i))) for i in range(3)]
    await trouble(trio, rng)
    writers.going = False
    faults.drop = faults.duplicate = faults.reorder = 0.0
    await asyncio.wait(tasks, timeout=60)
    assert all(task.done() for task in tasks)
    await trio.agreed()
    await eventually(lambda: len({tuple(host.state.numbers) for host in trio.hosts}) == 1)
    numbers = trio.hosts[0].state.numbers
    assert len(numbers) == len(set(numbers)), "applied twice"
    assert writers.acknowledged <= set(numbers), "an acknowledged write is lost"
    assert not writers.refused & set(numbers), "a refused write took effect"
    assert writers.stale_reads == []
    assert len(writers.acknowledged) > 100
    await trio.kill_all()
