"""What is not what it was when it comes back, or cannot come back."""

from __future__ import annotations

import json
import os
import threading
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from connect_kv import Replicated, command
from tests.simulation.mistakes.kinds import (
    CANNOT,
    STORED,
    aliasing,
)

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
