"""What is not the same on every member."""

from __future__ import annotations

import datetime as dt
import functools
import itertools
import os
import random
import secrets
import time
import uuid
from typing import ClassVar

from connect_kv import Replicated, command
from tests.simulation.mistakes.kinds import (
    CHANCE,
    OUTSIDE,
    SET,
    TIME,
    nondeterminism,
)


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
