"""A class in two versions, and upgrades of it with one mistake each. Each must be found, by name.

`UPGRADES` says of each newer class what the finding must say.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from connect_kv import Replicated, before, command, query

UPGRADES: dict[type[Replicated], str] = {}
BODY = r"add\(item=.*by an object that was never stored|code of version 1 was changed \(add\)"
REMOVED = r"there is no command 'add' in version 1|code of version 1 was changed \(add\)"
TYPE = r"left stock is \{.*Item\(count=|cannot be restored|code of version 1 was changed \(add"
"""Found in the one way or the other: what a member answers before it hears of the code that was agreed on."""
C = TypeVar("C", bound=type[Replicated])


def planted(says: str) -> Callable[[C], C]:
    def noted(machine: C) -> C:
        UPGRADES[machine] = says
        return machine

    return noted


class Stock(Replicated):
    """Version 1."""

    def __init__(self) -> None:
        self.stock: dict[str, int] = {}

    @command
    def add(self, item: str, count: int = 1) -> int:
        self.stock[item] = self.stock.get(item, 0) + count
        return self.stock[item]

    @query
    def count(self, item: str) -> int:
        return self.stock.get(item, 0)


class Right(Replicated, version=2):
    """What is right: another body, a new command, a new parameter, a new attribute, migrated."""

    def __init__(self) -> None:
        self.stock: dict[str, int] = {}
        self.notes: dict[str, str] = {}

    @command
    def add(self, item: str, count: int = 1, note: str = "") -> int:
        self.stock[item] = self.stock.get(item, 0) + 2 * count
        self.notes[item] = note
        return self.stock[item]

    @before(2, add)
    def add_1(self, item: str, count: int = 1) -> int:
        self.stock[item] = self.stock.get(item, 0) + count
        return self.stock[item]

    @command(since=2)
    def clear(self) -> int:
        size = len(self.stock)
        self.stock, self.notes = {}, {}
        return size

    @query
    def count(self, item: str) -> int:
        return self.stock.get(item, 0)

    def upgrade(self, version: int) -> None:
        if version == 2:
            self.notes = dict.fromkeys(self.stock, "old")


class Kept(Replicated, version=2):
    """Version 2 as it should be, but for what a class below does otherwise."""

    def __init__(self) -> None:
        self.stock: dict[str, int] = {}

    @command
    def add(self, item: str, count: int = 1) -> int:
        self.stock[item] = self.stock.get(item, 0) + count
        return self.stock[item]

    @query
    def count(self, item: str) -> int:
        return self.stock.get(item, 0)


@planted(BODY)
class BodyOverwritten(Kept, version=2):
    """The older body was not kept."""

    @command
    def add(self, item: str, count: int = 1) -> int:
        self.stock[item] = self.stock.get(item, 0) + 2 * count
        return self.stock[item]


@planted(BODY)
class BodyCopiedBadly(Kept, version=2):
    """The older body is kept, with a slip."""

    @command
    def add(self, item: str, count: int = 1) -> int:
        self.stock[item] = self.stock.get(item, 0) + 2 * count
        return self.stock[item]

    @before(2, add)
    def add_1(self, item: str, count: int = 2) -> int:
        self.stock[item] = self.stock.get(item, 0) + count
        return self.stock[item]


@planted(r"code of version 1 was changed \(add\)")
class ParameterAdded(Kept, version=2):
    """A new parameter with a default, and nothing of what was before."""

    @command
    def add(self, item: str, count: int = 1, note: str = "") -> int:
        self.stock[item] = self.stock.get(item, 0) + count
        return self.stock[item]


@planted(r"code of version 1 was changed \(clear\)")
class CommandAdded(Kept, version=2):
    """A new command that does not say since when."""

    @command
    def clear(self) -> int:
        self.stock = {}
        return 0


@planted(REMOVED)
class CommandRemoved(Replicated, version=2):
    """A command that is gone, and not said to be."""

    def __init__(self) -> None:
        self.stock: dict[str, int] = {}

    @command(since=2)
    def put(self, item: str) -> int:
        self.stock[item] = self.stock.get(item, 0) + 1
        return self.stock[item]

    @query
    def count(self, item: str) -> int:
        return self.stock.get(item, 0)


def _sum(one: int, other: int) -> int:
    return one + other + 1


@planted(BODY)
class HelperChanged(Kept, version=2):
    """The body is the same, but it now asks a function of the module."""

    @command
    def add(self, item: str, count: int = 1) -> int:
        self.stock[item] = _sum(self.stock.get(item, 0), count)
        return self.stock[item]


@planted("does not declare")
class AttributeRenamed(Replicated, version=2):
    """The state of version 1 has an attribute that this code does not know."""

    def __init__(self) -> None:
        self.items: dict[str, int] = {}

    @command
    def add(self, item: str, count: int = 1) -> int:
        self.items[item] = self.items.get(item, 0) + count
        return self.items[item]

    @query
    def count(self, item: str) -> int:
        return self.items.get(item, 0)


@dataclass
class Item:
    count: int


@planted(TYPE)
class TypeChanged(Replicated, version=2):
    """An attribute has another type, and the state of version 1 does not fit it."""

    def __init__(self) -> None:
        self.stock: dict[str, Item] = {}

    @command
    def add(self, item: str, count: int = 1) -> int:
        self.stock.setdefault(item, Item(0)).count += count
        return self.stock[item].count

    @query
    def count(self, item: str) -> int:
        return self.stock[item].count if item in self.stock else 0


@planted("version 2 of UpgradeRaises is not active: its upgrade fails: KeyError")
class UpgradeRaises(Kept, version=2):
    def upgrade(self, version: int) -> None:
        self.stock["total"] = self.stock["sum"]


@planted("version 2 of UpgradeUnstorable is not active: its upgrade fails: ConfigError")
class UpgradeUnstorable(Kept, version=2):
    def __init__(self) -> None:
        super().__init__()
        self.names: Any = ()

    def upgrade(self, version: int) -> None:
        self.names = self.stock.keys()


@planted("the upgrade from version 1 to 2 left")
class UpgradeAtChance(Kept, version=2):
    def upgrade(self, version: int) -> None:
        self.stock["lucky"] = random.SystemRandom().randrange(1 << 60)


@planted("the upgrade from version 1 to 2 left")
class UpgradeByClock(Kept, version=2):
    def __init__(self) -> None:
        super().__init__()
        self.upgraded: float = 0.0

    def upgrade(self, version: int) -> None:
        self.upgraded = time.perf_counter()


@planted("the upgrade from version 1 to 2 left")
class UpgradeWithIds(Kept, version=2):
    def __init__(self) -> None:
        super().__init__()
        self.ids: dict[str, str] = {}

    def upgrade(self, version: int) -> None:
        self.ids = {item: str(uuid.uuid4()) for item in ["all", *self.stock]}


@planted("the upgrade from version 1 to 2 left")
class UpgradeCounts(Kept, version=2):
    """It counts how often it ran: in this process, not in the state."""

    upgrades: ClassVar[int] = 0

    def upgrade(self, version: int) -> None:
        UpgradeCounts.upgrades += 1
        self.stock["upgrades"] = UpgradeCounts.upgrades


@planted("there is no upgrade")
class VersionForgotten(Replicated):
    """Another body under the old version."""

    def __init__(self) -> None:
        self.stock: dict[str, int] = {}

    @command
    def add(self, item: str, count: int = 1) -> int:
        self.stock[item] = self.stock.get(item, 0) + 2 * count
        return self.stock[item]

    @query
    def count(self, item: str) -> int:
        return self.stock.get(item, 0)


class OwnFormat(Kept, version=2):
    """A snapshot of its own from now on."""

    def snapshot(self) -> Iterable[bytes]:
        return [",".join(f"{item}={count}" for item, count in self.stock.items()).encode()]

    def restore(self, chunks: Iterable[bytes]) -> None:
        text = b"".join(chunks).decode()
        self.stock = {
            item: int(count) for item, _, count in (one.partition("=") for one in text.split(",") if one)
        }


UPGRADES[OwnFormat] = "cannot be restored"
