"""Queries that change something, on the one member that was asked."""

from __future__ import annotations

import copy
from collections import defaultdict

from connect_kv import Replicated, command, query
from tests.simulation.mistakes.aliasing import Item
from tests.simulation.mistakes.kinds import (
    ASKED,
    WRITES,
    writing,
)


@writing(WRITES)
class CountedReads(Replicated):
    def __init__(self) -> None:
        self.total = 0
        self.reads = 0

    @command
    def add(self) -> None:
        self.total += 1

    @query
    def value(self) -> int:
        self.reads += 1
        return self.total


@writing(WRITES)
class Memo(Replicated):
    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.sums: dict[int, int] = {}

    @command
    def add(self, number: int) -> None:
        self.numbers.append(number)

    @query
    def total(self) -> int:
        if len(self.numbers) not in self.sums:
            self.sums[len(self.numbers)] = sum(self.numbers)
        return self.sums[len(self.numbers)]


@writing(WRITES)
class Sorted(Replicated):
    """`sort` sorts in place; that is no other object, and no other length."""

    def __init__(self) -> None:
        self.names: list[str] = []

    @command
    def add(self, name: str) -> None:
        self.names.append(name)

    @query
    def all(self) -> list[str]:
        self.names.sort()
        return self.names


@writing(WRITES)
class Opened(Replicated):
    """Reading a defaultdict makes entries."""

    def __init__(self) -> None:
        self.boxes: defaultdict[str, list[int]] = defaultdict(list)

    @command
    def put(self, box: str, number: int) -> None:
        self.boxes[box].append(number)

    @query
    def look(self, box: str) -> list[int]:
        return self.boxes[box]


@writing(WRITES)
class Taken(Replicated):
    def __init__(self) -> None:
        self.queue: list[int] = []

    @command
    def put(self, number: int) -> None:
        self.queue.append(number)

    @query
    def take(self) -> int | None:
        return self.queue.pop(0) if self.queue else None


@writing(WRITES)
class LastSeen(Replicated):
    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self.total = 0

    @command
    def add(self) -> None:
        self.total += 1

    @query
    def value(self, by: str) -> int:
        self.seen[by] = self.log_time
        return self.total


@writing(WRITES)
class Marked(Replicated):
    """Inside an object that a list holds."""

    def __init__(self) -> None:
        self.items: list[Item] = []

    @command
    def add(self, name: str) -> None:
        self.items.append(Item(name))

    @query
    def names(self) -> list[str]:
        for item in self.items:
            item.tags.append("read")
        return [item.name for item in self.items]


@writing(WRITES)
class Normalised(Replicated):
    def __init__(self) -> None:
        self.shares: dict[str, int] = {}

    @command
    def set(self, name: str, share: int) -> None:
        self.shares[name] = share

    @query
    def part(self, name: str) -> int:
        shares = self.shares  # no copy
        for each in list(shares):
            shares[each] *= 2
        return shares.get(name, 0)


@writing(WRITES)
class Expired(Replicated):
    """Tidies up when somebody asks."""

    def __init__(self) -> None:
        self.until: dict[str, int] = {}

    @command
    def hold(self, name: str) -> None:
        self.until[name] = self.log_time

    @query
    def held(self) -> list[str]:
        for name in [name for name, until in self.until.items() if until < self.log_time]:
            del self.until[name]
        return list(self.until)


@writing(WRITES)
class Rotated(Replicated):
    def __init__(self) -> None:
        self.members: list[str] = ["a", "b", "c"]

    @command
    def add(self, name: str) -> None:
        self.members.append(name)

    @query
    def next(self) -> str:
        self.members = [*self.members[1:], self.members[0]]
        return self.members[0]


_served: list[str] = []


@writing(ASKED)
class Elsewhere(Replicated):
    """What the query writes is not even in the object."""

    def __init__(self) -> None:
        self.count = 0

    @command
    def add(self) -> int:
        self.count += 1
        return self.count + len(_served)

    @query
    def value(self) -> int:
        _served.append("")
        return self.count


@writing(WRITES)
class Undone(Replicated):
    """It puts back what it changed, all but the order."""

    def __init__(self) -> None:
        self.stock: dict[str, int] = {}

    @command
    def put(self, item: str, count: int) -> None:
        self.stock[item] = count

    @query
    def without(self, item: str) -> int:
        count = self.stock.pop(item, None)
        total = sum(copy.copy(self.stock).values())
        if count is not None:
            self.stock[item] = count
        return total
