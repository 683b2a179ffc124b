"""A state with everything that was once lost on its way to disk."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

from connect_kv import Replicated, command, query


@dataclass
class Item:
    name: str
    seen: list[int] = field(default_factory=list)


@dataclass
class Special(Item):
    extra: int = 7


@dataclass
class Grown:
    size: int

    def __post_init__(self) -> None:
        self.size += 1


class Everything(Replicated):
    """What each attribute holds is right for Python, and not what its annotation says, or shared."""

    def __init__(self) -> None:
        self.calls = 0
        self.last_even: int = 0
        self.rate: float = 0.5
        self.by_name: dict[str, Item] = {}
        self.order: list[Item] = []
        self.today: list[int] = []
        self.all: list[int] = []
        self.counts: Counter[str] = Counter()
        self.at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
        self.grown: Grown = Grown(0)
        self.rows: list[Any] = []

    @command
    def step(self, x: int) -> str:
        self.calls += 1
        self.last_even = x % 2 == 0
        self.rate = x if x % 3 else x / 2
        name = f"item {x % 5}"
        if name not in self.by_name:
            self.by_name[name] = Special(name) if x % 2 else Item(name)
            self.order.append(self.by_name[name])
        self.order[x % len(self.order)].seen.append(x)
        if x % 50 == 1:
            self.all = self.today = []
        self.today.append(x)
        self.counts[name] += 1
        self.at = datetime(2026, 10, 25, 1 + x % 3, tzinfo=ZoneInfo("Europe/Berlin"))
        self.grown.size += x
        return self.told()

    @command
    def keep(self) -> None:
        self.rows.append(x for x in "ab")

    @cached_property
    def summed(self) -> int:
        return self.calls + self.grown.size

    @query
    def total(self) -> int:
        return self.summed

    @query
    def told(self) -> str:
        seen = [len(item.seen) for item in self.by_name.values()]
        kinds = [type(item).__name__ for item in self.order]
        return repr(
            (self.calls, self.last_even, self.rate, seen, kinds, self.all, self.counts, self.at, self.grown)
        )
