"""A write-ahead log cut short is recovered silently; whatever else is damaged is refused by name."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from connect_kv.errors import CorruptStorage
from connect_kv.storage import manifest, wal
from connect_kv.storage.leveldb import LevelDbDisk
from connect_kv.storage.log_store import EngineLogStore
from tests.storage.helpers import commands, copy_of, flip, new_log, only_wal, ready


def write_batches(path: Path, sizes: list[int]) -> None:
    """Batch i sets a<i> and b<i>, and counts."""
    engine = LevelDbDisk().open(path)
    for number, size in enumerate(sizes):
        value = bytes([number + 1]) * size
        changes: dict[bytes, bytes | None] = {b"a%d" % number: value, b"b%d" % number: value}
        engine.batch(changes | {b"count": b"%d" % (number + 1)}).write(sync=False)
    engine.close()


def whole_batches(path: Path) -> int:
    """How many batches are there; all of them must be whole, and none missing before the last."""
    engine = LevelDbDisk().open(path, must_exist=True)
    try:
        count = int(engine.get(b"count") or b"0")
        keys = {key for key, _ in engine.iterate(b"", None)} - {b"count"}
        assert keys == {letter + b"%d" % number for number in range(count) for letter in (b"a", b"b")}
        return count
    finally:
        engine.close()


@pytest.mark.long
@pytest.mark.parametrize(
    "sizes",
    [[10, 0, 30, 5], [32768 // 2 - 60, 300, 20], [9000, 40000, 33000, 50]],
    ids=["one block", "a record that ends at a block's end", "records over several blocks"],
)
def test_a_log_cut_at_any_byte_is_recovered_up_to_its_last_whole_batch(
    tmp_path: Path, sizes: list[int]
) -> None:
    write_batches(tmp_path / "db", sizes)
    data = only_wal(tmp_path / "db").read_bytes()
    near_blocks = {at for block in range(0, len(data), 32768) for at in range(block - 9, block + 9)}
    tail = set(range(max(0, len(data) - 60), len(data) + 1))
    counts = []
    for cut in sorted((near_blocks | tail | set(range(0, len(data), 8009))) & set(range(len(data) + 1))):
        path = copy_of(tmp_path / "db", tmp_path / "cut")
        only_wal(path).write_bytes(data[:cut])
        counts.append(whole_batches(path))
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, len(sizes))


@pytest.mark.long
def test_a_log_store_cut_at_any_byte_of_its_last_records_opens(tmp_path: Path) -> None:
    """It holds a prefix of what was saved, and takes new entries."""
    log = new_log(LevelDbDisk(), tmp_path / "n1")
    for index in range(1, 6):
        log.save([ready(commands(index, index, index + 1), term=index)])
    log.close()
    data = only_wal(tmp_path / "n1" / "log").read_bytes()
    lasts = set()
    for cut in range(len(data) - 260, len(data) + 1):
        path = copy_of(tmp_path / "n1", tmp_path / "cut")
        only_wal(path / "log").write_bytes(data[:cut])
        store = EngineLogStore.open(LevelDbDisk(), path)
        restored = store.load()
        lasts.add(restored.last.index)
        assert restored.hard_state.term == restored.last.term == restored.last.index
        if cut % 16 == 0:
            store.save([ready(commands(9, restored.last.index + 1, restored.last.index + 2), term=9)])
        store.close()
    assert lasts == {2, 3, 4, 5}


@pytest.mark.long
@pytest.mark.parametrize("bits", [0x01, 0x40, 0xFF])
def test_a_changed_byte_anywhere_in_a_log_is_never_silent(tmp_path: Path, bits: int) -> None:
    """Also in a length, where LevelDB alone would take the rest for cut off and drop it."""
    write_batches(tmp_path / "db", [10, 0, 30, 5])
    size = only_wal(tmp_path / "db").stat().st_size
    for at in range(size):
        path = copy_of(tmp_path / "db", tmp_path / "changed")
        flip(only_wal(path), at, bits)
        with pytest.raises(CorruptStorage, match=re.escape(str(path))) as caught:
            whole_batches(path)
        assert "docs/operations.md" in str(caught.value)


def test_a_changed_length_near_the_end_of_a_longer_log_is_found(tmp_path: Path) -> None:
    write_batches(tmp_path / "db", [20000, 20000, 500, 700, 20])
    path = only_wal(tmp_path / "db")
    data = path.read_bytes()
    at = len(data) - len(data) % 32768
    headers = []
    while at < len(data):
        headers.append(at)
        at += 7 + int.from_bytes(data[at + 4 : at + 6], "little")
    assert len(headers) == 4
    for header in headers:
        copy = copy_of(tmp_path / "db", tmp_path / "changed")
        flip(only_wal(copy), header + 5, 0x80)
        with pytest.raises(CorruptStorage):
            whole_batches(copy)


def test_a_missing_log_or_current_is_refused(tmp_path: Path) -> None:
    write_batches(tmp_path / "db", [10])
    path = copy_of(tmp_path / "db", tmp_path / "no-log")
    only_wal(path).unlink()
    with pytest.raises(CorruptStorage, match=r"write-ahead log 000003\.log is missing"):
        LevelDbDisk().open(path)
    for number in range(2):
        path = copy_of(tmp_path / "db", tmp_path / f"no-current-{number}")
        (path / "CURRENT").unlink()
        with pytest.raises(CorruptStorage, match="CURRENT is missing"):
            LevelDbDisk().open(path)
        whole_batches(tmp_path / "db")  # opening it turned the log into a table


@pytest.mark.parametrize("pattern", ["*.ldb", "MANIFEST-*"])
def test_a_missing_table_or_manifest_is_refused(tmp_path: Path, pattern: str) -> None:
    write_batches(tmp_path / "db", [10, 20])
    whole_batches(tmp_path / "db")
    next((tmp_path / "db").glob(pattern)).unlink()
    with pytest.raises(CorruptStorage, match=re.escape(str(tmp_path / "db"))):
        LevelDbDisk().open(tmp_path / "db")


@pytest.mark.long
def test_a_manifest_cut_or_changed_anywhere_never_costs_data_silently(tmp_path: Path) -> None:
    """LevelDB reads it up to the damage; what had been turned into tables since would be deleted."""
    engine = LevelDbDisk().open(tmp_path / "db")
    for number in range(3):
        engine.batch({b"a%d" % number: b"x", b"b%d" % number: b"x", b"count": b"%d" % (number + 1)}).write(
            sync=True
        )
        engine.compact_range(b"a", b"z")
    engine.close()
    (manifest,) = (tmp_path / "db").glob("MANIFEST-*")
    data = manifest.read_bytes()
    refused = 0
    for at in range(len(data)):
        for changed in (data[:at], bytes([*data[:at], data[at] ^ 0x80, *data[at + 1 :]])):
            path = copy_of(tmp_path / "db", tmp_path / "changed")
            (path / manifest.name).write_bytes(changed)
            try:
                assert whole_batches(path) == 3
            except CorruptStorage:
                refused += 1
    assert refused > 1.8 * len(data)


def test_a_creation_that_was_interrupted_is_begun_again(tmp_path: Path) -> None:
    """LevelDB makes MANIFEST and CURRENT before its first log."""
    write_batches(tmp_path / "db", [10])
    path = tmp_path / "db"
    for file in path.iterdir():
        if file.name != "LOCK":
            file.unlink()
    LevelDbDisk().open(path).close()
    shutil.rmtree(path)
    path.mkdir()
    LevelDbDisk().open(path).close()


def test_a_creation_whose_first_manifest_did_not_reach_the_disk_is_begun_again(tmp_path: Path) -> None:
    """LevelDB syncs CURRENT, and not the MANIFEST that it names."""
    LevelDbDisk().open(tmp_path / "db").close()
    manifest = next((tmp_path / "db").glob("MANIFEST-*")).read_bytes()
    for length in range(len(manifest)):
        path = tmp_path / f"cut-{length}"
        path.mkdir()
        (path / "MANIFEST-000001").write_bytes(manifest[:length])
        (path / "CURRENT").write_bytes(b"MANIFEST-000001\n")
        (path / "000003.log").touch()
        with pytest.raises(CorruptStorage):
            LevelDbDisk().open(path, must_exist=True)
        engine = LevelDbDisk().open(path)
        engine.batch({b"key": b"value"}).write(sync=True)
        engine.close()
        engine = LevelDbDisk().open(path)
        assert engine.get(b"key") == b"value"
        engine.close()


def test_a_database_that_was_written_to_is_never_begun_again(tmp_path: Path) -> None:
    write_batches(tmp_path / "db", [10])
    (tmp_path / "db" / "CURRENT").write_bytes(b"MANIFEST-000001\n")
    with pytest.raises(CorruptStorage, match="MANIFEST-000001"):
        LevelDbDisk().open(tmp_path / "db")
    assert only_wal(tmp_path / "db").stat().st_size


def test_a_damaged_table_block_raises_in_reads_and_in_the_middle_of_scans(tmp_path: Path) -> None:
    engine = LevelDbDisk().open(tmp_path / "db")
    keys = [b"%05d" % number for number in range(2000)]
    engine.batch({key: key * 20 for key in keys}).write(sync=True)
    engine.compact_range(b"0", b"9")
    engine.close()
    table = max((tmp_path / "db").glob("*.ldb"), key=lambda file: file.stat().st_size)
    flip(table, table.stat().st_size // 2)
    engine = LevelDbDisk().open(tmp_path / "db")
    for reverse in (False, True):
        seen = 0
        with pytest.raises(CorruptStorage):  # noqa: PT012  # some pairs come first
            for _ in engine.iterate(b"", None, reverse=reverse):
                seen += 1
        assert 0 < seen < len(keys)
    damaged = 0
    for key in keys:
        try:
            assert engine.get(key) == key * 20
        except CorruptStorage:
            damaged += 1
    assert 0 < damaged < 200
    view = engine.view()
    with pytest.raises(CorruptStorage):
        list(view.iterate(b"", None))
    view.close()
    engine.close()


def block_with(content: bytes, rest: int) -> bytes:
    """A block whose one record leaves so many bytes, too few for another one's head."""
    length = 32768 - 7 - rest
    data = content + b"\0" * (length - len(content))
    return b"\0" * 4 + length.to_bytes(2, "little") + b"\1" + data + b"\0" * rest


def test_what_is_left_of_a_block_is_passed_over(tmp_path: Path) -> None:
    """In a MANIFEST, and between batches of a write-ahead log."""
    size = 32768 - 7 - 6 - 4  # of a name that fills the record
    compare = bytes([1, size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14])
    edit = b"\2\5"
    record = b"\0" * 4 + len(edit).to_bytes(2, "little") + b"\1" + edit
    assert manifest.numbers(block_with(compare, 6) + record) == (5, 0)

    def batch(sequence: int, count: int) -> bytes:
        return sequence.to_bytes(8, "little") + count.to_bytes(4, "little")

    second = batch(3, 1)
    (tmp_path / "000003.log").write_bytes(
        block_with(batch(1, 2), 6) + b"\0" * 4 + len(second).to_bytes(2, "little") + b"\1" + second
    )
    third = batch(4, 1)
    (tmp_path / "000004.log").write_bytes(b"\0" * 4 + len(third).to_bytes(2, "little") + b"\1" + third)
    assert wal.after_gap(tmp_path, 3, 0) == []
    (tmp_path / "000003.log").write_bytes(block_with(batch(1, 2), 6))
    assert wal.after_gap(tmp_path, 3, 0) == ["000004.log"]
