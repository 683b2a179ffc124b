"""Nodes in one process: the real core, log store and memory transport, in virtual time."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from connect_kv.node import startup
from connect_kv.node.config import NodeConfig
from connect_kv.node.context import NoMetrics
from connect_kv.node.node import RaftNode
from connect_kv.peer_protocol import Description
from connect_kv.raft.config import RaftConfig
from connect_kv.raft.core import RaftCore
from connect_kv.raft.membership import MembershipChange
from connect_kv.raft.types import Member
from connect_kv.storage.log_store import EngineLogStore
from connect_kv.storage.memory import MemoryDisk
from connect_kv.testing.simulation.clock import VirtualClock
from connect_kv.transport.memory import MemoryNetwork, MemoryTransport
from tests.node.fakes import GatedWorker, Tally, Vault, payload


class Counted(NoMetrics):
    """Counts what a test asks about."""

    def __init__(self) -> None:
        self.snapshots_sent: list[bool] = []
        self.snapshots_installed = 0

    def snapshot_sent(self, ok: bool) -> None:
        self.snapshots_sent.append(ok)

    def snapshot_installed(self) -> None:
        self.snapshots_installed += 1


class Host:
    """One machine: its disk survives what happens to the node on it."""

    def __init__(self, cluster: "Trio", name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.address = f"{name}:2380"
        self.data_dir = Path("/") / name
        self.vault: Vault = {}
        self.metrics = Counted()
        self.clock = VirtualClock()
        self.up = False
        self.node: RaftNode[int]
        self.core: RaftCore
        self.state: Tally
        self.worker: GatedWorker
        self.transport: MemoryTransport
        self.log: EngineLogStore

    @property
    def id(self) -> int:
        return self.node.identity.node_id

    async def start(self, **settings: object) -> RaftNode[int]:
        """A node of the initial cluster, new or restarted."""
        await self._prepare()
        if self.log.identity is None:
            await startup.bootstrap(
                log=self.log,
                worker=self.worker,
                name=self.name,
                members=self.cluster.initial,
                token="",
                rng=self.cluster.rng,
                state_name="1",
            )
        return await self._run(None, settings)

    async def join(self, *ask: "Host", **settings: object) -> RaftNode[int]:
        """A node that was added to the running cluster."""
        await self._prepare()
        description = await startup.join(
            log=self.log,
            worker=self.worker,
            transport=self.transport,
            name=self.name,
            peer_address=self.address,
            ask=[host.address for host in ask],
            rng=self.cluster.rng,
            state_name="1",
        )
        return await self._run(description, settings)

    async def kill(self, *, power: bool = False) -> None:
        """kill -9, or power loss: then what was not synced may be gone."""
        if not self.up:
            return
        self.up = False
        self.transport.abort()
        (self.cluster.disk.crash if power else self.cluster.disk.kill)(self.data_dir)
        await self.node.abort()

    async def stop(self) -> None:
        self.up = False
        await self.node.stop()

    def wipe(self) -> None:
        self.cluster.disk.remove(self.data_dir)
        self.vault.clear()

    async def _prepare(self) -> None:
        self.worker = GatedWorker()
        self.transport = self.cluster.network.transport(self.address)
        self.log = EngineLogStore.open(self.cluster.disk, self.data_dir)

    async def _run(self, description: Description | None, settings: dict[str, object]) -> RaftNode[int]:
        identity = self.log.identity
        assert identity is not None
        self.state = Tally(self.vault, self.log.state_name)
        restored = startup.start_from(
            self.log.load(),
            node_id=identity.node_id,
            last_applied=self.state.last_applied,
            state_lost=False,
        )
        config = replace(
            NodeConfig(raft=RaftConfig(node_id=identity.node_id), watchdog_seconds=0, highest_command=49),
            **settings,  # type: ignore[arg-type]
        )
        rng = random.Random(self.cluster.rng.getrandbits(64))
        self.core = RaftCore(config.raft, restored, rng)
        self.node = RaftNode(
            config=config,
            core=self.core,
            restored=restored,
            log=self.log,
            log_worker=self.worker,
            state=self.state,
            transport=self.transport,
            clock=self.clock,
            rng=rng,
            metrics=self.metrics,
        )
        self.up = True
        await self.node.start(description)
        return self.node


class Trio:
    """Three hosts on one network."""

    def __init__(self, seed: int = 1) -> None:
        self.rng = random.Random(seed)
        self.disk = MemoryDisk(self.rng)
        self.network = MemoryNetwork(self.rng)
        self.hosts = [Host(self, name) for name in ("n1", "n2", "n3")]
        self.initial = [Member(node_id=0, name=h.name, peer_address=h.address) for h in self.hosts]

    def host(self, name: str) -> Host:
        """One more machine."""
        self.hosts.append(Host(self, name))
        return self.hosts[-1]

    async def start(self, **settings: object) -> Host:
        """Start all three; returns the leader once every node follows it."""
        for host in self.hosts:
            await host.start(**settings)
        return await self.agreed()

    @property
    def running(self) -> list[Host]:
        return [host for host in self.hosts if host.up]

    async def agreed(self, among: Sequence[Host] | None = None) -> Host:
        """Wait until they all follow one leader, which has committed in its term; returns it."""
        hosts = among if among is not None else self.running
        await eventually(lambda: _common_leader(hosts) is not None)
        leader = _common_leader(hosts)
        assert leader is not None
        await leader.node.read_barrier()
        return leader

    def followers(self, leader: Host) -> list[Host]:
        return [host for host in self.running if host is not leader]

    async def same_state(self, numbers: Sequence[int], among: Sequence[Host] | None = None) -> None:
        """Wait until all have applied exactly these."""
        hosts = among if among is not None else self.running
        await eventually(lambda: all(host.state.numbers == list(numbers) for host in hosts))

    async def add_learner(self, leader: Host, host: Host) -> int:
        """Add it to the cluster's membership; returns its id."""
        member = Member(node_id=0, name=host.name, peer_address=host.address)
        membership = await leader.node.change_membership(MembershipChange().add_learner(member))
        return next(m.node_id for m in membership.members if m.name == host.name)

    async def kill_all(self) -> None:
        for host in self.hosts:
            await host.kill()


def _common_leader(hosts: Sequence[Host]) -> Host | None:
    leaders = {host.node.leader_id for host in hosts}
    return next((host for host in hosts if leaders == {host.id} and host.node.is_leader), None)


async def eventually(condition: Callable[[], bool], *, within: float = 60.0) -> None:
    """Wait until it holds, in virtual seconds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within
    while not condition():
        assert loop.time() < end, "it did not come to hold"
        await asyncio.sleep(0.005)


async def put(host: Host, *numbers: int) -> Sequence[int]:
    """Propose one command for each number."""
    return await host.node.propose(payload(*numbers), len(numbers))
