"""Small classes with one mistake each, as their authors make them. Each must be found, by name.

`MISTAKES` says of each the kind, and what `check_determinism` must say of it.
"""

from __future__ import annotations

import copy
import datetime as dt
import functools
import itertools
import json
import os
import random
import secrets
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from connect_kv import Replicated, command, query

TIME, SET, CHANCE = "reads the clock", "the order of a set", "depends on chance"
OUTSIDE, STORED, ASKED = (
    "what is not in the object's attributes",
    "stored and restored",
    "whether queries ran",
)
WRITES, CANNOT = "is a query and changes the object", "cannot be stored"

MISTAKES: dict[str, dict[type[Replicated], str]] = {
    "nondeterminism": {},
    "aliasing and types": {},
    "queries that write": {},
}


def mistake(kind: str, says: str) -> Any:
    def noted(machine: type[Replicated]) -> type[Replicated]:
        MISTAKES[kind][machine] = says
        return machine

    return noted


nondeterminism = functools.partial(mistake, "nondeterminism")
aliasing = functools.partial(mistake, "aliasing and types")
writing = functools.partial(mistake, "queries that write")


# What is not the same on every member.


@nondeterminism(TIME)
class Clock(Replicated):
    def __init__(self) -> None:
        self.at = 0.0

    @command
    def touch(self) -> None:
        self.at = time.time()


@nondeterminism(TIME)
class Day(Replicated):
    def __init__(self) -> None:
        self.days: dict[str, int] = {}

    @command
    def visit(self) -> int:
        today = dt.date.today().isoformat()
        self.days[today] = self.days.get(today, 0) + 1
        return self.days[today]


@nondeterminism(TIME)
class LocalHour(Replicated):
    def __init__(self) -> None:
        self.hour = 0

    @command
    def touch(self) -> int:
        self.hour = time.localtime(self.log_time / 1e9).tm_hour
        return self.hour


@nondeterminism(TIME)
class Monotonic(Replicated):
    def __init__(self) -> None:
        self.waited = 0

    @command
    def touch(self) -> int:
        self.waited = time.monotonic_ns()
        return self.waited


@nondeterminism(CHANCE)
class Dice(Replicated):
    def __init__(self) -> None:
        self.last = 0

    @command
    def throw(self) -> int:
        self.last = random.randint(1, 6)
        return self.last


@nondeterminism(CHANCE)
class Tickets(Replicated):
    def __init__(self) -> None:
        self.tickets: dict[str, str] = {}

    @command
    def open(self, name: str) -> str:
        self.tickets[name] = str(uuid.uuid4())
        return self.tickets[name]


@nondeterminism(CHANCE)
class Tokens(Replicated):
    def __init__(self) -> None:
        self.tokens: list[str] = []

    @command
    def make(self) -> None:
        self.tokens.append(secrets.token_hex(4))


@nondeterminism(CHANCE)
class Addresses(Replicated):
    def __init__(self) -> None:
        self.seen: set[int] = set()

    @command
    def see(self, name: str) -> None:
        self.seen.add(id(object()))


@nondeterminism(CHANCE)
class ProcessId(Replicated):
    def __init__(self) -> None:
        self.by = 0

    @command
    def sign(self) -> int:
        self.by = os.getpid()
        return self.by


@nondeterminism(SET)
class FirstTag(Replicated):
    def __init__(self) -> None:
        self.tags: set[str] = set()

    @command
    def add(self, tag: str) -> str:
        self.tags.add(tag)
        return next(iter(self.tags))


@nondeterminism(SET)
class Popped(Replicated):
    def __init__(self) -> None:
        self.waiting: set[str] = set()

    @command
    def wait(self, name: str) -> None:
        self.waiting.add(name)

    @command
    def next(self) -> str | None:
        return self.waiting.pop() if self.waiting else None


@nondeterminism(SET)
class Sharded(Replicated):
    def __init__(self) -> None:
        self.shards: list[int] = [0, 0, 0, 0]

    @command
    def put(self, key: str) -> None:
        self.shards[hash(key) % 4] += 1


@nondeterminism(SET)
class Joined(Replicated):
    def __init__(self) -> None:
        self.line = ""

    @command
    def join(self, names: list[str]) -> str:
        self.line = ",".join({*names, "x", "y"})
        return self.line


@nondeterminism(OUTSIDE)
class ClassVariable(Replicated):
    total: ClassVar[int] = 0

    def __init__(self) -> None:
        self.calls = 0

    @command
    def add(self) -> int:
        ClassVariable.total += 1
        return ClassVariable.total


_numbers = itertools.count(1)


@nondeterminism(OUTSIDE)
class GlobalNumbers(Replicated):
    def __init__(self) -> None:
        self.last = 0

    @command
    def number(self) -> int:
        self.last = next(_numbers)
        return self.last


@functools.lru_cache
def _first_answer(name: str) -> list[str]:
    return [name]


@nondeterminism(OUTSIDE)
class CachedFunction(Replicated):
    def __init__(self) -> None:
        self.count = 0

    @command
    def add(self, name: str) -> int:
        _first_answer("all").append(name)
        return len(_first_answer("all"))


def _collect(name: str, into: list[str] = []) -> list[str]:  # noqa: B006  # the mistake
    into.append(name)
    return into


@nondeterminism(OUTSIDE)
class DefaultList(Replicated):
    def __init__(self) -> None:
        self.count = 0

    @command
    def add(self, name: str) -> int:
        self.count = len(_collect(name))
        return self.count


# What is not what it was when it comes back, or cannot come back.

LIMITS: list[int] = [1, 2]


@aliasing(STORED)
class SharedDefault(Replicated):
    """The first value is an object of the module, which is a new one after a restart."""

    def __init__(self) -> None:
        self.limits: list[int] = LIMITS
        self.mine: list[int] = []

    @command
    def raise_limit(self, by: int) -> int:
        LIMITS.append(by)
        return sum(self.limits)


@dataclass
class Item:
    name: str
    tags: list[str] = field(default_factory=list)


class OwnSnapshot(Replicated):
    """Attributes as JSON."""

    def snapshot(self) -> Iterable[bytes]:
        return [json.dumps(vars(self), default=vars).encode()]

    def restore(self, chunks: Iterable[bytes]) -> None:
        vars(self).update(json.loads(b"".join(chunks)))


@aliasing(STORED)
class JsonKeys(OwnSnapshot):
    """JSON makes text of the keys of a dict."""

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}

    @command
    def count(self, number: int) -> int:
        self.counts[number] = self.counts.get(number, 0) + 1
        return self.counts[number]


@aliasing(STORED)
class JsonTuples(OwnSnapshot):
    """JSON makes lists of tuples."""

    def __init__(self) -> None:
        self.last: tuple[int, ...] = ()

    @command
    def see(self, number: int) -> bool:
        again = self.last == (number,)
        self.last = (number,)
        return again


@aliasing(STORED)
class Forgotten(Replicated):
    """The snapshot leaves one attribute out."""

    def __init__(self) -> None:
        self.total = 0
        self.calls = 0

    @command
    def add(self, by: int) -> float:
        self.total += by
        self.calls += 1
        return self.total / self.calls

    def snapshot(self) -> Iterable[bytes]:
        return [str(self.total).encode()]

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.total = int(b"".join(chunks))


@aliasing(STORED)
class TwoCopies(Replicated):
    """Its snapshot writes an object that two attributes hold twice."""

    def __init__(self) -> None:
        self.by_name: dict[str, list[int]] = {}
        self.last: list[int] = []

    @command
    def open(self, name: str) -> None:
        self.last = self.by_name.setdefault(name, [])

    @command
    def add(self, by: int) -> dict[str, list[int]]:
        self.last.append(by)
        return self.by_name

    def snapshot(self) -> Iterable[bytes]:
        return [json.dumps([self.by_name, self.last]).encode()]

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.by_name, self.last = json.loads(b"".join(chunks))


@aliasing(STORED)
class Identity(Replicated):
    """Equal text need not be one object."""

    def __init__(self) -> None:
        self.names: list[str] = []

    @command
    def add(self, name: str) -> int:
        self.names.append(self.names[-1] if self.names and name + "!" == self.names[-1] else name + "!")
        return sum(1 for one in self.names if one is self.names[-1])


@aliasing(CANNOT)
class View(Replicated):
    """A view shows a dict, it is not a copy."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.keys: Any = ()

    @command
    def add(self, key: str) -> None:
        self.counts[key] = 1
        self.keys = self.counts.keys()


@aliasing(CANNOT)
class Generator(Replicated):
    def __init__(self) -> None:
        self.rows: list[Any] = []

    @command
    def double(self, numbers: list[int]) -> None:
        self.rows.append(2 * number for number in numbers)


@aliasing(CANNOT)
class Callback(Replicated):
    def __init__(self) -> None:
        self.then: dict[str, Any] = {}

    @command
    def register(self, name: str) -> None:
        self.then[name] = lambda: name


@aliasing(CANNOT)
class LambdaDefault(Replicated):
    """The default is made by a function without a name."""

    def __init__(self) -> None:
        self.counts: dict[str, list[int]] = {}

    @command
    def add(self, name: str) -> None:
        counts: defaultdict[str, list[int]] = defaultdict(lambda: [0], self.counts)
        counts[name].append(1)
        self.counts = counts


@aliasing(CANNOT)
class Locked(Replicated):
    def __init__(self) -> None:
        self.locks: dict[str, Any] = {"all": None}

    @command
    def lock(self, name: str) -> None:
        self.locks["all"] = threading.Lock()  # in the place of something else: seen when it is stored


@aliasing(CANNOT)
class OpenFile(Replicated):
    def __init__(self) -> None:
        self.log: Any = None

    @command
    def open(self) -> None:
        with open(os.devnull) as self.log:
            pass


@aliasing(CANNOT)
class LocalClass(Replicated):
    """Objects of a class that no annotation names."""

    def __init__(self) -> None:
        self.points: list[Any] = []

    @command
    def add(self, x: int) -> None:
        @dataclass
        class Point:
            x: int

        self.points.append(Point(x))


@aliasing(CANNOT)
class ExceptionKept(Replicated):
    def __init__(self) -> None:
        self.errors: dict[str, Any] = {}

    @command
    def divide(self, by: int) -> None:
        try:
            1 // (by - by)
        except ZeroDivisionError as error:
            self.errors["last"] = error


# Queries that change something, on the one member that was asked.


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
