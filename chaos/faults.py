"""The faults: each makes something bad, holds it for a while, and returns; `recover` makes it good again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from chaos.nodes import ChaosCluster, ChaosNode
from connect_kv import errors
from connect_kv.client.client import Client
from connect_kv.testing.network import Quality
from connect_kv.testing.processes import leads, until

BLOCKED = Quality(blocked=True)
CLOCK_STEPS = (3, 60, 3600, 24 * 3600, 30 * 24 * 3600)
"""Seconds, more or less."""
BULK_KEYS, BULK_BYTES = 12, 1_000_000
"""Written before a snapshot is to be sent, so that sending takes a while."""


@dataclass
class Scene:
    """What a fault works with."""

    cluster: ChaosCluster
    rng: random.Random
    note: Callable[[str], None]
    """Says in the report whom it hit."""

    async def hold(self, low: float, high: float) -> None:
        """Let the fault last for a while."""
        await asyncio.sleep(self.rng.uniform(low, high))

    def any(self) -> ChaosNode:
        """Some node."""
        return self.rng.choice(self.cluster.nodes)

    async def leader(self) -> ChaosNode:
        """The leader, noted."""
        found = await self.cluster.leader()
        self.note(f"{found.name}, the leader")
        return found

    async def follower(self) -> ChaosNode:
        """Some follower, noted."""
        found = self.rng.choice(list(self.cluster.others(await self.cluster.leader())))
        self.note(f"{found.name}, a follower")
        return found

    async def must_not_lead(self, node: ChaosNode) -> None:
        """For three seconds it had no majority: if it leads still, what was done to it had no effect."""
        if await leads(node):
            self.cluster.troubles.append(f"{node.name} leads although it is cut off: the fault has no effect")


async def kill_leader(scene: Scene) -> None:
    """The leader is killed (kill -9)."""
    await (await scene.leader()).kill()
    await scene.hold(1, 4)


async def kill_follower(scene: Scene) -> None:
    """A follower is killed (kill -9), and comes back behind."""
    await (await scene.follower()).kill()
    await scene.hold(1, 6)


async def kill_all(scene: Scene) -> None:
    """All nodes are killed at once (kill -9)."""
    scene.note("all nodes")
    await asyncio.gather(*(node.kill() for node in scene.cluster.nodes))


async def pause_leader(scene: Scene) -> None:
    """The leader sleeps (SIGSTOP), and wakes up believing that it leads."""
    (await scene.leader()).pause()
    await scene.hold(1.5, 5)


async def pause_any(scene: Scene) -> None:
    """Any node sleeps (SIGSTOP), three times in a row."""
    for _ in range(3):
        node = scene.any()
        scene.note(node.name)
        node.pause()
        await scene.hold(0.2, 2)
        node.resume()
        await scene.hold(0.1, 0.5)


async def isolate_leader(scene: Scene) -> None:
    """The leader is cut off from both others; clients still reach it."""
    leader = await scene.leader()
    scene.cluster.links.around(leader.name, BLOCKED)
    await scene.hold(3, 6)
    await scene.must_not_lead(leader)


async def isolate_follower(scene: Scene) -> None:
    """A follower is cut off from both others."""
    scene.cluster.links.around((await scene.follower()).name, BLOCKED)
    await scene.hold(3, 6)


async def one_way(scene: Scene) -> None:
    """The leader is heard and hears nothing, or hears and is not heard."""
    leader = await scene.cluster.leader()
    deaf = scene.rng.random() < 0.5
    scene.note(f"{leader.name}, the leader, {'hears nothing' if deaf else 'is not heard'}")
    scene.cluster.links.around(leader.name, BLOCKED, sends=not deaf, receives=deaf)
    await scene.hold(3, 6)
    await scene.must_not_lead(leader)


async def bridge(scene: Scene) -> None:
    """The leader and one follower do not reach each other; both reach the third."""
    leader = await scene.cluster.leader()
    other = scene.rng.choice(list(scene.cluster.others(leader)))
    scene.note(f"{leader.name}, the leader, and {other.name}")
    scene.cluster.links.between(leader.name, other.name, BLOCKED)
    await scene.hold(4, 8)


async def loss(scene: Scene) -> None:
    """Packets vanish between all nodes, some arrive twice."""
    share = scene.rng.choice((0.02, 0.1, 0.25))
    scene.note(f"{share:.0%} everywhere")
    scene.cluster.links.all(Quality(loss=share, duplicate=0.02))
    await scene.hold(4, 8)


async def delay(scene: Scene) -> None:
    """Every packet between nodes takes longer, each by itself."""
    seconds = scene.rng.choice((0.02, 0.1, 0.3))
    scene.note(f"{seconds * 1000:.0f} to {seconds * 2000:.0f} ms everywhere")
    scene.cluster.links.all(Quality(delay=seconds, jitter=seconds))
    await scene.hold(4, 8)


async def slow_sync(scene: Scene) -> None:
    """Each fsync of the leader takes seconds."""
    leader = await scene.leader()
    leader.plant(f"slow {scene.rng.choice((0.2, 1, 4)):g}")
    await scene.hold(4, 8)


async def failing_sync(scene: Scene) -> None:
    """The leader's fsync reports an error: it must end, and not acknowledge."""
    leader = await scene.leader()
    leader.may_die = True
    leader.plant("fail")
    await scene.hold(2, 5)
    await _ended(leader, scene)


async def disk_full(scene: Scene) -> None:
    """A node's disk has no room left: it refuses writes by name, or ends."""
    node = await (scene.leader() if scene.rng.random() < 0.5 else scene.follower())
    node.may_die = True
    await asyncio.to_thread(node.fill_disk)
    await scene.hold(3, 6)
    node.heal_disk()
    await scene.cluster.recover()
    await scene.cluster.end_alarms()


async def wall_clock(scene: Scene) -> None:
    """A wall clock steps by seconds to weeks, forward or back; it may stay so, and all may be killed then."""
    cluster, rng = scene.cluster, scene.rng
    stepped: list[tuple[ChaosNode, float]] = []
    for node in rng.sample([await cluster.leader(), scene.any()], rng.choice((1, 2))):
        step = rng.choice((-1, 1)) * rng.choice(CLOCK_STEPS) * rng.uniform(0.5, 1.5)
        stepped.append((node, step))
        node.step_clock(step)
        scene.note(f"{node.name} {step:+.1f} s")
    await scene.hold(1, 4)
    if rng.random() < 0.5:
        scene.note("all nodes killed")
        await asyncio.gather(*(node.kill() for node in cluster.nodes))
    elif rng.random() < 0.5:
        scene.note("set right again")
        for node, step in stepped:
            node.step_clock(-step)


async def kill_while_sending(scene: Scene) -> None:
    """A follower far behind gets a snapshot; the leader is killed while it sends it."""
    cluster = scene.cluster
    follower = await scene.follower()
    await follower.kill()
    async with cluster.client(session=False, timeout=10) as client:
        await _write_bulk(client, scene.rng)
    leader = await scene.leader()
    cluster.links.between(leader.name, follower.name, Quality(delay=0.05))
    await cluster.start(follower)

    async def receives() -> bool:
        return follower.receives_snapshot()

    with suppress(TimeoutError):
        await until(receives, 12, "a snapshot")
        scene.note("while it sent a snapshot")
        await asyncio.sleep(scene.rng.uniform(0, 0.3))
    await leader.kill()
    await scene.hold(1, 3)


async def _write_bulk(client: Client, rng: random.Random) -> None:
    """Data, and entries enough that the log is compacted beyond what the follower has."""
    for number in range(BULK_KEYS):
        with suppress(errors.ConnectKvError):
            await client.put(f"bulk/{number}", rng.randbytes(BULK_BYTES))
    for _ in range(12):
        with suppress(errors.ConnectKvError):
            async with asyncio.TaskGroup() as puts:
                for number in range(60):
                    puts.create_task(_put(client, f"bulk/small{number}"))


async def _put(client: Client, key: str) -> None:
    with suppress(errors.ConnectKvError):
        await client.put(key, b"x", timeout=3)


async def _ended(node: ChaosNode, scene: Scene) -> None:
    try:
        await node.wait(15)
    except TimeoutError:
        scene.cluster.troubles.append(f"{node.name} goes on although its fsync fails: {node.log_tail(3)}")


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault: how it is brought about, and what it needs."""

    run: Callable[[Scene], Awaitable[None]]
    group: str
    """Its colour in the report."""
    small_disk: bool = False
    """Needs small disks, which need root."""

    @property
    def text(self) -> str:
        """What the fault does, in words."""
        return (self.run.__doc__ or "").strip()


FAULTS: dict[str, Fault] = {
    "kill-leader": Fault(kill_leader, "process"),
    "kill-follower": Fault(kill_follower, "process"),
    "kill-all": Fault(kill_all, "process"),
    "pause-leader": Fault(pause_leader, "process"),
    "pause-any": Fault(pause_any, "process"),
    "isolate-leader": Fault(isolate_leader, "network"),
    "isolate-follower": Fault(isolate_follower, "network"),
    "one-way": Fault(one_way, "network"),
    "bridge": Fault(bridge, "network"),
    "loss": Fault(loss, "network"),
    "delay": Fault(delay, "network"),
    "slow-fsync": Fault(slow_sync, "disk"),
    "failing-fsync": Fault(failing_sync, "disk"),
    "disk-full": Fault(disk_full, "disk", small_disk=True),
    "wall-clock": Fault(wall_clock, "process"),
    "snapshot-kill": Fault(kill_while_sending, "process"),
}
"""By the names that --faults takes."""
