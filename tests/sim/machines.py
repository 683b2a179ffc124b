"""Machines for these tests, good and bad."""

import time

from connect_kv import Replicated, command, query


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
