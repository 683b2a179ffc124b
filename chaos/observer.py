"""Who leads, asked of every node several times a second."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import Enum
from typing import NamedTuple

import connect_kv
from chaos.nodes import ChaosCluster, ChaosNode
from chaos.recording import Log

EVERY = 0.25


class ObservedRole(Enum):
    """How a node looks from outside."""

    LEADER = "leader"
    FOLLOWER = "follower"
    ALONE = "knows no leader"
    SILENT = "does not answer"
    PAUSED = "paused"
    DOWN = "not running"


class Look(NamedTuple):
    """One look at one node."""

    time: float
    node: str
    role: ObservedRole
    term: int


class Observer:
    """Looks at all nodes until cancelled."""

    def __init__(self, cluster: ChaosCluster, log: Log) -> None:
        self._cluster = cluster
        self._log = log
        self.looks: list[Look] = []
        self.leaders: dict[int, set[str]] = {}
        """By term: who said that it leads."""

    async def run(self) -> None:
        """See the class."""
        async with asyncio.TaskGroup() as tasks:
            for node in self._cluster.nodes:
                tasks.create_task(self._follow(node))

    async def _follow(self, node: ChaosNode) -> None:
        async with connect_kv.connect(node.client_address, session=False) as client:
            while True:
                role, term = await self._look(node, client)
                self.looks.append(Look(self._log.now, node.name, role, term))
                if role is ObservedRole.LEADER:
                    self.leaders.setdefault(term, set()).add(node.name)
                await asyncio.sleep(EVERY)

    async def _look(self, node: ChaosNode, client: connect_kv.Client) -> tuple[ObservedRole, int]:
        if not node.running:
            return ObservedRole.DOWN, 0
        if node.paused:
            return ObservedRole.PAUSED, 0
        with suppress(connect_kv.ConnectKvError, OSError, TimeoutError):
            status = await client.status(node.client_address, timeout=1)
            if status.leader == status.header.member_id:
                return ObservedRole.LEADER, status.raftTerm
            return (ObservedRole.FOLLOWER if status.leader else ObservedRole.ALONE), status.raftTerm
        return (
            ObservedRole.PAUSED if node.paused else ObservedRole.SILENT if node.running else ObservedRole.DOWN
        ), 0

    def violations(self) -> list[str]:
        """At most one leader in each term."""
        return [
            f"term {term} had the leaders {', '.join(sorted(names))}"
            for term, names in self.leaders.items()
            if len(names) > 1
        ]
