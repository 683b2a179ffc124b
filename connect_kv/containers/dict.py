"""A dict with keys of text."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from connect_kv.client.client import Client
from connect_kv.containers.container import TypedClient, Values, forwarded
from connect_kv.framework.replicated import Replicated, command, query

V = TypeVar("V")
D = TypeVar("D")


class Dict(Replicated):
    """Plain data under keys of text, in the order in which they were first set."""

    def __init__(self) -> None:
        self.held: dict[str, Any] = {}

    @command
    def set(self, key: str, value: Any) -> None:
        """Set the value of a key."""
        self.held[key] = value

    @command
    def update(self, values: dict[str, Any]) -> None:
        """Set several, all at once."""
        self.held.update(values)

    @command
    def setdefault(self, key: str, value: Any) -> Any:
        """Set it if it is not there; what is there then."""
        return self.held.setdefault(key, value)

    @command
    def replace(self, key: str, old: Any, new: Any) -> bool:
        """Set it if it is `old`: whether it was."""
        if key not in self.held or self.held[key] != old:
            return False
        self.held[key] = new
        return True

    @command
    def pop(self, key: str) -> Any:
        """Remove it; what it was. Raises KeyError."""
        if key not in self.held:
            raise KeyError(key)
        return self.held.pop(key)

    @command
    def discard(self, key: str) -> bool:
        """Remove it, if it is there: whether it was."""
        was = key in self.held
        self.held.pop(key, None)
        return was

    @command
    def clear(self) -> int:
        """Remove all; how many there were."""
        size = len(self.held)
        self.held = {}
        return size

    @query
    def find(self, key: str) -> list[Any]:
        """What stands there, in a list; an empty one if nothing does."""
        return [self.held[key]] if key in self.held else []

    @query
    def size(self) -> int:
        """How many there are."""
        return len(self.held)

    @query
    def keys(self) -> list[str]:
        """All keys, in the order in which they were first set."""
        return list(self.held)

    @query
    def items(self) -> dict[str, Any]:
        """All keys with their values."""
        return self.held


class DictClient(TypedClient[Dict], Generic[V]):
    """A replicated dict with values of one type: a dataclass, say, or anything that is plain data."""

    def __init__(self, client: Client, name: str, value: type[V]) -> None:
        super().__init__(client, name, Dict)
        self._values = Values(value)

    discard = forwarded(Dict.discard)
    clear = forwarded(Dict.clear)
    size = forwarded(Dict.size)
    keys = forwarded(Dict.keys)

    async def get(self, key: str, default: D | None = None) -> V | D | None:
        """What stands there, or `default`."""
        found = await self._call(Dict.find, key)
        return self._values.out(found[0]) if found else default

    async def set(self, key: str, value: V) -> None:
        """Set the value of a key."""
        await self._call(Dict.set, key, self._values.into(value))

    async def update(self, values: Mapping[str, V]) -> None:
        """Set several, all at once: nobody sees some of them alone."""
        await self._call(Dict.update, {key: self._values.into(value) for key, value in values.items()})

    async def setdefault(self, key: str, value: V) -> V:
        """Set it if it is not there; what is there then."""
        return self._values.out(await self._call(Dict.setdefault, key, self._values.into(value)))

    async def replace(self, key: str, old: V, new: V) -> bool:
        """Set it if it is `old`: whether it was."""
        return await self._call(Dict.replace, key, self._values.into(old), self._values.into(new))

    async def pop(self, key: str) -> V:
        """Remove it; what it was. Raises KeyError."""
        return self._values.out(await self._call(Dict.pop, key))

    async def contains(self, key: str) -> bool:
        """Whether it is there."""
        return bool(await self._call(Dict.find, key))

    async def items(self) -> builtins.dict[str, V]:
        """All of it, at one moment."""
        found = await self._call(Dict.items)
        return {key: self._values.out(value) for key, value in found.items()}
