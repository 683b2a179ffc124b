"""The memory disk fails as a real one does: that is what the simulator relies on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from connect_kv.errors import StorageError, StorageInUse
from connect_kv.storage.memory import MemoryDisk, MemoryEngine

PATH = Path("/node/state/1")


def numbered(disk: MemoryDisk, count: int, *, synced: frozenset[int] = frozenset()) -> MemoryEngine:
    engine = disk.open(PATH)
    for number in range(count):
        engine.batch({b"%03d" % number: b"x" * 20}).write(sync=number in synced)
    return engine


def survivors(disk: MemoryDisk) -> list[int]:
    engine = disk.open(PATH)
    kept = [int(key) for key, _ in engine.iterate(b"", None)]
    engine.close()
    return kept


def test_a_killed_process_loses_nothing_it_wrote() -> None:
    disk = MemoryDisk(random.Random(1))
    engine = numbered(disk, 10)
    disk.kill()
    with pytest.raises(StorageError, match="died"):
        engine.get(b"000")
    assert survivors(disk) == list(range(10))


def test_a_crash_keeps_what_was_synced_and_a_prefix_of_the_rest() -> None:
    outcomes = set()
    for seed in range(50):
        disk = MemoryDisk(random.Random(seed))
        numbered(disk, 10, synced=frozenset({3}))
        disk.crash()
        kept = survivors(disk)
        assert kept == list(range(len(kept)))
        outcomes.add(len(kept))
    assert min(outcomes) == 4
    assert max(outcomes) == 10


def test_a_crash_may_lose_the_end_of_an_older_file_and_keep_a_newer_one() -> None:
    """As LevelDB does: a synced write proves nothing about older ones."""
    holes = 0
    for seed in range(50):
        disk = MemoryDisk(random.Random(seed), wal_bytes=100)
        numbered(disk, 16, synced=frozenset({15}))
        disk.crash()
        kept = survivors(disk)
        assert 15 in kept
        holes += kept != list(range(16))
    assert holes > 10


def test_sync_covers_every_file() -> None:
    for seed in range(20):
        disk = MemoryDisk(random.Random(seed), wal_bytes=100)
        numbered(disk, 16).sync()
        disk.crash()
        assert survivors(disk) == list(range(16))


def test_a_crash_takes_only_the_node_it_hits() -> None:
    disk = MemoryDisk(random.Random(1))
    other = disk.open(Path("/other/log"))
    numbered(disk, 3)
    disk.crash(Path("/node"))
    other.batch({b"a": b"1"}).write(sync=False)
    assert other.get(b"a") == b"1"


def test_a_failed_write_is_final_until_the_process_is_another() -> None:
    disk = MemoryDisk(random.Random(1))
    engine = numbered(disk, 3, synced=frozenset({2}))
    disk.fail_next_write(PATH, "Input/output error")
    with pytest.raises(StorageError, match="Input/output error"):
        engine.batch({b"lost": b""}).write(sync=True)
    assert engine.get(b"lost") is None
    with pytest.raises(StorageError, match="failed earlier"):
        engine.batch({b"later": b""}).write(sync=False)
    with pytest.raises(StorageError, match="failed earlier"):
        engine.sync()
    engine.close()
    with pytest.raises(StorageError, match="failed earlier"):
        disk.open(PATH)
    disk.crash()
    disk.open(PATH).close()


def test_a_full_disk_refuses_writes() -> None:
    disk = MemoryDisk(random.Random(1))
    engine = numbered(disk, 1)
    disk.full = True
    assert disk.free_bytes(PATH)[0] == 0
    with pytest.raises(StorageError, match="No space left"):
        engine.batch({b"a": b""}).write(sync=False)


def test_a_hook_sees_every_write_and_may_fail_it() -> None:
    disk = MemoryDisk(random.Random(1))
    seen: list[Path] = []
    disk.before_write = seen.append
    engine = numbered(disk, 2)
    engine.sync()
    assert seen == [PATH] * 4  # made, written twice, synced

    def fail(path: Path) -> None:
        raise OSError("slow, then dead")

    disk.before_write = fail
    with pytest.raises(OSError, match="slow"):
        engine.sync()
    disk.before_write = None
    with pytest.raises(StorageError, match="failed earlier"):
        engine.sync()
    assert disk.failing()
    engine.close()
    disk.before_write = fail
    with pytest.raises(OSError, match="slow"):
        disk.remove(PATH)
    with pytest.raises(OSError, match="slow"):
        disk.open(PATH / "new")
    assert disk.list(PATH.parent) == [PATH.name]


def test_what_is_open_is_not_deleted_and_what_is_not_cannot_be_made_to_fail() -> None:
    disk = MemoryDisk(random.Random(1))
    engine = disk.open(PATH)
    with pytest.raises(StorageInUse):
        disk.remove(PATH.parent)
    engine.close()
    with pytest.raises(ValueError, match="is not open"):
        disk.fail_next_write(PATH)
    disk.remove(PATH.parent)
    assert disk.list(PATH.parent) == []


def test_a_sync_that_fails_is_final_and_writes_nothing() -> None:
    disk = MemoryDisk(random.Random(1))
    engine = numbered(disk, 3)
    disk.fail_next_write(PATH)
    with pytest.raises(StorageError, match="Input/output"):
        engine.sync()
    with pytest.raises(StorageError, match="failed earlier"):
        engine.batch({b"004": b"x"}).write(sync=False)
    disk.kill()
    assert survivors(disk) == [0, 1, 2]


def test_a_bit_may_flip_in_what_is_read() -> None:
    disk = MemoryDisk(random.Random(1))
    engine = numbered(disk, 1)
    key, value = next(iter(engine.iterate(b"", None)))
    disk.after_read = lambda path, at, read: bytes((read[0] ^ 1,)) + read[1:]
    flipped = bytes((value[0] ^ 1,)) + value[1:]
    assert engine.get(key) == engine.view().get(key) == flipped
    assert dict(engine.iterate(b"", None)) == {key: flipped}
    disk.after_read = None
    assert engine.get(key) == value
