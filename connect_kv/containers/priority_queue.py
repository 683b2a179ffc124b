"""A queue by priority."""

from __future__ import annotations

from typing import Any, TypeVar

from connect_kv.client.client import Client
from connect_kv.containers.waiting import Waiting, WaitingClient
from connect_kv.framework.replicated import command

V = TypeVar("V")


class PriorityQueue(Waiting):
    """The lowest priority first; those of the same as they came."""

    @command
    def put(self, value: Any, priority: int = 0) -> int:
        """Add an item behind those of its priority; returns its number."""
        return self._put(value, priority)


class PriorityQueueClient(WaitingClient[PriorityQueue, V]):
    """A replicated queue by priority: the lowest comes first."""

    def __init__(self, client: Client, name: str, value: type[V], *, ttl: int = 10) -> None:
        """`ttl`: seconds after which what a vanished taker had comes back."""
        super().__init__(client, name, PriorityQueue, value, ttl)

    async def put(self, value: V, priority: int = 0) -> int:
        """Add an item behind those of its priority; returns its number."""
        return await self._call(PriorityQueue.put, self._values.into(value), priority)
