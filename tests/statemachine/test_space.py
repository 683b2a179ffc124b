"""Space is given back in pieces of a useful size."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from connect_kv.statemachine.space import pieces
from connect_kv.storage.engine import Engine
from connect_kv.storage.memory import MemoryDisk

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
