"""Tables that are made outside of LevelDB are tables to it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connect_kv.errors import CorruptStorage
from connect_kv.storage import bulk, tables
from connect_kv.storage.bulk import ReopeningReader, adopt
from connect_kv.storage.leveldb import LevelDbDisk
from connect_kv.storage.tables import TableSeries

KEYS = st.binary(max_size=30)
VALUES = st.one_of(st.binary(max_size=40), st.sampled_from([bytes(200), bytes(17_000)]))


def made(directory: Path, pairs: Mapping[bytes, bytes], pieces: int = 1) -> Path:
    """A database with these in tables, and two records that were put."""
    path = directory / "database"
    with closing(LevelDbDisk().open(path)) as engine:
        engine.batch({b"\xff own": b"1", b"\xff other": b"2"}).write(sync=True)
    series = TableSeries(directory, "t", bulk.SEQUENCE)
    ordered = sorted(pairs.items())
    for number in range(pieces):
        series.add(ordered[len(ordered) * number // pieces : len(ordered) * (number + 1) // pieces])
    adopt(path, series.finish())
    return path


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=60), st.integers(1, 4), st.sampled_from([1, 300, 4096]))
def test_what_is_in_tables_is_in_the_database(pairs: dict[bytes, bytes], pieces: int, table: int) -> None:
    pairs = {b"k" + key: value for key, value in pairs.items()}
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "BLOCK_BYTES", 100)
        patch.setattr(tables, "TABLE_BYTES", table)
        path = made(Path(name), pairs, pieces)
        ordered = sorted(pairs.items())
        for _ in range(2):
            with closing(LevelDbDisk().open(path, must_exist=True)) as engine:
                assert list(engine.iterate(b"k", b"l")) == ordered
                assert list(engine.iterate(b"k", b"l", reverse=True)) == ordered[::-1]
                assert [engine.get(key) for key in pairs] == list(pairs.values())
                assert engine.get(b"kk" * 20) is None
                assert (engine.get(b"\xff own"), engine.get(b"\xff other")) == (b"1", b"2")


def test_tables_are_changed_and_merged_as_all_are(tmp_path: Path) -> None:
    path = made(tmp_path, {b"k%06d" % number: bytes(200) for number in range(20_000)})
    with closing(LevelDbDisk().open(path)) as engine:
        engine.batch({b"k%06d" % number: None for number in range(0, 20_000, 2)}).write(sync=True)
        engine.batch({b"k000001": b"new"}).write(sync=True)
        engine.compact_range(b"", b"\xff")
    with closing(LevelDbDisk().open(path)) as engine:
        left = list(engine.iterate(b"k", b"l"))
    assert [key for key, _ in left] == [b"k%06d" % number for number in range(1, 20_000, 2)]
    assert left[0][1] == b"new"


def test_so_many_tables_that_their_record_crosses_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record of the MANIFEST of more than 32 KiB is in pieces."""
    monkeypatch.setattr(tables, "TABLE_BYTES", 1)
    monkeypatch.setattr(tables, "BLOCK_BYTES", 1)
    pairs = {b"k%0200d" % number: b"v" for number in range(300)}
    path = made(tmp_path, pairs)
    with closing(LevelDbDisk().open(path)) as engine:
        assert dict(engine.iterate(b"k", b"l")) == pairs


def test_tables_that_overlap_are_refused(tmp_path: Path) -> None:
    with closing(LevelDbDisk().open(tmp_path / "database")):
        pass
    made = []
    for name, keys in (("a", (b"a", b"c")), ("b", (b"b", b"d"))):
        series = TableSeries(tmp_path, name, bulk.SEQUENCE)
        series.add([(key, b"") for key in keys])
        made += series.finish()
    with pytest.raises(CorruptStorage, match="overlaps"):
        adopt(tmp_path / "database", made)


def test_a_damaged_table_is_seen(tmp_path: Path) -> None:
    path = made(tmp_path, {b"k%d" % number: bytes(100) for number in range(1000)})
    (table,) = path.glob("*.ldb")
    content = bytearray(table.read_bytes())
    content[5000] ^= 1
    table.write_bytes(content)
    with closing(LevelDbDisk().open(path)) as engine, pytest.raises(CorruptStorage):
        list(engine.iterate(b"k", b"l"))


@pytest.mark.parametrize("reverse", [False, True])
def test_a_reader_that_opens_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reverse: bool) -> None:
    monkeypatch.setattr(bulk, "REOPEN_BYTES", 500)
    pairs = {b"k%d" % number: bytes(number) for number in range(100)}
    reader = ReopeningReader(made(tmp_path, pairs))
    assert list(reader.iterate(b"k", b"l", reverse=reverse)) == sorted(pairs.items(), reverse=reverse)
    assert reader.get(b"k7") == bytes(7)
    assert reader.get(b"k") is None
    walk = reader.iterate(b"k", None)
    next(walk)
    del walk
    assert reader.get(b"k8") == bytes(8), "a walk that was left lets go of the database"
