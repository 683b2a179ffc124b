"""Compacted entries give their space back, and a long log does not slow the start."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from connect_kv.raft.types import EntryId
from connect_kv.storage.leveldb import LevelDbDisk
from connect_kv.storage.log_store import EngineLogStore
from connect_kv.storage.log_sweeper import SWEEP_CALL
from connect_kv.storage.memory import MemoryDisk
from tests.storage.helpers import command, new_log, ready, voters

KEPT = 1000


def entries_on_disk(log: EngineLogStore) -> int:
    return sum(1 for _ in log.engine.iterate(b"\x10", b"\x11"))


@pytest.mark.long
def test_a_log_that_is_compacted_stays_small(tmp_path: Path) -> None:
    """6,000 entries of 100 puts of 300 bytes, 180 MB in all, of which the last 30 MB are kept."""
    log = new_log(LevelDbDisk(), tmp_path)
    pool = random.Random(1).randbytes(1 << 20)
    largest = 0
    for index in range(1, 6001):
        at = index * 97 % (len(pool) - 30_000)
        log.save([ready([command(1, index, pool[at : at + 30_000])], term=1, sync=False)])
        if index % 250 == 0:
            log.set_durable(index)
            log.compact(EntryId(1, max(1, index - KEPT)), voters(1))
            largest = max(largest, log.engine.disk_size())
    assert largest < 128 << 20
    log.close()
    begun = time.monotonic()
    log = EngineLogStore.open(LevelDbDisk(), tmp_path)
    restored = log.load()
    assert time.monotonic() - begun < 2
    assert (restored.compacted.index, restored.last.index) == (5000, 5000 + KEPT)
    log.close()


def test_many_small_entries_are_swept_in_slices(tmp_path: Path) -> None:
    log = new_log(LevelDbDisk(), tmp_path)
    for start in range(1, 20_001, 500):
        log.save([ready([command(1, index) for index in range(start, start + 500)], term=1, sync=False)])
    log.set_durable(20_000)
    log.compact(EntryId(1, 19_990), voters(1))
    assert entries_on_disk(log) == 20_000 - SWEEP_CALL
    for index in range(20_001, 20_101):
        log.save([ready([command(1, index)], sync=False)])
    assert entries_on_disk(log) == 110
    assert log.load().recent[0].index == 19_991
    log.close()


def test_space_is_given_back_in_the_background_if_there_is_one(tmp_path: Path) -> None:
    work: list[Callable[[], None]] = []
    new_log(LevelDbDisk(), tmp_path).close()
    log = EngineLogStore.open(LevelDbDisk(), tmp_path, background=work.append)
    noise = random.Random(1).randbytes(1 << 20)
    for index in range(1, 41):
        log.save([ready([command(1, index, noise)], term=1, sync=False)])
    log.set_durable(40)
    log.compact(EntryId(1, 20), voters(1))
    log.compact(EntryId(1, 39), voters(1))
    before = log.engine.disk_size()
    assert len(work) == 1
    work[0]()
    assert log.engine.disk_size() < before - (16 << 20)
    log.close()


def test_a_sweep_that_was_interrupted_is_finished_by_the_next() -> None:
    disk, path = MemoryDisk(random.Random(1)), Path("/node")
    log = new_log(disk, path)
    log.save([ready([command(1, index) for index in range(1, 5001)], term=1)])
    log.set_durable(5000)
    writes = iter((True, True))

    def die_at_the_third(database: Path) -> None:
        if not next(writes, False):
            raise OSError("killed")

    disk.before_write = die_at_the_third
    with pytest.raises(OSError, match="killed"):
        log.compact(EntryId(1, 4000), voters(1))
    disk.before_write = None
    disk.kill()
    log = EngineLogStore.open(disk, path)
    assert log.load().compacted == EntryId(1, 4000)
    assert entries_on_disk(log) == 5000 - 1024
    log.compact(EntryId(1, 4001), voters(1))
    assert entries_on_disk(log) == 999
    log.close()
