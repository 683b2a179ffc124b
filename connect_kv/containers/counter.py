"""A number."""

from __future__ import annotations

from connect_kv.client.client import Client
from connect_kv.containers.container import TypedClient, forwarded
from connect_kv.framework.replicated import Replicated, command, query


class Counter(Replicated):
    """A number that is added to; of any size."""

    def __init__(self) -> None:
        self.total: int = 0

    @command
    def add(self, by: int = 1) -> int:
        """Add, and give the sum: each caller's is another one."""
        self.total += by
        return self.total

    @command
    def reset(self, to: int = 0) -> int:
        """Set it, and give what it was."""
        was, self.total = self.total, to
        return was

    @query
    def value(self) -> int:
        """What it stands at, every acknowledged `add` included."""
        return self.total


class CounterClient(TypedClient[Counter]):
    """A replicated number."""

    def __init__(self, client: Client, name: str) -> None:
        super().__init__(client, name, Counter)

    add = forwarded(Counter.add)
    reset = forwarded(Counter.reset)
    value = forwarded(Counter.value)
