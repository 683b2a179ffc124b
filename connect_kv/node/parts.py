"""What every activity of a node works with."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from connect_kv.interfaces import Clock, Identity, LogStore, ReplicatedState, Transport, Worker
from connect_kv.node.config import NodeConfig
from connect_kv.node.history import History
from connect_kv.node.metrics import NodeMetrics
from connect_kv.raft.core import RaftCore

R = TypeVar("R")

Answer = Callable[[str, bytes], Awaitable[bytes]]
"""``await answer(method, request)``: carries out a call of a service for another member."""


async def answer_nothing(method: str, request: bytes) -> bytes:
    """For a node without services."""
    raise NotImplementedError(method)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts(Generic[R]):
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
    history: History
    answer: Answer
