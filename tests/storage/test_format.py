"""Directories written by every released format open; newer ones are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from connect_kv.errors import RefusedToStart
from connect_kv.raft.types import EntryId, HardState
from connect_kv.storage import codec
from connect_kv.storage.inspect import verify
from connect_kv.storage.leveldb import LevelDbDisk
from connect_kv.storage.log_store import EngineLogStore
from connect_kv.storage.state_dirs import StateDirs
from tests.storage.helpers import IDENTITY, commands, copy_of, member_entry, voters

FIXTURES = Path(__file__).parent / "fixtures"


def test_a_directory_of_format_1_opens(tmp_path: Path) -> None:
    path = copy_of(FIXTURES / "format-1", tmp_path / "n1")
    log = EngineLogStore.open(LevelDbDisk(), path)
    restored = log.load()
    assert (log.identity, log.confirmed, log.noted_directory(2)) == (IDENTITY, True, b"\x02" * 16)
    assert (restored.hard_state, restored.compacted) == (HardState(4, 1, 0), EntryId(1, 2))
    assert restored.recent == (
        *commands(1, 3, 6),
        member_entry(3, 6, voters(1, 2)),
        *commands(3, 7, 10, b"\x00\xff"),
    )
    assert restored.memberships == ((2, voters(1)), (6, voters(1, 2)))
    assert restored.term_starts == ((3, 1), (6, 3))
    assert (log.state_name, log.durable_index) == ("1", 4)
    database = StateDirs(LevelDbDisk(), path).open(log.state_name, log.durable_index)
    assert database.last_applied == 8
    assert [value for _, value in database.engine.iterate(b"\x10", b"\x11")] == [
        b"value%d" % i for i in range(1, 9)
    ]
    database.close()
    log.close()
    assert all(report.problems == () for report in verify(path))


def test_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    path = copy_of(FIXTURES / "format-1", tmp_path / "n1")
    engine = LevelDbDisk().open(path / "log")
    engine.batch({codec.LOG_FORMAT: codec.u64(2)}).write(sync=True)
    engine.close()
    with pytest.raises(RefusedToStart) as caught:
        EngineLogStore.open(LevelDbDisk(), path)
    assert str(caught.value) == (
        f"{path / 'log'}: has format version 2, and this version of connect-kv knows up to 1:"
        " start it with the newer version that wrote it"
    )
    LevelDbDisk().open(path / "log").close()  # the refusal let go of it
