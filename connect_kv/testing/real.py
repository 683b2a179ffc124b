"""RealCluster: processes on loopback for a test of yours, which can be cut off from each other."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

from connect_kv.testing.network import Links, Quality
from connect_kv.testing.processes import NodeProcess, ProcessCluster
from connect_kv.testing.proxy import ProxyNetwork

__all__ = ["Member", "RealCluster"]

Member = NodeProcess | str
"""A node, or its name: ``n1`` and so on."""


class RealCluster(ProcessCluster):
    """Three nodes, or more or fewer, with a proxy of ours before each one's peer port. An async context
    manager: entering waits until all serve, leaving kills what runs.

    Time is the machine's own: a fault lasts as long as the test lets it. Wait for what you expect with
    `connect_kv.testing.processes.until`, not by sleeping.
    """

    def __init__(self, directory: Path, size: int = 3, *, machines: Mapping[str, str] | None = None) -> None:
        super().__init__(directory, size, machines=machines)
        self._network = ProxyNetwork(random.Random(1))
        self._links = Links(self._network, self.members)

    async def __aenter__(self) -> RealCluster:
        places = await self._network.start(self.members)
        self.initial_cluster = ",".join(f"{name}={place.peer_address}" for name, place in places.items())
        for node in self.nodes:
            node.client_port, node.peer_port, node.http_port = places[node.name].ports
            node.arguments[-1] = self.initial_cluster
            node.arguments += ["--advertise-peer", places[node.name].peer_address]
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, trace)
        await self._network.close()

    @property
    def members(self) -> list[str]:
        """Names of all nodes."""
        return [node.name for node in self.nodes]

    async def start(self) -> None:
        """Start those that do not run, and wait until all serve."""
        for node in self.nodes:
            if not node.running:
                await self._start(node)
        for node in self.nodes:
            await node.ready()

    def partition(self, *groups: Iterable[Member]) -> None:
        """Nodes of different groups reach each other no more, until `heal`. Clients reach all."""
        sides = [[self.node(member).name for member in group] for group in groups]
        for number, side in enumerate(sides):
            for name in side:
                for other in (one for later in sides[number + 1 :] for one in later):
                    self._links.between(name, other, Quality(blocked=True))

    def isolate(self, member: Member) -> None:
        """That node reaches no other, until `heal`."""
        own = self.node(member)
        self.partition([own], [node for node in self.nodes if node is not own])

    def heal(self) -> None:
        """All reach each other again."""
        self._links.heal()

    async def crash(self, member: Member) -> None:
        """End it as kill -9 does. It stays down until `restart`."""
        await self.node(member).kill()

    async def restart(self, member: Member) -> None:
        """Start one that is down; does not wait until it serves (see `NodeProcess.ready`)."""
        await self._start(self.node(member))

    def pause(self, member: Member) -> None:
        """Stop it (SIGSTOP), until `resume`."""
        self.node(member).signal(signal.SIGSTOP)

    def resume(self, member: Member) -> None:
        """Let it go on (SIGCONT)."""
        self.node(member).signal(signal.SIGCONT)

    def node(self, member: Member) -> NodeProcess:
        """The node of that name. Raises ValueError."""
        if isinstance(member, NodeProcess):
            return member
        for node in self.nodes:
            if node.name == member:
                return node
        raise ValueError(f"there is no member {member!r}; there are {', '.join(self.members)}")

    async def _start(self, node: NodeProcess) -> None:
        await node.start()
        self._network.started(node.name, node.pid)
