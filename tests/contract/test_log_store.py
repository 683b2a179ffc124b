"""Every LogStore keeps the promises of interfaces.LogStore, over LevelDB and in memory."""

from __future__ import annotations

import random
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connect_kv.errors import CorruptStorage, StorageError
from connect_kv.raft.types import ZERO, Entry, EntryId, EntryKind, HardState, SnapshotMeta
from connect_kv.storage import codec
from connect_kv.storage.engine import Disk
from connect_kv.storage.log_store import EngineLogStore
from connect_kv.storage.memory import MemoryDisk
from tests.storage.helpers import (
    IDENTITY,
    commands,
    make_disk,
    member_entry,
    new_log,
    ready,
    voters,
)


@pytest.fixture(params=["leveldb", "memory"])
def disk(request: pytest.FixtureRequest) -> Disk:
    return make_disk(request.param)


def reopen(log: EngineLogStore, disk: Disk, path: Path) -> EngineLogStore:
    log.close()
    return EngineLogStore.open(disk, path)


def test_a_new_directory_is_nobodys_until_bootstrapped(disk: Disk, tmp_path: Path) -> None:
    log = EngineLogStore.open(disk, tmp_path)
    assert (log.identity, log.state_name, log.durable_index) == (None, "", 0)
    log = reopen(log, disk, tmp_path)
    log.bootstrap(IDENTITY, voters(1, 2), "1")
    log = reopen(log, disk, tmp_path)
    restored = log.load()
    assert (log.identity, log.state_name, log.confirmed) == (IDENTITY, "1", False)
    assert (restored.last, restored.compacted, restored.memberships) == (ZERO, ZERO, ((0, voters(1, 2)),))
    with pytest.raises(ValueError, match="belongs"):
        log.bootstrap(IDENTITY, voters(1), "1")
    log.close()


def test_what_the_log_takes_is_known_after_a_restart(disk: Disk, tmp_path: Path) -> None:
    log = new_log(disk, tmp_path)
    log.save([ready(commands(1, 1, 101, random.Random(1).randbytes(10_000)), term=1)])
    log = reopen(log, disk, tmp_path)
    assert 900_000 < log.load().log_bytes < 1_100_000
    log.close()


def test_what_was_saved_is_loaded(disk: Disk, tmp_path: Path) -> None:
    log = new_log(disk, tmp_path)
    log.save([ready(commands(1, 1, 4), term=1), ready(commands(3, 4, 6), term=3)])
    before = log.load()
    log = reopen(log, disk, tmp_path)
    restored = log.load()
    assert replace(restored, log_bytes=before.log_bytes) == before
    assert restored.hard_state == HardState(3, 1, 0)
    assert restored.recent == commands(1, 1, 4) + commands(3, 4, 6)
    assert (restored.last, restored.term_starts) == (EntryId(3, 5), ((1, 1), (4, 3)))
    log.close()


def test_an_overwritten_tail_is_gone_with_its_terms_and_memberships(disk: Disk, tmp_path: Path) -> None:
    """§5.3: a conflicting entry deletes all that follow it; thesis 4.1: the membership rolls back."""
    log = new_log(disk, tmp_path)
    log.save([ready((*commands(1, 1, 3), member_entry(2, 3, voters(1, 2)), *commands(3, 4, 9)), term=3)])
    assert [index for index, _ in log.load().memberships] == [0, 3]
    log.save([ready(commands(4, 3, 5), term=4)])
    log = reopen(log, disk, tmp_path)
    restored = log.load()
    assert restored.recent == commands(1, 1, 3) + commands(4, 3, 5)
    assert restored.memberships == ((0, voters(1)),)
    assert restored.term_starts == ((1, 1), (3, 4))
    assert log.entries(5, 9, 1 << 20) == []
    log.close()


def test_readies_merged_into_one_batch_count_in_order(disk: Disk, tmp_path: Path) -> None:
    """A later Ready of the same batch may overwrite what an earlier one appended."""
    log = new_log(disk, tmp_path)
    log.save(
        [
            ready((*commands(1, 1, 5), member_entry(1, 5, voters(1, 3)))),
            ready(commands(2, 2, 4), term=2),
            ready((member_entry(2, 4, voters(1, 4)),)),
        ]
    )
    log = reopen(log, disk, tmp_path)
    restored = log.load()
    assert [entry.id for entry in restored.recent] == [EntryId(1, 1), *(EntryId(2, i) for i in (2, 3, 4))]
    assert restored.memberships == ((0, voters(1)), (4, voters(1, 4)))
    log.close()


def test_a_gap_or_a_compacted_entry_is_not_stored(disk: Disk, tmp_path: Path) -> None:
    log = new_log(disk, tmp_path)
    log.save([ready(commands(1, 1, 4), term=1)])
    log.set_durable(3)
    log.compact(EntryId(1, 2), voters(1))
    for start in (2, 5):
        with pytest.raises(ValueError, match="does not follow"):
            log.save([ready(commands(1, start, start + 1))])
    log.close()


def test_entries_are_bounded_by_bytes_but_for_the_first(disk: Disk, tmp_path: Path) -> None:
    log = new_log(disk, tmp_path)
    log.save([ready(commands(1, 1, 10, b"x" * 100), term=1)])
    assert [entry.index for entry in log.entries(3, 9, 350)] == [3, 4, 5]
    assert [entry.index for entry in log.entries(3, 9, 0)] == [3]
    assert [entry.index for entry in log.entries(8, 99, 1 << 20)] == [8, 9]
    assert log.entries(10, 12, 100) == []
    log.close()


def test_compaction_moves_the_start_and_keeps_the_rest(disk: Disk, tmp_path: Path) -> None:
    """§7: what is left starts after `compacted`, under the membership in force there."""
    log = new_log(disk, tmp_path)
    log.save([ready((*commands(1, 1, 3), member_entry(1, 3, voters(1, 2)), *commands(1, 4, 6)), term=1)])
    log.save([ready((*commands(2, 6, 8), member_entry(2, 8, voters(1, 2, 3))), term=2)])
    log.set_durable(6)
    log.compact(EntryId(1, 4), voters(1, 2))
    log = reopen(log, disk, tmp_path)
    restored = log.load()
    assert (restored.compacted, log.first_index, restored.last) == (EntryId(1, 4), 5, EntryId(2, 8))
    assert restored.memberships == ((4, voters(1, 2)), (8, voters(1, 2, 3)))
    assert restored.term_starts == ((5, 1), (6, 2))
    assert log.entries(4, 6, 100) == []
    assert [entry.index for entry in restored.recent] == [5, 6, 7, 8]
    log.close()


def test_compaction_of_everything_keeps_the_place(disk: Disk, tmp_path: Path) -> None:
    log = new_log(disk, tmp_path)
    log.save([ready(commands(2, 1, 4), term=2)])
    log.set_durable(3)
    log.compact(EntryId(2, 3), voters(1))
    log = reopen(log, disk, tmp_path)
    restored = log.load()
    assert (restored.last, restored.recent, restored.term_starts) == (EntryId(2, 3), (), ())
    log.save([ready(commands(2, 4, 5))])
    assert log.load().term_starts == ((4, 2),)
    log.close()


def test_nothing_is_compacted_that_the_state_has_not_on_disk(disk: Disk, tmp_path: Path) -> None:
    log = new_log(disk, tmp_path)
    log.save([ready(commands(1, 1, 9), term=1)])
    log.set_durable(4)
    log.set_durable(3)
    assert log.durable_index == 4
    with pytest.raises(ValueError, match="needed"):
        log.compact(EntryId(1, 5), voters(1))
    assert log.first_index == 1
    log.close()


def test_an_installed_snapshot_empties_the_log(disk: Disk, tmp_path: Path) -> None:
    """§7; also of entries beyond it: they are sent again if they still count."""
    log = new_log(disk, tmp_path)
    log.save([ready((*commands(1, 1, 5), member_entry(1, 5, voters(1, 9)), *commands(1, 6, 50)), term=1)])
    log.install("2", SnapshotMeta(EntryId(2, 20), voters(1, 2)))
    before = log.load()
    log = reopen(log, disk, tmp_path)
    restored = log.load()
    assert restored == before
    assert (log.state_name, log.durable_index) == ("2", 20)
    assert (restored.compacted, restored.last, restored.recent) == (EntryId(2, 20), EntryId(2, 20), ())
    assert (restored.memberships, restored.term_starts) == (((20, voters(1, 2)),), ())
    log.save([ready(commands(3, 21, 23), term=3)])
    log = reopen(log, disk, tmp_path)
    assert log.load().recent == commands(3, 21, 23)
    assert log.entries(21, 50, 1 << 20) == list(commands(3, 21, 23))
    log.close()


def test_a_lost_state_needs_a_snapshot_unless_the_log_is_whole(disk: Disk, tmp_path: Path) -> None:
    log = new_log(disk, tmp_path)
    log.save([ready(commands(1, 1, 9), term=1)])
    log.set_durable(8)
    log.reset_state("2")
    assert (log.load().needs_snapshot, log.state_name, log.durable_index) == (False, "2", 0)
    log.set_durable(8)
    log.compact(EntryId(1, 5), voters(1))
    assert not log.load().needs_snapshot
    log.reset_state("3")
    log = reopen(log, disk, tmp_path)
    assert (log.load().needs_snapshot, log.state_name) == (True, "3")
    log.close()


def test_directories_and_confirmation_are_remembered(disk: Disk, tmp_path: Path) -> None:
    log = new_log(disk, tmp_path)
    log.note_directory(2**64 - 1, b"elsewhere")
    log.confirm()
    log = reopen(log, disk, tmp_path)
    assert log.noted_directory(2**64 - 1) == b"elsewhere"
    assert log.noted_directory(3) is None
    assert log.confirmed
    log.close()


def test_only_the_end_of_the_log_is_loaded(disk: Disk, tmp_path: Path) -> None:
    log = new_log(disk, tmp_path)
    log.save([ready(commands(1, 1, 100, b"x" * 100), term=1)])
    log.close()
    for limits, expected in (((10, 1 << 20), 10), ((1000, 1200), 10), ((1000, 1), 1)):
        log = EngineLogStore.open(disk, tmp_path, window_entries=limits[0], window_bytes=limits[1])
        recent = log.load().recent
        assert recent == commands(1, 100 - expected, 100, b"x" * 100)
        log.close()


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        (codec.entry_key(0, 5), None, "entry 5 is missing"),
        (codec.entry_key(0, 1), None, "entry 1, the first, is missing"),
        (codec.entry_key(0, 5), b"short", "entry 5 is too short"),
        (codec.LOG_HARD_STATE, None, "hard state is missing"),
        (codec.LOG_BASE, b"", "wrong length"),
        (codec.LOG_GARBAGE, codec.encode_runs([codec.DiscardedRun(0, 5, 5)]), "not entries to be deleted"),
        (
            codec.LOG_GARBAGE,
            codec.encode_runs([codec.DiscardedRun(2**32, 1, 5)]),
            "not entries to be deleted",
        ),
        (codec.LOG_BASE, codec.Base(EntryId(1, 2), 2**32 - 1).encode(), "no log starts"),
        (codec.LOG_BASE, codec.Base(EntryId(1, 2**64 - 1), 0).encode(), "no log starts"),
        (codec.LOG_FORMAT, None, "format version is missing"),
        (codec.membership_key(0), None, "membership at index 0"),
        (codec.membership_key(0), b"{}", "not a membership"),
        (codec.membership_key(12), voters(1).encode(), "no such entry"),
        (codec.term_start_key(1), None, "term of entry 1"),
        (codec.term_start_key(4), codec.u64(2), "term of entry 4"),
    ],
)
def test_a_log_that_does_not_fit_together_is_refused(
    disk: Disk, tmp_path: Path, key: bytes, value: bytes | None, what: str
) -> None:
    log = new_log(disk, tmp_path)
    log.save([ready(commands(1, 1, 10), term=1)])
    log.engine.batch({key: value}).write(sync=True)
    log.close()
    with pytest.raises(CorruptStorage, match=what) as caught:  # one of both finds it
        EngineLogStore.open(disk, tmp_path).load()
    assert str(tmp_path / "log") in str(caught.value)
    assert "docs/operations.md" in str(caught.value)


def test_our_own_checksum_finds_a_changed_entry(disk: Disk, tmp_path: Path) -> None:
    log = new_log(disk, tmp_path)
    log.save([ready(commands(1, 1, 10), term=1)])
    value = log.engine.get(codec.entry_key(0, 4))
    assert value is not None
    for at in range(len(value)):
        changed = bytes([*value[:at], value[at] ^ 0x10, *value[at + 1 :]])
        log.engine.batch({codec.entry_key(0, 4): changed}).write(sync=False)
        with pytest.raises(CorruptStorage, match="entry 4 does not match its checksum"):
            log.entries(2, 8, 1 << 20)
    log.close()


STEPS = st.lists(
    st.sampled_from(["append", "append", "append", "overwrite", "compact", "install", "reopen"]), max_size=25
)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["leveldb", "memory"])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(steps=STEPS, seed=st.integers(0, 2**32))
def test_a_log_is_a_list_of_entries(kind: str, steps: list[str], seed: int) -> None:
    """Against a list with an offset: appends, overwrites, compaction and snapshots in any order."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as directory:
        disk, path = make_disk(kind), Path(directory)
        log = new_log(disk, path)
        model: list[Entry] = []
        compacted, term, base = ZERO, 1, voters(1)
        for step in steps:
            last = model[-1].index if model else compacted.index
            if step in ("append", "overwrite"):
                first = last + 1
                if step == "overwrite":
                    first, term = rng.randint(compacted.index + 1, last + 1), term + 1
                added = [
                    member_entry(term, first + at, voters(1, rng.randint(2, 9)))
                    if rng.random() < 0.2
                    else commands(term, first + at, first + at + 1)[0]
                    for at in range(rng.randint(1, 5))
                ]
                log.save([ready(added, term=term)])
                model = [entry for entry in model if entry.index < first] + added
            elif step == "compact" and model:
                entry = rng.choice(model)
                seen = [e for e in model if e.index <= entry.index and e.kind is EntryKind.MEMBERSHIP]
                base = type(base).decode(seen[-1].data) if seen else base
                log.set_durable(entry.index)
                log.compact(entry.id, base)
                compacted, model = entry.id, [e for e in model if e.index > entry.index]
            elif step == "install":
                compacted, model, base = EntryId(term, last + rng.randint(1, 3)), [], voters(1, 2)
                log.install("2", SnapshotMeta(compacted, base))
            else:
                log = reopen(log, disk, path)
            restored = log.load()
            changes = [(e.index, type(base).decode(e.data)) for e in model if e.kind is EntryKind.MEMBERSHIP]
            starts = [
                (e.index, e.term)
                for e, before in zip(model, [None, *model], strict=False)
                if not before or before.term != e.term
            ]
            assert restored.recent == tuple(model)
            assert restored.compacted == compacted
            assert restored.memberships == ((compacted.index, base), *changes)
            assert restored.term_starts == tuple(starts)
            assert log.entries(log.first_index, log.last_index + 1, 1 << 20) == model
        log.close()


def test_hard_state_alone_is_saved(disk: Disk, tmp_path: Path) -> None:
    log = new_log(disk, tmp_path)
    vote = replace(ready(term=5), hard_state=HardState(5, 2**64 - 1, 0))
    log.save([vote, ready(sync=False)])
    log = reopen(log, disk, tmp_path)
    assert log.load().hard_state == HardState(5, 2**64 - 1, 0)
    log.close()


def test_a_save_without_changes_writes_nothing() -> None:
    disk = MemoryDisk(random.Random(1))
    log = new_log(disk, Path("/n1"))
    log.save([ready(commands(1, 1, 3), term=1)])
    disk.full = True
    log.save([ready()])
    log.save([ready(term=1)])
    with pytest.raises(StorageError):
        log.save([ready(term=2)])


@pytest.mark.parametrize("gone", [4, 5, 7])
def test_an_entry_that_is_missing_where_it_is_read_is_damage(disk: Disk, tmp_path: Path, gone: int) -> None:
    """Beyond the window, where a start does not look."""
    log = new_log(disk, tmp_path)
    log.save([ready(commands(1, 1, 10), term=1)])
    log.engine.batch({codec.entry_key(0, gone): None}).write(sync=True)
    with pytest.raises(CorruptStorage, match=f"entry {gone} is missing"):
        log.entries(4, 8, 1 << 20)
    log.close()
