"""Every Engine keeps the promises of storage.engine, over LevelDB and in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connect_kv.errors import CorruptStorage, StorageError, StorageInUse
from connect_kv.storage.engine import Disk, Engine, Reader
from tests.storage.helpers import Pairs, make_disk

KINDS = ["leveldb", "memory"]


@pytest.fixture(params=KINDS)
def disk(request: pytest.FixtureRequest) -> Disk:
    return make_disk(request.param)


def write(engine: Engine, changes: dict[bytes, bytes | None], *, sync: bool = False) -> None:
    engine.batch(changes).write(sync=sync)


def test_a_batch_shows_whole_and_only_once_written(disk: Disk, tmp_path: Path) -> None:
    engine = disk.open(tmp_path / "db")
    write(engine, {b"gone": b"1"})
    batch = engine.batch({b"a": b"1", b"b": b"", b"gone": None})
    assert batch.size == 1 + 1 + 1 + 4
    assert engine.get(b"a") is None
    batch.write(sync=True)
    assert (engine.get(b"a"), engine.get(b"b"), engine.get(b"gone")) == (b"1", b"", None)
    engine.close()


def test_a_batch_takes_more_until_it_is_written(disk: Disk, tmp_path: Path) -> None:
    engine = disk.open(tmp_path / "db")
    batch = engine.batch({b"a": b"1", b"b": b"1"})
    batch.add({b"b": None, b"c": b"22"})
    assert batch.size == 2 + 2 + 1 + 3
    assert engine.get(b"a") is None
    batch.write(sync=False)
    assert [engine.get(key) for key in (b"a", b"b", b"c")] == [b"1", None, b"22"]
    engine.close()


def test_a_batch_is_written_once(disk: Disk, tmp_path: Path) -> None:
    engine = disk.open(tmp_path / "db")
    batch = engine.batch({b"a": b"1"})
    batch.write(sync=False)
    with pytest.raises(ValueError, match="written before"):
        batch.write(sync=False)
    engine.close()


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [(b"", None, b"acegi"), (b"b", b"g", b"ce"), (b"c", b"h", b"ceg"), (b"i", None, b"i"), (b"j", None, b"")],
)
def test_iteration_keeps_bounds_both_ways(
    disk: Disk, tmp_path: Path, start: bytes, stop: bytes | None, expected: bytes
) -> None:
    engine = disk.open(tmp_path / "db")
    write(engine, {bytes([key]): b"v" for key in b"gaeci"})
    wanted = [(bytes([key]), b"v") for key in expected]
    assert list(engine.iterate(start, stop)) == wanted
    assert list(engine.iterate(start, stop, reverse=True)) == wanted[::-1]
    engine.close()


def test_a_view_stays_as_it_was(disk: Disk, tmp_path: Path) -> None:
    engine = disk.open(tmp_path / "db")
    write(engine, {b"a": b"1", b"b": b"1"})
    view = engine.view()
    write(engine, {b"a": b"2", b"b": None, b"c": b"2"})
    assert list(view.iterate(b"", None)) == [(b"a", b"1"), (b"b", b"1")]
    assert (view.get(b"a"), view.get(b"b"), view.get(b"c")) == (b"1", b"1", None)
    view.close()
    view.close()
    with pytest.raises(StorageError):
        view.get(b"a")
    assert list(engine.iterate(b"", None)) == [(b"a", b"2"), (b"c", b"2")]
    engine.close()


def test_an_iteration_sees_one_state(disk: Disk, tmp_path: Path) -> None:
    engine = disk.open(tmp_path / "db")
    keys = [b"%03d" % number for number in range(300)]
    write(engine, dict.fromkeys(keys, b"old"))
    seen: Pairs = []
    for number, pair in enumerate(engine.iterate(b"", None)):
        seen.append(pair)
        write(engine, {keys[(number * 7) % 300]: None, b"%03da" % number: b"new"})
    assert seen == [(key, b"old") for key in keys]
    engine.close()


def test_an_abandoned_iteration_does_not_hinder_the_close(disk: Disk, tmp_path: Path) -> None:
    engine = disk.open(tmp_path / "db")
    write(engine, {b"a": b"1", b"b": b"1"})
    iterator = engine.iterate(b"", None)
    assert next(iterator) == (b"a", b"1")
    engine.close()
    del iterator


def test_what_was_written_is_there_after_reopening(disk: Disk, tmp_path: Path) -> None:
    engine = disk.open(tmp_path / "db")
    write(engine, {b"a": b"1"}, sync=True)
    write(engine, {b"b": b"2"})
    engine.close()
    engine = disk.open(tmp_path / "db", must_exist=True)
    assert list(engine.iterate(b"", None)) == [(b"a", b"1"), (b"b", b"2")]
    engine.close()


def test_a_database_is_opened_once(disk: Disk, tmp_path: Path) -> None:
    engine = disk.open(tmp_path / "db")
    write(engine, {b"a": b"1"})
    with pytest.raises(StorageInUse):
        disk.open(tmp_path / "db")
    write(engine, {b"a": b"2"})
    engine.close()
    disk.open(tmp_path / "db").close()


def test_one_that_must_exist_is_not_made(disk: Disk, tmp_path: Path) -> None:
    with pytest.raises(CorruptStorage, match="missing"):
        disk.open(tmp_path / "state" / "1", must_exist=True)
    assert disk.list(tmp_path / "state") == []


def test_closing_twice_is_safe_and_use_after_it_is_an_error(disk: Disk, tmp_path: Path) -> None:
    engine = disk.open(tmp_path / "db")
    batch = engine.batch({b"a": b"1"})
    engine.close()
    engine.close()
    for use in (
        lambda: engine.get(b"a"),
        lambda: list(engine.iterate(b"", None)),
        lambda: engine.batch({}),
        lambda: batch.write(sync=False),
        lambda: engine.view(),
        lambda: engine.sync(),
        lambda: engine.compact_range(b"a", b"b"),
    ):
        with pytest.raises(StorageError, match="closed"):
            use()


def test_removing_takes_directory_and_contents(disk: Disk, tmp_path: Path) -> None:
    for name in ("1", "2"):
        engine = disk.open(tmp_path / "state" / name)
        write(engine, {b"a": b"1"})
        engine.close()
    disk.remove(tmp_path / "state" / "1")
    disk.remove(tmp_path / "state" / "1")
    assert disk.list(tmp_path / "state") == ["2"]
    engine = disk.open(tmp_path / "state" / "1")
    assert engine.get(b"a") is None
    engine.close()


def test_sizes_and_space_are_told(disk: Disk, tmp_path: Path) -> None:
    engine = disk.open(tmp_path / "db")
    write(engine, {b"%04d" % number: b"x" * 1000 for number in range(1000)})
    engine.sync()
    assert engine.disk_size() >= 100_000
    engine.compact_range(b"0", b"9")
    assert engine.approximate_size(b"0", b"9") > 10_000
    assert engine.approximate_size(b"a", b"b") == 0
    free, total = disk.free_bytes(tmp_path)
    assert 0 < free <= total
    engine.close()


KEYS = st.binary(max_size=3).map(lambda raw: bytes(byte % 4 for byte in raw))
CHANGES = st.dictionaries(KEYS, st.none() | st.binary(max_size=4), max_size=8)
STEPS = st.lists(
    st.tuples(st.just("write"), CHANGES)
    | st.tuples(st.just("scan"), st.tuples(KEYS, st.none() | KEYS, st.booleans()))
    | st.tuples(st.just("view"), st.none())
    | st.tuples(st.just("reopen"), st.none()),
    max_size=30,
)


def scan(model: dict[bytes, bytes], start: bytes, stop: bytes | None, reverse: bool) -> Pairs:
    return sorted(
        ((k, v) for k, v in model.items() if k >= start and (stop is None or k < stop)), reverse=reverse
    )


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(steps=STEPS)
def test_an_engine_is_a_sorted_dict(kind: str, steps: list[tuple[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        disk, path = make_disk(kind), Path(directory) / "db"
        engine = disk.open(path)
        model: dict[bytes, bytes] = {}
        views: list[tuple[Reader, dict[bytes, bytes]]] = []
        for step, detail in steps:
            match step, detail:
                case "write", dict(changes):
                    write(engine, changes)
                    model.update({k: v for k, v in changes.items() if v is not None})
                    model = {k: v for k, v in model.items() if changes.get(k, b"") is not None}
                case "scan", (bytes(start), stop, bool(reverse)):
                    assert stop is None or isinstance(stop, bytes)
                    for reader, state in [(engine, model), *views]:
                        found = list(reader.iterate(start, stop, reverse=reverse))
                        assert found == scan(state, start, stop, reverse)
                        assert reader.get(start) == state.get(start)
                case "view", _:
                    views.append((engine.view(), dict(model)))
                case _:
                    views.clear()
                    engine.close()
                    engine = disk.open(path, must_exist=True)
        engine.close()


def test_a_copy_is_of_what_was_written_before(disk: Disk, tmp_path: Path) -> None:
    """Also while tables are replaced. What is written later is not in it, and it outlives the original."""
    engine = disk.open(tmp_path / "db", write_buffer=64 << 10)
    for number in range(40):
        write(engine, {b"%d %d" % (one, number): bytes(1000) for one in range(50)})
    write(engine, {b"last": b"1"})
    before = dict(engine.iterate(b"", None))
    there = engine.copy(tmp_path / "copy")
    write(engine, {b"last": b"2"}, sync=True)
    engine.compact_range(b"", b"\xff")
    engine.close()
    disk.remove(tmp_path / "db")
    if not there:
        assert disk.list(tmp_path / "copy") == []
        return
    copy = disk.open(tmp_path / "copy", must_exist=True)
    assert dict(copy.iterate(b"", None)) == before
    copy.close()
