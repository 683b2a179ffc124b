"""Looking at a stopped node's directory shows what is there and changes nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from connect_kv.errors import StorageError, StorageInUse
from connect_kv.raft.types import Entry, EntryId, EntryKind, HardState
from connect_kv.storage.codec import encode_entry, entry_key
from connect_kv.storage.inspect import inspect, read_entries, verify
from connect_kv.storage.leveldb import LevelDbDisk
from connect_kv.storage.log_store import EngineLogStore
from connect_kv.storage.state_dirs import StateDirs
from tests.storage.helpers import IDENTITY, commands, flip, member_entry, new_log, ready, voters


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A stopped node: entries 11 to 40, the state at 30, and a left-over of an attempt."""
    disk, path = LevelDbDisk(), tmp_path / "n1"
    log = new_log(disk, path)
    log.save(
        [
            ready(
                (*commands(1, 1, 20, b"x" * 50), member_entry(2, 20, voters(1, 2)), *commands(2, 21, 41)),
                term=3,
            )
        ]
    )
    dirs = StateDirs(disk, path)
    database = dirs.create("1")
    for index in range(1, 31):
        database.prepare({b"\x10%03d" % index: b"v" * 100}, index).write(sync=False)
    log.set_durable(database.make_durable())
    log.compact(EntryId(1, 10), voters(1))
    database.close()
    dirs.create("2").close()
    log.close()
    return path


def files(path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_summary_tells_what_is_there(data_dir: Path) -> None:
    before = files(data_dir)
    found = inspect(data_dir)
    assert (found.identity, found.confirmed, found.hard_state) == (IDENTITY, False, HardState(3, 1, 0))
    assert (found.compacted, found.first_index, found.last) == (EntryId(1, 10), 11, EntryId(2, 40))
    assert found.memberships == ((10, voters(1)), (20, voters(1, 2)))
    assert found.term_starts == ((11, 1), (20, 2))
    assert (found.state_name, found.durable_index) == ("1", 30)
    assert [(s.name, s.current, s.last_applied, s.problem) for s in found.states] == [
        ("1", True, 30, ""),
        ("2", False, 0, ""),
    ]
    assert found.log_bytes > 0
    assert [entry.index for entry in read_entries(data_dir, 5, 14)] == [11, 12, 13]
    assert [entry.index for entry in read_entries(data_dir)] == list(range(11, 41))
    assert files(data_dir) == before


def test_a_sound_directory_verifies(data_dir: Path) -> None:
    before = files(data_dir)
    reports = verify(data_dir)
    assert [Path(report.database).relative_to(data_dir).as_posix() for report in reports] == [
        "log",
        "state/1",
        "state/2",
    ]
    assert all(report.problems == () for report in reports)
    assert reports[0].records >= 30
    assert files(data_dir) == before


def test_damage_is_reported_for_the_database_it_is_in(data_dir: Path) -> None:
    engine = LevelDbDisk().open(data_dir / "state" / "1")
    engine.compact_range(b"", b"\xff")
    engine.close()
    table = max((data_dir / "state" / "1").glob("*.ldb"), key=lambda file: file.stat().st_size)
    flip(table, 20)
    log, state, other = verify(data_dir)
    assert (log.problems, other.problems) == ((), ())
    assert state.problems
    assert all("Corruption" in problem for problem in state.problems)
    assert inspect(data_dir).states[0].problem.startswith(str(data_dir / "state" / "1"))


def test_a_state_that_is_gone_or_older_than_the_log_says_is_reported(data_dir: Path) -> None:
    whole = verify(data_dir)
    shutil.rmtree(data_dir / "state" / "1")
    *others, missing = verify(data_dir)
    assert (missing.database, missing.problems) == (str(data_dir / "state" / "1"), ("is missing",))
    assert others == [whole[0], whole[2]]
    StateDirs(LevelDbDisk(), data_dir).create("1").close()
    _, older, _ = verify(data_dir)
    assert older.problems == ("stands at 0, and was on disk up to 30 once",)


def test_every_damaged_entry_is_named(data_dir: Path) -> None:
    log = EngineLogStore.open(LevelDbDisk(), data_dir)
    for index in (13, 27):
        value = log.engine.get(entry_key(0, index))
        assert value is not None
        log.engine.batch({entry_key(0, index): value + b"?"}).write(sync=True)
    log.close()
    problems = verify(data_dir)[0].problems
    assert [problem.split(";")[0] for problem in problems] == [
        "entry 13 does not match its checksum",
        "entry 27 does not match its checksum",
    ]


def test_a_running_node_is_not_looked_at(data_dir: Path) -> None:
    log = EngineLogStore.open(LevelDbDisk(), data_dir)
    for look in (inspect, verify, lambda path: list(read_entries(path))):
        with pytest.raises(StorageInUse, match=str(data_dir / "log")):
            look(data_dir)
    log.close()


def test_what_is_no_data_directory_is_said_so(tmp_path: Path) -> None:
    for look in (inspect, verify):
        with pytest.raises(StorageError, match="not the data directory"):
            look(tmp_path / "nothing")


def rewritten(data_dir: Path, terms: dict[int, int]) -> None:
    """Entries with other terms, and checksums that fit."""
    engine = LevelDbDisk().open(data_dir / "log")
    changes: dict[bytes, bytes | None] = {}
    for index, term in terms.items():
        entry = Entry(EntryId(term, index), EntryKind.COMMAND, b"y")
        changes[entry_key(0, index)] = encode_entry(entry)
    engine.batch(changes).write(sync=True)
    engine.close()


def test_terms_that_fall_are_reported(data_dir: Path) -> None:
    rewritten(data_dir, {30: 1})
    (report,) = (one for one in verify(data_dir) if one.database.endswith("log"))
    assert report.problems == ("entry 30 is of term 1, the one before of term 2",)


def test_no_more_problems_are_reported_than_can_be_read(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connect_kv.storage.inspect.MANY_PROBLEMS", 3)
    rewritten(data_dir, {index: 1 if index % 2 else 2 for index in range(22, 38)})
    (report,) = (one for one in verify(data_dir) if one.database.endswith("log"))
    assert len(report.problems) == 3
