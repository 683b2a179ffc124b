"""The user machine of chaos runs."""

from __future__ import annotations

from connect_kv.framework.replicated import Replicated, command, query


class Lists(Replicated):
    """Lists that are only appended to: an item that is there twice, or not, shows."""

    def __init__(self) -> None:
        self.items: dict[str, list[int]] = {}

    @command
    def append(self, name: str, item: int) -> list[int]:
        """Add at the end; what the list is then."""
        found = self.items.setdefault(name, [])
        found.append(item)
        return found

    @query
    def read(self, name: str) -> list[int]:
        """The list; empty if nobody appended."""
        return self.items.get(name, [])
