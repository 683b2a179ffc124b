"""What every activity of a node is given."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from connect_kv.interfaces import Clock, Identity, LogStore, ReplicatedState, Transport, Worker
from connect_kv.node.config import NodeConfig
from connect_kv.node.entry_spans import EntrySpans
from connect_kv.node.history import AppliedHistory
from connect_kv.raft.core import RaftCore

R = TypeVar("R")


class NodeMetrics(Protocol):
    """Called on the loop; must return at once."""

    def log_written(self, seconds: float, readies: int) -> None:
        """One batch of the log is durable; it merged that many steps of the core."""

    def applied(self, seconds: float, entries: int) -> None:
        """A slice of entries was applied."""

    def waiting(self, commands: int, size: int) -> None:
        """So many commands, of so many bytes, wait to be proposed (once a tick)."""

    def heartbeat_late(self, seconds: float) -> None:
        """A leader's heartbeats leave that much later than they should."""

    def loop_stalled(self, seconds: float) -> None:
        """Something held the loop for that long."""

    def follower_lag(self, node_id: int, entries: int) -> None:
        """How many entries that follower lacks (leader only, once a tick)."""

    def leader_changed(self, leader_id: int | None) -> None:
        """This node now follows that leader (or is it, or knows none)."""

    def snapshot_sent(self, ok: bool) -> None:
        """A snapshot was sent to a follower, or failed to arrive."""

    def snapshot_installed(self) -> None:
        """A snapshot from the leader replaced this node's state."""


class NoMetrics:
    """Measures nothing."""

    def log_written(self, seconds: float, readies: int) -> None:
        """Ignored."""

    def applied(self, seconds: float, entries: int) -> None:
        """Ignored."""

    def waiting(self, commands: int, size: int) -> None:
        """Ignored."""

    def heartbeat_late(self, seconds: float) -> None:
        """Ignored."""

    def loop_stalled(self, seconds: float) -> None:
        """Ignored."""

    def follower_lag(self, node_id: int, entries: int) -> None:
        """Ignored."""

    def leader_changed(self, leader_id: int | None) -> None:
        """Ignored."""

    def snapshot_sent(self, ok: bool) -> None:
        """Ignored."""

    def snapshot_installed(self) -> None:
        """Ignored."""


Answer = Callable[[str, bytes], Awaitable[bytes]]
"""``await answer(method, request)``: carries out a call of a service for another member."""


async def answer_nothing(method: str, request: bytes) -> bytes:
    """For a node without services."""
    raise NotImplementedError(method)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeContext(Generic[R]):
    """One node's core, disk, network, state, time and chance."""

    config: NodeConfig
    identity: Identity
    core: RaftCore
    log: LogStore
    log_worker: Worker
    """Every write of the log runs on it, and every read of more than a record."""
    state: ReplicatedState[R]
    transport: Transport
    clock: Clock
    rng: random.Random
    metrics: NodeMetrics
    history: AppliedHistory
    answer: Answer
    spans: EntrySpans | None = None
    """Tells of entries that are traced."""
