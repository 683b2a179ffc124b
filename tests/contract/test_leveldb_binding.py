"""What storage.leveldb relies on, of every binding of LevelDB that is installed here: plyvel, plyvel-next."""

from __future__ import annotations

import importlib
import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BINDINGS = [name for name in ("plyvel", "plyvel_next") if importlib.util.find_spec(name)]


@pytest.fixture(params=BINDINGS)
def binding(request: pytest.FixtureRequest) -> Any:
    return importlib.import_module(request.param)


def opened(binding: Any, path: Path, **options: Any) -> Any:
    settings = {"create_if_missing": True, "paranoid_checks": True, "compression": None} | options
    return binding.DB(str(path), **settings)


@pytest.fixture
def db(binding: Any, tmp_path: Path) -> Iterator[Any]:
    database = opened(binding, tmp_path / "db", bloom_filter_bits=10, lru_cache_size=1 << 20)
    yield database
    database.close()


def fill(db: Any, count: int = 1000, size: int = 1000) -> None:
    with db.write_batch() as batch:
        for number in range(count):
            batch.put(b"%06d" % number, bytes([number % 251]) * size)


def test_a_batch_that_was_prepared_is_appended_to_a_synced_one(db: Any) -> None:
    prepared = db.write_batch(transaction=True)
    prepared.put(b"a", b"1")
    prepared.delete(b"b")
    synced = db.write_batch(transaction=True, sync=True)
    synced.append(prepared)
    assert db.get(b"a") is None
    synced.write()
    assert db.get(b"a", verify_checksums=True) == b"1"


def test_a_batch_may_be_written_by_another_thread(db: Any) -> None:
    batch = db.write_batch(transaction=True)
    batch.put(b"a", b"1")
    thread = threading.Thread(target=batch.write)
    thread.start()
    thread.join()
    assert db.get(b"a") == b"1"


def test_a_raw_iterator_goes_both_ways_and_ends_invalid(db: Any) -> None:
    fill(db, 5, 1)
    iterator = db.raw_iterator(verify_checksums=True)
    iterator.seek(b"000003")
    assert iterator.valid()
    assert iterator.item()[0] == b"000003"
    iterator.prev()
    assert iterator.item()[0] == b"000002"
    iterator.seek(b"9")
    assert not iterator.valid()
    iterator.seek_to_last()
    assert iterator.item()[0] == b"000004"
    iterator.next()
    assert not iterator.valid()
    iterator.close()


def test_a_snapshot_sees_what_was_there_when_it_was_taken(db: Any) -> None:
    fill(db, 10, 1)
    snapshot = db.snapshot()
    db.delete(b"000003")
    assert snapshot.get(b"000003", verify_checksums=True) is not None
    assert len(list(snapshot.iterator(include_value=False))) == 10
    snapshot.close()
    assert db.get(b"000003") is None


def test_keys_and_values_of_any_bytes(db: Any) -> None:
    for key, value in ((b"", b"empty key"), (b"\x00\xff", b""), (b"\xff" * 100, b"\x00" * 100_000)):
        db.put(key, value)
        assert db.get(key) == value


def test_the_second_that_opens_it_is_told_of_the_lock(binding: Any, db: Any, tmp_path: Path) -> None:
    with pytest.raises(binding.IOError) as caught:
        opened(binding, tmp_path / "db")
    text = caught.value.args[0]
    reason = text.decode() if isinstance(text, bytes) else text
    assert reason.startswith("IO error: lock")
    assert "/LOCK: " in reason


def test_one_that_is_missing_is_refused(binding: Any, tmp_path: Path) -> None:
    with pytest.raises(binding.Error):
        opened(binding, tmp_path / "missing", create_if_missing=False)


def test_a_damaged_block_is_an_error_and_never_another_value(binding: Any, tmp_path: Path) -> None:
    db = opened(binding, tmp_path / "db")
    fill(db)
    db.compact_range()
    db.close()
    (table,) = [*(tmp_path / "db").glob("*.ldb"), *(tmp_path / "db").glob("*.sst")][:1]
    data = bytearray(table.read_bytes())
    data[100] ^= 1
    table.write_bytes(data)
    db = opened(binding, tmp_path / "db")
    with pytest.raises(binding.CorruptionError):
        db.get(b"000000", verify_checksums=True)
    db.close()


def test_after_it_was_closed_every_use_is_a_runtime_error(binding: Any, tmp_path: Path) -> None:
    db = opened(binding, tmp_path / "db")
    fill(db, 3, 1)
    iterator, snapshot = db.raw_iterator(), db.snapshot()
    db.close()
    assert db.closed
    for use in (
        lambda: db.get(b"000000"),
        lambda: db.put(b"a", b"1"),
        lambda: snapshot.get(b"000000"),
        iterator.seek_to_first,
        lambda: db.write_batch().write(),
    ):
        with pytest.raises(RuntimeError):
            use()
    db.close()  # once more does no harm
    snapshot.close()
    iterator.close()


def test_space_is_given_back_by_a_compaction_and_its_size_is_told(db: Any) -> None:
    fill(db)
    db.compact_range()
    assert db.approximate_size(b"0", b"9") > 900_000
    with db.write_batch() as batch:
        for number in range(1000):
            batch.delete(b"%06d" % number)
    db.compact_range(start=b"0", stop=b"9")
    assert db.approximate_size(b"0", b"9") < 50_000


def test_the_files_of_one_are_read_by_the_other(tmp_path: Path) -> None:
    if len(BINDINGS) < 2:
        pytest.skip("only one binding of LevelDB is installed here")
    first, second = map(importlib.import_module, BINDINGS)
    for number, (writes, reads) in enumerate(((first, second), (second, first))):
        db = opened(writes, tmp_path / str(number))
        fill(db, 100)
        db.compact_range()
        db.put(b"in the log", b"1", sync=True)
        db.close()
        db = opened(reads, tmp_path / str(number), create_if_missing=False)
        assert db.get(b"in the log", verify_checksums=True) == b"1"
        assert len(list(db.iterator(verify_checksums=True))) == 101
        db.close()
