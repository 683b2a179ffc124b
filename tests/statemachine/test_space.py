"""Space is given back in pieces of a useful size."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from connect_kv.node.clock import SystemClock
from connect_kv.node.workers import InlineWorker
from connect_kv.statemachine.space import Space, pieces, write_again
from connect_kv.storage.engine import Engine
from connect_kv.storage.leveldb import LevelDbDisk
from connect_kv.storage.memory import MemoryDisk
from tests.services.conftest import until

KEYS, VALUE = 2000, 1000
MOST = 100_000


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Keys that begin alike, as most do: nearly all of the space of keys is empty."""
    engine = MemoryDisk(random.Random(1)).open(Path("state"))
    changes = {b"\x10tenants/a/%06d" % number: bytes(VALUE) for number in range(KEYS)}
    engine.batch(changes).write(sync=False)
    yield engine
    engine.close()


def test_each_piece_is_about_as_large_as_allowed(engine: Engine) -> None:
    """Each costs LevelDB a new table of what was written since the last one, however little it holds."""
    found = list(pieces(engine, b"", b"\xff", MOST))
    sizes = [engine.approximate_size(start, stop) for start, stop in found]
    assert max(sizes) <= MOST
    assert all(first + second > MOST for first, second in pairwise(sizes))


def test_together_they_are_the_whole_range(engine: Engine) -> None:
    found = list(pieces(engine, b"", b"\xff", MOST))
    assert (found[0][0], found[-1][1]) == (b"", b"\xff")
    assert [stop for _, stop in found[:-1]] == [start for start, _ in found[1:]]


def test_an_empty_range_is_one_piece(engine: Engine) -> None:
    assert list(pieces(engine, b"\x20", b"\x30", MOST)) == [(b"\x20", b"\x30")]


COUNT = 20_000


class Database:
    """A real database with its Space; its worker threads are this one."""

    def __init__(self, path: Path) -> None:
        self.engine = LevelDbDisk().open(path)
        self.space = Space(lambda: self.engine, InlineWorker(), InlineWorker(), SystemClock())

    def fill(self) -> None:
        """10 MB of keys."""
        for first in range(0, COUNT, 1000):
            numbers = range(first, first + 1000)
            self.write({b"\x10k%08d" % number: random.randbytes(500) for number in numbers})

    def delete(self) -> None:
        for first in range(0, COUNT, 1000):
            self.write(dict.fromkeys(b"\x10k%08d" % number for number in range(first, first + 1000)))

    def write(self, changes: Mapping[bytes, bytes | None]) -> None:
        self.engine.batch(changes).write(sync=False)

    async def given_back(self) -> None:
        await until(lambda: self.engine.disk_size() < 1 << 20)

    async def resting(self) -> None:
        await until(lambda: self.space._task is None, timeout=60)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(tmp_path / "state")
    made.fill()
    yield made
    await made.space.close()
    made.engine.close()


@pytest.mark.parametrize("cleanup", ["cleaned", "defragment"])
async def test_space_that_a_view_held_during_a_cleanup_comes_back_once_it_is_closed(
    database: Database, cleanup: str
) -> None:
    """LevelDB rewrites the lowest tables for no call, once the deletions have sunk into them."""
    views = [database.engine.view(), database.engine.view()]
    database.delete()
    if cleanup == "cleaned":
        database.space.cleaned()
        await database.resting()
    else:
        await database.space.defragment()
    assert database.engine.disk_size() > 8 << 20
    views[0].close()
    await asyncio.sleep(0)
    assert database.space._task is None
    views[1].close()
    await database.given_back()


async def test_space_that_a_view_held_before_a_cleanup_comes_back_with_the_next(database: Database) -> None:
    """Here LevelDB let the deletions sink by itself, while the view was open."""
    view = database.engine.view()
    database.delete()
    database.fill()
    database.delete()
    database.engine.compact_range(b"\x10", b"\x11")
    view.close()
    database.engine.compact_range(b"\x10", b"\x11")
    assert database.engine.disk_size() > 8 << 20
    database.space.cleaned()
    await database.given_back()


async def test_views_that_come_after_the_deletions_are_not_waited_for(database: Database) -> None:
    """Otherwise the space of a busy store would be gone through again and again."""
    database.delete()
    database.space.cleaned()
    view = database.engine.view()
    await database.given_back()
    await database.resting()
    view.close()
    await asyncio.sleep(0)
    assert database.space._task is None


async def test_a_view_that_is_closed_after_everything_else_wakes_nobody(database: Database) -> None:
    view = database.engine.view()
    database.delete()
    await database.space.defragment()
    await database.space.close()
    view.close()
    await asyncio.sleep(0)
    assert database.space._task is None


def test_what_is_written_again_changes_nothing(engine: Engine) -> None:
    engine.batch({b"\x10": b"first"}).write(sync=False)
    before = list(engine.iterate(b"", None))
    write_again(engine, [b"\x10", b"\x20"])
    assert list(engine.iterate(b"", None)) == before
