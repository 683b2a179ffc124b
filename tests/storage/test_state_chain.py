"""A state database that lost a batch in its middle is recognised (docs/architecture.md, durability)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from connect_kv.errors import CorruptStorage, RefusedToStart
from connect_kv.storage import codec
from connect_kv.storage.memory import MemoryDisk
from connect_kv.storage.state_dirs import LINKS_REMOVED, BrokenChain, StateDatabase, StateDirs
from tests.storage.helpers import make_disk

DATA = Path("/node")


def apply(database: StateDatabase, index: int) -> None:
    database.prepare({b"\x10%06d" % index: b"x" * 30}, index).write(sync=False)


def contents(database: StateDatabase) -> list[int]:
    return [int(key[1:]) for key, _ in database.engine.iterate(b"\x10", b"\x11")]


@pytest.mark.parametrize("kind", ["leveldb", "memory"])
def test_databases_are_made_named_and_discarded(kind: str, tmp_path: Path) -> None:
    dirs = StateDirs(make_disk(kind), tmp_path)
    assert (dirs.names(), dirs.next_name("")) == ([], "1")
    first = dirs.create("1")
    apply(first, 4)
    assert (first.last_applied, dirs.next_name("1")) == (4, "2")
    first.close()
    for name in ("2", "10"):
        dirs.create(name).close()
    assert (dirs.names(), dirs.next_name("1")) == (["1", "2", "10"], "11")
    dirs.discard_others("1")
    database = dirs.open("1", 4)
    assert (dirs.names(), database.last_applied, contents(database)) == (["1"], 4, [4])
    database.close()
    database = dirs.create("1")
    assert (database.last_applied, contents(database)) == (0, [])
    database.close()


@pytest.mark.parametrize("kind", ["leveldb", "memory"])
def test_a_state_without_its_log_is_not_replaced(kind: str, tmp_path: Path) -> None:
    """A lost log is damage; a start that was interrupted is not."""
    dirs = StateDirs(make_disk(kind), tmp_path)
    for _ in range(3):
        dirs.create_first("1").close()
    database = dirs.open("1", 0)
    apply(database, 4)
    database.close()
    with pytest.raises(CorruptStorage, match=r"log: is missing or empty, but .*state/1 holds a state"):
        dirs.create_first("1")
    database = dirs.open("1", 0)
    assert contents(database) == [4]
    database.close()


def test_a_batch_counts_once_it_is_written() -> None:
    database = StateDirs(MemoryDisk(random.Random(1)), DATA).create("1")
    batch = database.prepare({}, 5)
    assert database.last_applied == 0
    batch.write(sync=False)
    assert database.last_applied == 5
    database.prepare({b"\x28": b"same index"}, 5).write(sync=False)
    with pytest.raises(ValueError, match="cannot go back"):
        database.prepare({}, 4)


def crashed(seed: int) -> tuple[MemoryDisk, int]:
    """A disk after a power failure, and up to where its state was made durable."""
    rng = random.Random(seed)
    disk = MemoryDisk(rng, wal_bytes=rng.choice([300, 1000, 5000]))
    database, durable = StateDirs(disk, DATA).create("1"), 0
    for index in range(1, rng.randint(2, 60)):
        apply(database, index)
        if rng.random() < 0.1:
            durable = database.make_durable()
            assert durable == index
    disk.crash()
    return disk, durable


def test_after_a_power_failure_it_is_what_it_was_at_some_moment() -> None:
    """Many crashes: it has every batch up to where it says, at least the durable ones."""
    for seed in range(300):
        disk, durable = crashed(seed)
        database = StateDirs(disk, DATA).open("1", durable)
        assert database.last_applied >= durable
        assert contents(database) == list(range(1, database.last_applied + 1))
        apply(database, database.last_applied + 1)


def test_a_hole_that_is_not_given_up_is_recognised() -> None:
    whole = broken = 0
    for seed in range(300):
        disk, _ = crashed(seed)
        engine = disk.open(DATA / "state" / "1")
        try:
            database = StateDatabase(engine)
        except BrokenChain:
            broken += 1
            continue
        whole += 1
        assert contents(database) == list(range(1, database.last_applied + 1))
    assert whole > 50
    assert broken > 20


def test_a_hole_is_found_even_if_only_an_equal_index_was_lost() -> None:
    database = StateDirs(MemoryDisk(random.Random(1)), DATA).create("1")
    apply(database, 1)
    database.prepare({b"\x28": b"snapshot"}, 1).write(sync=False)
    apply(database, 2)
    database.engine.batch({codec.link_key(2): None}).write(sync=False)
    with pytest.raises(BrokenChain, match="batch 2 of 3"):
        StateDatabase(database.engine)


def test_losing_what_was_known_to_be_durable_is_a_broken_chain() -> None:
    dirs = StateDirs(MemoryDisk(random.Random(1)), DATA)
    database = dirs.create("1")
    apply(database, 3)
    database.close()
    with pytest.raises(BrokenChain, match="known to have been on disk up to 4"):
        dirs.open("1", 4)
    dirs.open("1", 3).close()


def test_old_links_are_removed() -> None:
    database = StateDirs(MemoryDisk(random.Random(1)), DATA).create("1")
    for index in range(1, 1001):
        apply(database, index)
        if index % 50 == 0:
            database.make_durable()
    stop = codec.STATE_LINK + b"\xff"
    assert len(list(database.engine.iterate(codec.STATE_LINK, stop))) <= 51
    StateDatabase(database.engine)


def test_a_missing_database_is_damage_and_a_newer_one_is_refused() -> None:
    dirs = StateDirs(MemoryDisk(random.Random(1)), DATA)
    with pytest.raises(CorruptStorage, match="missing"):
        dirs.open("1", 0)
    database = dirs.create("1")
    database.engine.batch({codec.STATE_FORMAT: codec.u64(2)}).write(sync=True)
    database.close()
    with pytest.raises(RefusedToStart, match="state/1: has format version 2"):
        dirs.open("1", 0)
    database = dirs.create("1")
    database.engine.batch({codec.STATE_APPLIED: None}).write(sync=True)
    database.close()
    with pytest.raises(CorruptStorage, match="records are missing"):
        dirs.open("1", 0)


def test_only_a_new_database_is_filled() -> None:
    database = StateDirs(MemoryDisk(random.Random(1)), DATA).create("1")
    database.adopt(7)
    assert database.last_applied == 7
    with pytest.raises(ValueError, match="only a new database"):
        database.adopt(8)
    apply(database, 9)
    assert contents(database) == [9]


def test_links_that_are_on_disk_are_removed_a_few_with_each_batch() -> None:
    """However long it was until the state was forced to disk, no batch is large for it."""
    database = StateDirs(MemoryDisk(random.Random(1)), DATA).create("1")
    for index in range(1, 3 * LINKS_REMOVED):
        apply(database, index)
    database.make_durable()
    remaining = []
    for index in range(3 * LINKS_REMOVED, 3 * LINKS_REMOVED + 6):
        apply(database, index)
        link = codec.STATE_LINK
        remaining.append(sum(1 for _ in database.engine.iterate(link, link + b"\xff" * 9)))
    assert remaining[0] == 2 * LINKS_REMOVED
    assert remaining[-1] < LINKS_REMOVED
