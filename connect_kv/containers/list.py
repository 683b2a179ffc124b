"""A list."""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from connect_kv.client.client import Client
from connect_kv.containers.container import TypedClient, Values, forwarded
from connect_kv.framework.replicated import Replicated, command, query

V = TypeVar("V")


class List(Replicated):
    """Plain data in an order. Positions from the end are negative; those beyond it raise IndexError."""

    def __init__(self) -> None:
        self.held: builtins.list[Any] = []

    @command
    def append(self, value: Any) -> int:
        """Add it at the end; its position."""
        self.held.append(value)
        return len(self.held) - 1

    @command
    def extend(self, values: builtins.list[Any]) -> int:
        """Add several at the end, all at once; how many there are then."""
        self.held.extend(values)
        return len(self.held)

    @command
    def insert(self, at: int, value: Any) -> None:
        """Add it before that position."""
        self.held.insert(at, value)

    @command
    def set(self, at: int, value: Any) -> None:
        """Replace the value there."""
        self.held[at] = value

    @command
    def pop(self, at: int = -1) -> Any:
        """Remove the value there; what it was."""
        return self.held.pop(at)

    @command
    def remove(self, value: Any) -> None:
        """Remove the first that is equal. Raises ValueError."""
        self.held.remove(value)

    @command
    def clear(self) -> int:
        """Remove all; how many there were."""
        size = len(self.held)
        self.held = []
        return size

    @query
    def get(self, at: int) -> Any:
        """The value there."""
        return self.held[at]

    @query
    def slice(self, start: int = 0, stop: int | None = None) -> builtins.list[Any]:
        """Those at ``[start, stop)``, as Python slices."""
        return self.held[start:stop]

    @query
    def index(self, value: Any) -> int:
        """Where the first equal one is. Raises ValueError."""
        return self.held.index(value)

    @query
    def size(self) -> int:
        """How many there are."""
        return len(self.held)


class ListClient(TypedClient[List], Generic[V]):
    """A replicated list with values of one type."""

    def __init__(self, client: Client, name: str, value: type[V]) -> None:
        super().__init__(client, name, List)
        self._values = Values(value)

    clear = forwarded(List.clear)
    size = forwarded(List.size)

    async def append(self, value: V) -> int:
        """Add it at the end; its position."""
        return await self._call(List.append, self._values.into(value))

    async def extend(self, values: Iterable[V]) -> int:
        """Add several at the end, all at once; how many there are then."""
        return await self._call(List.extend, [self._values.into(value) for value in values])

    async def insert(self, at: int, value: V) -> None:
        """Add it before that position."""
        await self._call(List.insert, at, self._values.into(value))

    async def set(self, at: int, value: V) -> None:
        """Replace the value there. Raises IndexError."""
        await self._call(List.set, at, self._values.into(value))

    async def pop(self, at: int = -1) -> V:
        """Remove the value there; what it was. Raises IndexError."""
        return self._values.out(await self._call(List.pop, at))

    async def remove(self, value: V) -> None:
        """Remove the first that is equal. Raises ValueError."""
        await self._call(List.remove, self._values.into(value))

    async def get(self, at: int) -> V:
        """The value there. Raises IndexError."""
        return self._values.out(await self._call(List.get, at))

    async def slice(self, start: int = 0, stop: int | None = None) -> builtins.list[V]:
        """Those at ``[start, stop)``; without both, all, at one moment."""
        return [self._values.out(value) for value in await self._call(List.slice, start, stop)]

    async def index(self, value: V) -> int:
        """Where the first equal one is. Raises ValueError."""
        return await self._call(List.index, self._values.into(value))
