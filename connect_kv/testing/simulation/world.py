"""World: a cluster of real members, and clients of it, on virtual time from one seed.

Only what `server.composition.Seams` names is replaced, and the client's channel. The same seed gives
the same run: every choice comes from it, and nothing depends on hashes or addresses in memory.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import random
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import grpc.aio

from connect_kv.client.client import Client
from connect_kv.config import InitialMember, ServerConfig
from connect_kv.errors import ConnectKvError
from connect_kv.node.config import NodeConfig
from connect_kv.peer_protocol import PeerMessage
from connect_kv.raft.messages import AppendRequest
from connect_kv.testing.simulation.channel import ClientNetwork
from connect_kv.testing.simulation.host import MachineFactories, SimulatedHost
from connect_kv.testing.simulation.invariants import Ledger, Violation
from connect_kv.testing.simulation.process import SimLoop, SimTask
from connect_kv.testing.simulation.reference import ReferenceState
from connect_kv.transport.memory import Faults, MemoryNetwork

T = TypeVar("T")

GC_SECONDS = 5.0
GC_STEPS = 50_000
"""Garbage is collected after both, and never in between: when it is must not depend on chance."""


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """What a world consists of."""

    seed: int
    members: int = 3
    machines: MachineFactories | None = None
    clock_skew: float = 0.0
    """Wall clocks differ by up to so many seconds."""
    clock_drift: float = 0.02
    """Monotonic clocks run faster or slower by up to this part; at most 0.04."""
    step_limit: int | None = None
    fast: bool = True
    """A tenth of the usual timeouts, so that a second holds several elections."""


class World:
    """Machines, networks, clients, and the ledger of what must never happen. One `run` each."""

    def __init__(self, config: WorldConfig) -> None:
        self.config = config
        self.loop = SimLoop(step_limit=config.step_limit)
        self.rng = self.chance("world")
        self.ledger = Ledger(self.fail)
        self._read_at: dict[int, float] = {}
        """When a wall clock first showed a time: entries are stamped with it when they are proposed."""
        self.reference = ReferenceState(self.ledger.violated, self.loop.time, self._read_at.get)
        self.ledger.on_commit(self.reference.applied)
        self.peers = MemoryNetwork(
            self.chance("peers"), faults=Faults(delay=(0.0002, 0.002), retry=0.05, refused_pause=0.2)
        )
        self.clients = ClientNetwork(self.chance("clients"), self._listener)
        self.hosts: list[SimulatedHost] = []
        self.violation: Violation | None = None
        self.steps_at_end = 0
        self._digest = hashlib.blake2b(digest_size=16)
        self._members = tuple(
            InitialMember(name=f"n{number}", peer_address=f"n{number}:2380")
            for number in range(1, config.members + 1)
        )
        self._limits = self.chance("limits")
        self._tick_ms = self._limits.choice((10, 20))
        for member in self._members:
            self._add_host(member.name, joins=False)
        self.loop.set_exception_handler(self._unhandled)

    # Running.

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run to the end of `main`. Raises Violation, StepLimit, or what `main` raises."""
        with _quiet(self), _collected_by_hand():
            try:
                return self.loop.run_until_complete(self._guarded(main))
            except RuntimeError:
                if self.loop.stopped is None:
                    raise
                raise (self.violation or self.loop.stopped) from None
            finally:
                self.steps_at_end = self.loop.steps
                self._close()

    async def _guarded(self, main: Coroutine[Any, Any, T]) -> T:
        collector = self.loop.create_task(self._collect())
        try:
            return await main
        finally:
            collector.cancel()

    async def _collect(self) -> None:
        collected = 0
        while True:
            await asyncio.sleep(GC_SECONDS)
            if self.loop.steps - collected >= GC_STEPS:
                collected = self.loop.steps
                gc.collect()

    def fail(self, violation: Violation) -> None:
        """Something that must never happen has happened: the run ends."""
        if self.violation is None:
            self.violation = violation
            self.loop.end(violation)

    def broken(self, host: SimulatedHost, error: BaseException) -> None:
        """A member ended with an error that no fault explains."""
        self.fail(Violation(f"{host.name} failed: {type(error).__name__}: {error}"))

    def sees(self, message: PeerMessage) -> None:
        """A message leaves a member: for the ledger, and for the history's hash."""
        self.ledger.sent(message)
        text = f"{self.loop.now:.6f} {type(message).__name__} {message.source} {message.target}"
        if isinstance(message, AppendRequest):
            term, index = message.prev
            text += f" {message.term} {term} {index} {len(message.entries)} {message.commit_index}"
        self._digest.update(text.encode())

    @property
    def digest(self) -> str:
        """A hash of everything members said to each other and when: equal for equal runs."""
        return self._digest.hexdigest()

    @property
    def now(self) -> float:
        """Virtual seconds since the beginning."""
        return self.loop.time()

    def chance(self, what: str) -> random.Random:
        """A source of chance of its own for each purpose: one more draw here changes nothing there."""
        return random.Random(f"{self.config.seed} {what}")

    # Members.

    def start(self) -> None:
        """Start all members."""
        for host in self.hosts:
            host.run()

    def host(self, name: str) -> SimulatedHost:
        """The machine of that name. Raises ValueError."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise ValueError(
            f"there is no member {name!r}; there are {', '.join(one.name for one in self.hosts)}"
        )

    def add_host(self) -> SimulatedHost:
        """One more machine, whose member will join the running cluster. It must be added there first."""
        return self._add_host(f"n{len(self.hosts) + 1}", joins=True)

    @property
    def leader(self) -> SimulatedHost | None:
        """Who leads in the highest term."""
        leaders = [host for host in self.hosts if host.leads and not host.paused]
        return max(leaders, key=lambda host: host.running.node.term, default=None)

    async def until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait until it holds. A Violation if it does not come to."""
        end = self.now + seconds
        while not condition():
            if self.now >= end:
                raise Violation(f"waited {seconds:g} s for {what}")
            await asyncio.sleep(0.02)

    async def agreed(self, seconds: float = 20.0) -> SimulatedHost:
        """Wait for a leader that every member follows that runs, and return it."""

        def follow() -> bool:
            leader = self.leader
            if leader is None:
                return False
            node = leader.running.node
            members = {member.name for member in node.membership.members}
            return all(
                host.running.node.leader_id == node.identity.node_id
                for host in self.hosts
                if host.name in members and host.up and not host.paused
            )

        await self.until(follow, seconds, "a leader that all follow")
        leader = self.leader
        assert leader is not None
        return leader

    async def stop(self) -> None:
        """End all members at once."""
        for host in self.hosts:
            host.wanted = False
            await host.kill()

    # Clients.

    def client(self, name: str, *, session: bool = True, timeout: float = 5.0) -> Client:
        """A client on a machine of that name, which knows all members."""
        addresses = [host.client_address for host in self.hosts if not host.removed]
        rng = self.chance(f"client {name}")
        rng.shuffle(addresses)
        return self._client(name, addresses, rng, session=session, timeout=timeout)

    def client_of(self, name: str, address: str) -> Client:
        """One that knows a single member."""
        return self._client(name, [address], self.chance(name), session=False, timeout=2)

    def _client(
        self, name: str, addresses: list[str], rng: random.Random, *, session: bool, timeout: float
    ) -> Client:
        return Client(
            addresses,
            timeout=timeout,
            session=session,
            session_ttl=60,
            rng=rng,
            channel_to=self.clients.channel(name),
        )

    def _listener(self, address: str) -> SimulatedHost | None:
        return next((host for host in self.hosts if host.client_address == address and host.serves), None)

    # Making.

    def _add_host(self, name: str, *, joins: bool) -> SimulatedHost:
        config, rng = self.config, self.chance(f"clock {name}")
        host = SimulatedHost(
            self,
            name,
            seed=config.seed,
            members=(*self._members, InitialMember(name=name, peer_address=f"{name}:2380"))
            if joins
            else self._members,
            machines=config.machines or {},
            joins=joins,
            settings=self._settings,
            tune=self._tuned(self._limits.random() < 0.5),
        )
        host.clock.offset = rng.uniform(-1, 1) * config.clock_skew
        host.clock.told = self._clock_read
        host.clock.rate = 1 + rng.uniform(-1, 1) * config.clock_drift
        self.hosts.append(host)
        return host

    def _clock_read(self, wall: int) -> None:
        self._read_at.setdefault(wall, self.loop.now)

    def _settings(self, config: ServerConfig) -> ServerConfig:
        if self.config.fast:
            tick = self._tick_ms
            config = replace(config, tick_ms=tick, heartbeat_ms=2 * tick, election_ms=200)
        return replace(config, snapshot_count=64, catch_up_entries=24)

    def _tuned(self, small: bool) -> Callable[[NodeConfig], NodeConfig]:
        """Limits so small that seconds reach what takes hours in service."""

        def tune(config: NodeConfig) -> NodeConfig:
            raft = config.raft
            if small:
                raft = replace(
                    raft,
                    window_entries=8,
                    max_append_bytes=400,
                    max_inflight_appends=2,
                    small_append_bytes=60,
                )
            return replace(
                config,
                raft=raft,
                durable_seconds=0.5,
                durable_bytes=4 << 10,
                keep_entries=24,
                max_batch_commands=8 if small else config.max_batch_commands,
                apply_slice_bytes=300 if small else config.apply_slice_bytes,
                retained_results=16,
                forward_seconds=2.0 if self.config.fast else config.forward_seconds,
            )

        return tune

    # Ending.

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        owner = context.get("task") or context.get("future")
        if isinstance(owner, SimTask) and owner.process is not None and owner.process.dead:
            return
        error = context.get("exception")
        if isinstance(error, Violation):
            self.fail(error)
        elif not isinstance(error, ConnectKvError | grpc.aio.AioRpcError | ConnectionError):
            self.fail(Violation(f"unhandled: {context.get('message')}: {error!r}"))

    def _close(self) -> None:
        """Nothing of it may run later, when it is collected."""
        loop = self.loop
        loop.set_exception_handler(lambda loop, context: None)
        loop.stopped = loop.stopped or Violation("closing")
        for host in self.hosts:
            host.wanted = False
            host.cut_off(power=False)
            host.resume()
        for _ in range(100):
            tasks = sorted(asyncio.all_tasks(loop), key=hash)
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.wait(tasks, timeout=0.1))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


@contextmanager
def _collected_by_hand() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Complaints(logging.Handler):
    """A handler's unexpected exception, which its client only sees as a failed call, ends the run too."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() in ("call failed", "a task failed", "session: unexpected failure"):
            error = record.exc_info[1] if record.exc_info else None
            if not isinstance(error, ConnectKvError):
                self._world.fail(Violation(f"{record.getMessage()}: {error!r}"))


@contextmanager
def _quiet(world: World) -> Iterator[None]:
    logger = logging.getLogger("connect_kv")
    handler, propagate = _Complaints(world), logger.propagate
    logger.addHandler(handler)
    logger.propagate = logger.level != logging.NOTSET and propagate
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
