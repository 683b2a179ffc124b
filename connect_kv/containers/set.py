"""A set of texts."""

from __future__ import annotations

import builtins
from collections.abc import Iterable

from connect_kv.client.client import Client
from connect_kv.containers.container import TypedClient, forwarded
from connect_kv.framework.replicated import Replicated, command, query


class Set(Replicated):
    """Texts, each once, in the order in which they came: that of a Python set is not the same everywhere."""

    def __init__(self) -> None:
        self.held: dict[str, None] = {}

    @command
    def add(self, member: str) -> bool:
        """Add it: whether it is new. Of many who add the same one, one is told so."""
        size = len(self.held)
        self.held[member] = None
        return len(self.held) > size

    @command
    def update(self, members: list[str]) -> int:
        """Add several; how many are new."""
        size = len(self.held)
        self.held.update(dict.fromkeys(members))
        return len(self.held) - size

    @command
    def discard(self, member: str) -> bool:
        """Remove it, if it is there: whether it was."""
        was = member in self.held
        self.held.pop(member, None)
        return was

    @command
    def pop(self) -> str:
        """Remove the one that came first. Raises KeyError if there is none."""
        if not self.held:
            raise KeyError("the set is empty")
        first = next(iter(self.held))
        del self.held[first]
        return first

    @command
    def clear(self) -> int:
        """Remove all; how many there were."""
        size = len(self.held)
        self.held = {}
        return size

    @query
    def contains(self, member: str) -> bool:
        """Whether it is there."""
        return member in self.held

    @query
    def size(self) -> int:
        """How many there are."""
        return len(self.held)

    @query
    def members(self) -> list[str]:
        """All, in the order in which they came."""
        return list(self.held)


class SetClient(TypedClient[Set]):
    """A replicated set of texts."""

    def __init__(self, client: Client, name: str) -> None:
        super().__init__(client, name, Set)

    add = forwarded(Set.add)
    discard = forwarded(Set.discard)
    pop = forwarded(Set.pop)
    clear = forwarded(Set.clear)
    contains = forwarded(Set.contains)
    size = forwarded(Set.size)

    async def update(self, members: Iterable[str]) -> int:
        """Add several, all at once; how many are new."""
        return await self._call(Set.update, list(members))

    async def members(self) -> builtins.set[str]:
        """All of them, at one moment."""
        return builtins.set(await self._call(Set.members))
