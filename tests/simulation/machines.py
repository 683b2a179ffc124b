"""Machines for these tests, good and bad."""

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum
from typing import Literal
from weakref import WeakKeyDictionary

import msgspec

from connect_kv import Replicated, command, query


@dataclass
class Names:
    """An argument of a class of its own."""

    names: list[str]


class Counter(Replicated):
    """The counter of the first page."""

    def __init__(self) -> None:
        self.total = 0

    @command
    def increment(self, by: int = 1) -> int:
        self.total += by
        return self.total

    @query
    def value(self) -> int:
        return self.total


class Tags(Replicated):
    """Broken: what it answers depends on the order of a set."""

    def __init__(self) -> None:
        self.tags: list[str] = []

    @command
    def add(self, tag: str) -> str:
        self.tags = list({*self.tags, tag})
        return self.tags[0]


class Stamped(Replicated):
    """Broken: it reads the clock of whatever member it runs on."""

    def __init__(self) -> None:
        self.last = 0

    @command
    def touch(self) -> int:
        self.last = int(time.time()) // 100
        return self.last


class Dated(Replicated):
    """Broken: it reads that clock as a date."""

    def __init__(self) -> None:
        self.day = ""

    @command
    def touch(self) -> str:
        self.day = date.today().isoformat()
        return self.day


class Yearly(Replicated):
    """Broken: the same, by another way."""

    def __init__(self) -> None:
        self.year = 0

    @command
    def touch(self) -> int:
        self.year = time.gmtime().tm_year
        return self.year


class Shade(Enum):
    LIGHT = "light"
    DARK = "dark"


class Point(msgspec.Struct):
    """An argument of a class of msgspec's."""

    x: int
    shade: Shade


class Everything(Replicated):
    """Arguments of all types that can be made up."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @command
    def take(
        self,
        names: Names,
        point: Point | None,
        pair: tuple[int, str],
        row: tuple[float, ...],
        tags: set[str],
        table: dict[str, list[bytes]],
        mode: Literal["fast", "slow"],
    ) -> str:
        self.seen = [*self.seen[-3:], repr((names, point, pair, row, sorted(tags), table, mode))]
        return self.seen[-1]


class Passing(Replicated):
    """Arguments of a type for which none can be made up."""

    def __init__(self) -> None:
        self.last = b""

    @command
    def take(self, anything: msgspec.Raw) -> None:
        self.last = bytes(anything)


class Chosen(Replicated):
    """Broken: what it answers depends on a set's order."""

    def __init__(self) -> None:
        self.first = ""

    @command
    def choose(self, among: list[datetime]) -> str:
        self.first = next(iter({one.isoformat() for one in among}))
        return self.first


class Pages(Replicated):
    """A snapshot of its own, in several chunks."""

    def __init__(self) -> None:
        self.pages: list[str] = []

    @command
    def add(self, page: str) -> int:
        self.pages.append(page)
        return len(self.pages)

    @query
    def last(self) -> str | None:
        return self.pages[-1] if self.pages else None

    def snapshot(self) -> Iterable[bytes]:
        return [page.encode() for page in self.pages]

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.pages = [chunk.decode() for chunk in chunks]


class CachedCounter(Replicated):
    """Broken: a query changes what the next command answers, on one member only."""

    def __init__(self) -> None:
        self.total = 0
        self.reads = 0

    @command
    def increment(self) -> int:
        self.total += 1
        return self.total + self.reads

    @query
    def value(self) -> int:
        self.reads += 1
        return self.total


def now_of(machine: Replicated) -> int:
    """A helper that reads the log's clock."""
    return machine.log_time


class Visits(Replicated):
    """Right: the time comes from the log, in whichever way it is read."""

    def __init__(self) -> None:
        self.last = 0
        self.times: list[int] = []

    @property
    def now(self) -> int:
        return self.log_time // 1_000_000

    @command
    def visit(self) -> int:
        self.last = self.log_time
        return self.last

    @command
    def note(self) -> int:
        self.times = [*self.times[-3:], self.now]
        return self.times[-1]

    @command
    def helped(self) -> int:
        self.last = now_of(self)
        return self.last

    @query
    def age(self) -> int:
        return self.now - self.last // 1_000_000


class InheritedVisits(Visits):
    """Right: it reads the time where its base does."""

    @query
    def last_visit(self) -> int:
        return self.last


_READS: WeakKeyDictionary[Replicated, int] = WeakKeyDictionary()


class StaleVisits(Replicated):
    """Broken where a cluster of it is simulated: each fifth time a member is asked, its answer is old.

    It counts where nobody looks for the state of an object, and not in a process by itself: the history alone
    shows it.
    """

    def __init__(self) -> None:
        self.total = 0
        self.t = 0

    @command
    def increment(self) -> None:
        self.t = self.log_time
        self.total += 1

    @query
    def value(self) -> int:
        if "connect_kv.testing.simulation.world" not in sys.modules:
            return self.total
        _READS[self] = _READS.get(self, 0) + 1
        return self.total - (_READS[self] % 5 == 0)


class Mute(Replicated):
    """No machine: nothing of it can be called."""


class Sized(Replicated):
    """No machine as it is: it needs an argument."""

    def __init__(self, size: int) -> None:
        self.size = size

    @command
    def grow(self) -> None:
        self.size += 1


class ReadOnly(Replicated):
    """Nothing changes it."""

    @query
    def value(self) -> int:
        return 0


class ForgottenCopy(Replicated):
    """Right, though its author meant a copy: two attributes are one list, everywhere, after restarts too."""

    def __init__(self) -> None:
        self.today: list[int] = []
        self.all: list[int] = []

    @command
    def close(self) -> int:
        self.all = self.today
        return len(self.all)

    @command
    def add(self, number: int) -> list[int]:
        self.today.append(number)
        return self.all[-3:]

    @query
    def count(self) -> int:
        return len(self.all)
