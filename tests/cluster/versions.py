"""A class in three versions; which of them a process has is said by its environment."""

from __future__ import annotations

import asyncio
import os

from connect_kv import Replicated, before, command, query

MARK = 1_000_000_000
"""Answers hold the version that gave them, so many times."""


class OutOfStock(Exception):
    def __init__(self, left: int) -> None:
        super().__init__(f"{left} left")
        self.left = left


class First(Replicated):
    """What was deployed first."""

    def __init__(self) -> None:
        self.count = 0
        self.scratch = ""

    @command
    def add(self, by: int = 1) -> int:
        self.count += by
        return MARK + self.count

    @command(raises=(OutOfStock,))
    def take(self, count: int) -> int:
        if count > 1_000_000:
            raise OutOfStock(1_000_000)
        return count

    @command
    def exhaust(self) -> None:
        self.scratch = "half done"
        raise MemoryError

    @command
    def err(self, how: str) -> None:
        self.count += 1
        if how == "recurse":
            self.err(how)
        raise {"leave": SystemExit, "cancel": asyncio.CancelledError, "interrupt": KeyboardInterrupt}[how]

    @query
    def value(self) -> int:
        return self.count


class Second(Replicated, version=2):
    """A new command, a new parameter, another body, a new attribute."""

    def __init__(self) -> None:
        self.count = 0
        self.scratch = ""
        self.notes: list[str] = []

    @command
    def add(self, by: int = 1, note: str = "") -> int:
        self.count += by
        if note:
            self.notes.append(note)
        return 2 * MARK + self.count

    @before(2, add)
    def add_1(self, by: int = 1) -> int:
        self.count += by
        return MARK + self.count

    @command(raises=(OutOfStock,))
    def take(self, count: int) -> int:
        if count > 1_000_000:
            raise OutOfStock(1_000_000)
        return count

    @command(until=2)
    def exhaust(self) -> None:
        self.scratch = "half done"
        raise MemoryError

    @command(until=2)
    def err(self, how: str) -> None:
        self.count += 1
        if how == "recurse":
            self.err(how)
        raise {"leave": SystemExit, "cancel": asyncio.CancelledError, "interrupt": KeyboardInterrupt}[how]

    @command(since=2)
    def clear_notes(self) -> int:
        self.notes = []
        return 0

    @query
    def value(self) -> int:
        return self.count


class Third(Replicated, version=3):
    """A migrated state."""

    count: int
    scratch: str

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.counts: dict[str, int] = {"all": 0}

    @command
    def add(self, by: int = 1, note: str = "") -> int:
        self.counts["all"] += by
        if note:
            self.notes.append(note)
        return 3 * MARK + self.counts["all"]

    @before(2, add)
    def add_1(self, by: int = 1) -> int:
        self.count += by
        return MARK + self.count

    @before(3, add)
    def add_2(self, by: int = 1, note: str = "") -> int:
        self.count += by
        if note:
            self.notes.append(note)
        return 2 * MARK + self.count

    @command(raises=(OutOfStock,))
    def take(self, count: int) -> int:
        if count > 1_000_000:
            raise OutOfStock(1_000_000)
        return count

    @command(until=2)
    def exhaust(self) -> None:
        self.scratch = "half done"
        raise MemoryError

    @command(until=2)
    def err(self, how: str) -> None:
        self.count += 1
        if how == "recurse":
            self.err(how)
        raise {"leave": SystemExit, "cancel": asyncio.CancelledError, "interrupt": KeyboardInterrupt}[how]

    @command(since=2)
    def clear_notes(self) -> int:
        self.notes = []
        return 0

    @query
    def value(self) -> int:
        return self.counts["all"]

    @before(3, value)
    def value_2(self) -> int:
        return self.count

    def upgrade(self, version: int) -> None:
        if version == 3:
            self.counts = {"all": self.count}
            del self.count
            del self.scratch


class Rewritten(Second, version=2):
    """Its body for version 1 is not what it was."""

    @command
    def take(self, count: int) -> int:
        return count + 1


CLASSES: dict[str, type[Replicated]] = {"1": First, "2": Second, "3": Third, "rewritten": Rewritten}
Inventory = CLASSES[os.environ.get("CLASS_VERSION", "1")]
