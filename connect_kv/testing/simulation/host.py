"""A simulated machine: a disk and clocks that survive, and the member's process that may not."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from connect_kv.config import InitialMember, ServerConfig
from connect_kv.errors import MemberRemoved, NodeStopped, RefusedToStart, StorageError
from connect_kv.frontend.grpc.router import MethodRoute
from connect_kv.interfaces import Clock, LogStore
from connect_kv.node.config import NodeConfig
from connect_kv.peer_protocol import PeerMessage
from connect_kv.server.composition import KvServer, Seams
from connect_kv.server.machines import hosted
from connect_kv.storage.memory import MemoryDisk
from connect_kv.testing.simulation.channel import ClientNetwork
from connect_kv.testing.simulation.clock import VirtualClock
from connect_kv.testing.simulation.invariants import Ledger, NodeWitness
from connect_kv.testing.simulation.observed import ObservedLog, ObservedState
from connect_kv.testing.simulation.peers import SimTransport
from connect_kv.testing.simulation.process import Process, SimLoop, across
from connect_kv.testing.simulation.worker import SimWorker
from connect_kv.transport.memory import MemoryNetwork

logger = logging.getLogger(__name__)

MachineFactories = Mapping[str, Callable[[], object]]
"""How to make each user machine, by name: a member that restarts starts with a new one."""

DATA = Path("/data")
_STRANGER = ("no member of the running cluster answers", "the running cluster has no member at")
"""Why a member that is to join cannot start yet."""
RESTART_SECONDS = (0.05, 2.0)
"""How long the service manager waits before it starts a failed member again."""


class Surroundings(Protocol):
    """What all machines share."""

    loop: SimLoop
    ledger: Ledger
    peers: MemoryNetwork
    clients: ClientNetwork

    def sees(self, message: PeerMessage) -> None:
        """A message leaves a member."""

    def broken(self, host: SimulatedHost, error: BaseException) -> None:
        """A member ended with an error that none of the faults explains."""


class SimulatedHost:
    """One machine. Its member is started, stopped, killed and paused; what is on its disk stays."""

    def __init__(
        self,
        around: Surroundings,
        name: str,
        *,
        seed: int,
        members: tuple[InitialMember, ...],
        machines: MachineFactories,
        joins: bool = False,
        settings: Callable[[ServerConfig], ServerConfig] = lambda config: config,
        tune: Callable[[NodeConfig], NodeConfig] = lambda config: config,
    ) -> None:
        self.name = name
        self.peer_address = f"{name}:2380"
        self.client_address = f"{name}:2379"
        self.rng = random.Random(f"{seed} {name}")
        self.disk = MemoryDisk(
            random.Random(f"{seed} {name} disk"), wal_bytes=self.rng.choice((2 << 10, 16 << 10))
        )
        self.clock = VirtualClock(loop=around.loop)
        self.slow_disk = 0.0
        """Added to what each operation of the disk takes, at most, seconds."""
        self.server: KvServer | None = None
        self.process: Process | None = None
        """Of the member that runs, or ran last."""
        self.wanted = False
        """Whether the service manager keeps it running."""
        self.excused = False
        """A fault explains whatever error ends the member next."""
        self.removed = False
        self._around = around
        self._transport: SimTransport | None = None
        self.machines = machines
        self._tune = tune
        self._starts = 0
        self._manager: asyncio.Task[None] | None = None
        self._died = asyncio.Event()
        self.config = settings(
            ServerConfig(
                name=name,
                data_dir=DATA / name,
                listen_client=self.client_address,
                listen_peer=self.peer_address,
                listen_http="",
                initial_cluster=members,
                initial_cluster_state="existing" if joins else "new",
            )
        )

    @property
    def up(self) -> bool:
        """Whether its member has started and lives."""
        return self.server is not None and self.process is not None and not self.process.dead

    @property
    def running(self) -> KvServer:
        """The member that is up."""
        assert self.server is not None
        return self.server

    @property
    def serves(self) -> bool:
        """Whether clients can connect to it."""
        return self.up

    @property
    def leads(self) -> bool:
        """Whether it believes to lead."""
        return self.up and self.running.node.is_leader

    @property
    def paused(self) -> bool:
        """Whether it stands still."""
        return self.process is not None and self.process.paused

    @property
    def _explained(self) -> bool:
        """Whether a fault explains that the member ends with an error."""
        return self.excused or self.disk.failing()

    def route(self, method: str) -> MethodRoute:
        """See `channel.Listener`."""
        return self.running.services.router.route(method)

    # Like an operator.

    def run(self) -> None:
        """Have it started, and started again whenever it fails."""
        self.wanted = True
        if self._manager is None or self._manager.done():
            self._manager = self._around.loop.create_task(self._manage(), name=f"{self.name} manager")

    async def stop(self) -> None:
        """In order, and not started again. It goes on if its caller is cancelled."""
        self.wanted = False
        await asyncio.shield(self._around.loop.create_task(self._stop()))

    async def _stop(self) -> None:
        server, process = self.server, self.process
        if server is not None and process is not None and not process.dead:
            if process.paused:
                process.resume()
            stopping = process.spawn(server.stop())
            await asyncio.wait([stopping])
            excused = self._explained
            await self._end(process)
            if not stopping.cancelled() and (error := stopping.exception()) is not None and not excused:
                self._around.broken(self, error)

    async def kill(self, *, power: bool = False) -> None:
        """SIGKILL, or power loss: then what was not synced may be gone. Started again if it is wanted."""
        process = self.process
        if process is not None and not process.dead:
            self.cut_off(power=power)
            await asyncio.shield(self._around.loop.create_task(self._end(process)))

    def cut_off(self, *, power: bool) -> None:
        """The first, instant part of `kill`: from now on the process changes nothing any more."""
        process = self.process
        if process is None or process.dead:
            return
        process.dead = True
        (self.disk.crash if power else self.disk.kill)(self.config.data_dir)
        if self._transport is not None:
            self._transport.abort()
        self._around.clients.server_gone(process)
        self._died.set()

    def pause(self) -> None:
        """SIGSTOP."""
        if self.process is not None:
            self.process.pause()

    def resume(self) -> None:
        """SIGCONT."""
        if self.process is not None:
            self.process.resume()

    async def wipe(self) -> None:
        """Lose the data directory. The member must be down."""
        self.disk.kill(self.config.data_dir)
        self.disk.remove(self.config.data_dir)

    # The service manager.

    async def _manage(self) -> None:
        while self.wanted:
            self._died.clear()
            if not await self._start():
                self.wanted = self.wanted and not self.removed
                if self.wanted:
                    await asyncio.sleep(self.rng.uniform(*RESTART_SECONDS))
                continue
            await self._until_ended()
            if self.wanted:
                await asyncio.sleep(self.rng.uniform(*RESTART_SECONDS))

    async def _start(self) -> bool:
        self._starts += 1
        self.disk.kill(self.config.data_dir)
        # What a fault did to the process before explains nothing of this one.
        self.excused = False
        process = self.process = self._around.loop.process(f"{self.name}#{self._starts}")
        machines = {name: hosted(make(), name) for name, make in self.machines.items()}
        made: list[KvServer] = []
        server = KvServer(self.config, machines, seams=self._seams(process, made))
        made.append(server)
        try:
            await self._started(process, server)
        except (ConnectionError, MemberRemoved, NodeStopped, RefusedToStart, StorageError) as error:
            self._explain(process, error)
            await self._end(process)
            return False
        except Exception as error:
            self._around.broken(self, error)
            await self._end(process)
            return False
        if process.dead:
            return False
        self.server = server
        return True

    async def _started(self, process: Process, server: KvServer) -> None:
        loop = self._around.loop
        starting = loop.create_task(across(process, process.spawn(server.start())))
        died = loop.create_task(self._died.wait())
        ends: list[asyncio.Future[Any]] = [starting, died]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        died.cancel()
        if not starting.done():
            starting.cancel()
            raise ConnectionError(f"{process.name} died while it started")
        starting.result()

    def _explain(self, process: Process, error: BaseException) -> None:
        """A start may fail for lack of the others, or because of a fault."""
        if isinstance(error, MemberRemoved):
            self.removed = True
        elif isinstance(error, NodeStopped) or any(text in str(error) for text in _STRANGER):
            pass  # the next start will be told more
        elif not (process.dead or self._explained):
            self._around.broken(self, error)
        self.excused = False

    async def _until_ended(self) -> None:
        server, process = self.server, self.process
        assert server is not None
        assert process is not None
        died = self._around.loop.create_task(self._died.wait())
        ends: list[asyncio.Future[Any]] = [server.failed, died]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        died.cancel()
        if server.failed.done() and not process.dead:
            error = server.failed.result()
            if isinstance(error, MemberRemoved):
                self.removed, self.wanted = True, False
            elif not self._explained:
                self._around.broken(self, error)
            self.excused = False
            # What the process would do on its way out changes nothing any more.
            self.cut_off(power=False)
        await self._end(process)

    async def _end(self, process: Process) -> None:
        if not process.dead:
            self.cut_off(power=False)
        await process.kill()
        if self.process is process:
            self.server = None

    # What it is made of.

    def _seams(self, process: Process, made: Sequence[KvServer]) -> Seams:
        ledger, around = self._around.ledger, self._around
        node_id = 0

        def transport(config: ServerConfig, clock: Clock) -> SimTransport:
            self._transport = SimTransport(around.peers.transport(config.listen_peer), process, around.sees)
            return self._transport

        def log(inner: LogStore) -> LogStore:
            nonlocal node_id
            assert inner.identity is not None
            node_id = inner.identity.node_id
            return ObservedLog(inner, witness())

        def witness() -> NodeWitness:
            return ledger.witness(node_id, lambda: made[0].node.raft_status(), self.name)

        def tune(config: NodeConfig) -> NodeConfig:
            return self._tune(replace(config, watchdog_seconds=0))

        return Seams(
            disk=self.disk,
            clock=self.clock,
            rng=random.Random(self.rng.getrandbits(64)),
            transport=transport,
            worker=lambda name: SimWorker(process, self._durations(name)),
            listens=False,
            tune=tune,
            log=log,
            state=lambda inner: ObservedState(inner, witness()),
        )

    def _durations(self, name: str) -> Callable[[], tuple[float, float]]:
        rng = random.Random(self.rng.getrandbits(64))
        longest = {"log": 0.004, "state": 0.002}.get(name, 0.0005)

        def duration() -> tuple[float, float]:
            seconds = rng.random() * longest
            if self.slow_disk and name != "apply":
                seconds += rng.random() * self.slow_disk
            # The effect comes at one end or the other: a crash falls before it or after it.
            return (seconds, 0.0) if rng.random() < 0.5 else (0.0, seconds)

        return duration
