"""What was written after a gap is given up: LevelDB itself would leave the hole (docs/architecture.md)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from connect_kv.storage import manifest, wal
from connect_kv.storage.leveldb import LevelDbDisk, LevelDbEngine
from tests.storage.helpers import copy_of, only_wal

BATCHES = 6
SPLIT = 3
"""Batches in the first of two files."""


def write(engine: LevelDbEngine, number: int, size: int = 20) -> None:
    engine.batch({b"a%06d" % number: b"x" * size, b"b%06d" % number: b"y" * size}).write(sync=False)


def present(path: Path, *, in_order: bool) -> list[int]:
    """The batches that are there; each is whole."""
    engine = LevelDbDisk().open(path, must_exist=True, in_order=in_order)
    try:
        keys = [key for key, _ in engine.iterate(b"", None)]
    finally:
        engine.close()
    first, second = ([int(key[1:]) for key in keys if key[:1] == letter] for letter in (b"a", b"b"))
    assert first == second
    return first


@pytest.fixture
def two_files(tmp_path: Path) -> Path:
    """As LevelDB leaves them when the power fails just after it began the second."""
    engine = LevelDbDisk().open(tmp_path / "db")
    ends = []
    file = only_wal(tmp_path / "db")
    for number in range(BATCHES):
        write(engine, number)
        ends.append(file.stat().st_size)
    engine.close()
    data = file.read_bytes()
    file.write_bytes(data[: ends[SPLIT - 1]])
    file.with_name(f"{int(file.stem) + 1:06}.log").write_bytes(data[ends[SPLIT - 1] :])
    return tmp_path / "db"


def test_files_that_follow_each_other_are_kept(two_files: Path) -> None:
    assert present(two_files, in_order=True) == list(range(BATCHES))


@pytest.mark.long
def test_a_file_after_one_that_was_cut_anywhere_is_given_up(two_files: Path, tmp_path: Path) -> None:
    first = wal.files(two_files)[0]
    data = (two_files / first).read_bytes()
    counts = set()
    for cut in range(len(data)):
        path = copy_of(two_files, tmp_path / "cut")
        (path / first).write_bytes(data[:cut])
        found = present(path, in_order=True)
        assert found == list(range(len(found)))
        assert len(found) < SPLIT
        counts.add(len(found))
    assert counts == set(range(SPLIT))


def test_without_that_the_hole_stays(two_files: Path) -> None:
    file = two_files / wal.files(two_files)[0]
    file.write_bytes(file.read_bytes()[:-1])
    assert present(two_files, in_order=False) == [0, 1, 3, 4, 5]


def test_files_whose_batches_are_in_tables_are_no_gap(two_files: Path) -> None:
    """An old file that is there again after a power failure is not needed, whatever it lost."""
    names = wal.files(two_files)
    (two_files / names[0]).write_bytes(b"")
    needed = int(names[1].removesuffix(".log"))
    assert wal.after_gap(two_files, needed, 0) == []
    assert wal.after_gap(two_files, needed - 1, 0) == [names[1]]


def test_batches_over_several_blocks_are_counted(tmp_path: Path) -> None:
    """A header may be split between blocks; the numbers must be right all the same."""
    sizes = [*range(16_340, 16_384), 70_000, 5]
    engine = LevelDbDisk().open(tmp_path / "db", write_buffer=16 << 20)
    for number, size in enumerate(sizes):
        write(engine, number, size)
    engine.close()
    found = list(wal._batches(only_wal(tmp_path / "db")))
    assert found == [(1 + 2 * number, 2) for number in range(len(sizes))]


WRITER = """
import os, sys
from pathlib import Path
from connect_kv.storage.leveldb import LevelDbDisk
engine = LevelDbDisk().open(Path(sys.argv[1]), write_buffer=1 << 16)
for number in range(int(sys.argv[2])):
    engine.batch({b"a%06d" % number: b"x" * 300, b"b%06d" % number: b"y" * 300}).write(sync=False)
os._exit(0)
"""


@pytest.mark.parametrize("count", [1, 90, 95, 100, 300, 1000])
def test_a_killed_process_leaves_no_gap(count: int, tmp_path: Path) -> None:
    """Its files change all the time; none of them is given up."""
    subprocess.run([sys.executable, "-c", WRITER, str(tmp_path / "db"), str(count)], check=True)
    assert wal.after_gap(tmp_path / "db", *manifest.read(tmp_path / "db")) == []
    assert present(tmp_path / "db", in_order=True) == list(range(count))
