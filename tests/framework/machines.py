"""Machines for the tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from connect_kv.framework.replicated import Replicated, command, query


class Counter(Replicated):
    """Counts."""

    def __init__(self) -> None:
        self.total = 0

    @command
    def increment(self, by: int = 1) -> int:
        """Add."""
        self.total += by
        return self.total

    @query
    def value(self) -> int:
        return self.total


class Colour(Enum):
    RED = "red"


@dataclass
class Item:
    name: str
    price: float
    tags: set[str]


class Shop(Replicated):
    """Arguments and values of many kinds."""

    def __init__(self, currency: str, limits: dict[str, int]) -> None:
        self._items: dict[str, Item] = {}
        self.currency = currency
        self.limits = limits
        self.colour = Colour.RED
        self.__secret = b"\x00\xff"
        self.best: Item | None = None

    @command
    def add(self, item: Item, *, amount: int = 1, notes: list[str] | None = None) -> dict[str, Item]:
        self._items[item.name] = item
        self.best = item
        return self._items

    @command
    def pay(self, money: float) -> float:
        return money * 2

    @command
    def wrong(self) -> int:
        return "five"  # type: ignore[return-value]  # the mistake under test

    @command
    def huge(self) -> int:
        return 1 << 70

    @command
    def fail(self, change: str) -> None:
        self.currency = change
        raise LookupError("no such thing")

    @command
    def now(self) -> int:
        return self.log_time

    @query
    def raw(self, data: bytes = b"") -> bytes:
        return self.__secret + data

    @query
    def broken(self) -> None:
        raise KeyError("k")
