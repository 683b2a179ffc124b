"""A queue."""

from __future__ import annotations

from typing import Any, TypeVar

from connect_kv.client.client import Client
from connect_kv.containers.waiting import Taken, Waiting, WaitingClient
from connect_kv.framework.replicated import command

V = TypeVar("V")

__all__ = ["Queue", "QueueClient", "Taken"]


class Queue(Waiting):
    """First in, first out; what was taken by somebody who vanished is first again."""

    @command
    def put(self, value: Any) -> int:
        """Add it at the end; its number."""
        return self._put(value, 0)

    @command
    def put_all(self, values: list[Any]) -> list[int]:
        """Add several at the end, all at once; their numbers."""
        return [self._put(value, 0) for value in values]


class QueueClient(WaitingClient[Queue, V]):
    """A replicated queue, as `asyncio.Queue`; `take` instead of `get` where nothing may be lost."""

    def __init__(self, client: Client, name: str, value: type[V], *, ttl: int = 10) -> None:
        """`ttl`: seconds after which what a vanished taker had comes back."""
        super().__init__(client, name, Queue, value, ttl)

    async def put(self, value: V) -> int:
        """Add it at the end; its number."""
        return await self._call(Queue.put, self._values.into(value))

    async def put_all(self, values: list[V]) -> list[int]:
        """Add several at the end, all at once; their numbers."""
        return await self._call(Queue.put_all, [self._values.into(value) for value in values])
