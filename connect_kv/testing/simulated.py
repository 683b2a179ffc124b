"""SimCluster: a simulated cluster for a test of yours, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

from connect_kv.client.client import Client
from connect_kv.framework.replicated import Replicated
from connect_kv.testing.simulation.host import SimulatedHost
from connect_kv.testing.simulation.world import World, WorldConfig

__all__ = ["SimCluster"]

T = TypeVar("T")
Machines = Mapping[str, Callable[[], Replicated]]


class SimCluster:
    """Members in one process whose time jumps. All faults are told by a member's name, ``n1`` and so on.

    The scenario is a coroutine given to `run`, which starts the members and ends them. In it, asyncio's
    own time is the virtual one: sleeping for an hour takes no longer than what happens in that hour. Whatever
    the members do, the safety of Raft and the answers of every member are checked; a violation ends `run`.
    """

    def __init__(
        self,
        machines: Machines | None = None,
        *,
        members: int = 3,
        seed: int = 1,
    ) -> None:
        """`machines`: what makes each, usually its class. The same `seed` gives the same run."""
        self._world = World(WorldConfig(seed=seed, members=members, machines=machines or {}))
        self._clients = 0

    def run(self, scenario: Coroutine[Any, Any, T]) -> T:
        """Start the members, run the scenario, end the members; once. Raises Violation, or what it raises."""
        return self._world.run(self._run(scenario))

    async def _run(self, scenario: Awaitable[T]) -> T:
        self._world.start()
        await self._world.agreed()
        try:
            return await scenario
        finally:
            await self._world.stop()

    @property
    def now(self) -> float:
        """Virtual seconds since the start."""
        return self._world.now

    @property
    def members(self) -> list[str]:
        """Names of all members."""
        return [host.name for host in self._world.hosts]

    async def leader(self) -> str:
        """Wait for a leader that all members follow that run; its name."""
        return (await self._world.agreed()).name

    def client(self, *, session: bool = True, timeout: float = 5.0) -> Client:
        """A client of all members, for ``async with``."""
        self._clients += 1
        return self._world.client(f"client-{self._clients}", session=session, timeout=timeout)

    def client_of(self, member: str) -> Client:
        """A client that knows only that member."""
        self._clients += 1
        return self._world.client_of(f"client-{self._clients}", self._host(member).client_address)

    async def advance(self, seconds: float) -> None:
        """Let so many virtual seconds pass."""
        await asyncio.sleep(seconds)

    def partition(self, *groups: Iterable[str]) -> None:
        """Members of different groups reach each other no more, until `heal`. Clients reach all."""
        self._world.peers.partition(*([self._host(name).peer_address for name in group] for group in groups))

    def isolate(self, member: str) -> None:
        """That member reaches no other, until `heal`."""
        self.partition([member], [name for name in self.members if name != member])

    def heal(self) -> None:
        """All reach each other again."""
        self._world.peers.heal()

    async def crash(self, member: str, *, power: bool = False) -> None:
        """End it as kill -9 does, or as a power failure, which takes what was not synced. It stays down."""
        host = self._host(member)
        host.wanted = False
        await host.kill(power=power)

    def restart(self, member: str) -> None:
        """Start one that is down."""
        self._host(member).run()

    def pause(self, member: str) -> None:
        """Stop it as SIGSTOP does: to itself, time will have jumped."""
        self._host(member).pause()

    def resume(self, member: str) -> None:
        """Let a paused member go on."""
        self._host(member).resume()

    def _host(self, name: str) -> SimulatedHost:
        return self._world.host(name)
