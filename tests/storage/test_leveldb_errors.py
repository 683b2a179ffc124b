"""After the first failed write nothing more is written; two processes never share a database."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from connect_kv.errors import StorageError, StorageInUse
from connect_kv.storage import leveldb
from connect_kv.storage.leveldb import LevelDbDisk, hold_lock, translate
from connect_kv.storage.leveldb_binding import plyvel


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """Writes beyond that offset of any file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("sync", [False, True])
def test_the_first_failed_write_is_final_for_the_process(tmp_path: Path, sync: bool) -> None:
    disk = LevelDbDisk()
    engine = disk.open(tmp_path / "db")
    engine.batch({b"kept": b"1"}).write(sync=True)
    with files_limited_to(64 << 10), pytest.raises(StorageError, match="File too large") as caught:
        engine.batch({b"lost": b"x" * (128 << 10)}).write(sync=sync)
    assert caught.value.database == str(tmp_path / "db")
    with pytest.raises(StorageError, match="a write failed earlier"):
        engine.batch({b"later": b"1"}).write(sync=False)
    with pytest.raises(StorageError, match="a write failed earlier"):
        engine.sync()
    assert engine.get(b"kept") == b"1"
    engine.close()
    with pytest.raises(StorageError, match="failed earlier in this process"):
        disk.open(tmp_path / "db")
    engine = LevelDbDisk().open(tmp_path / "db")  # as the next process does
    assert (engine.get(b"kept"), engine.get(b"lost")) == (b"1", None)
    engine.close()


def test_a_failed_sync_is_final_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    engine = LevelDbDisk().open(tmp_path / "db")
    engine.batch({b"a": b"1"}).write(sync=False)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(StorageError, match="Input/output error"):
            engine.sync()
    with pytest.raises(StorageError, match="a write failed earlier"):
        engine.batch({b"a": b"2"}).write(sync=True)
    engine.close()


def test_a_batch_that_cannot_be_built_leaves_nothing_behind(tmp_path: Path) -> None:
    engine = LevelDbDisk().open(tmp_path / "db")
    changes: dict[bytes, bytes | None] = {b"a": b"1", b"b": "text"}  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        engine.batch(changes)
    assert list(engine.iterate(b"", None)) == []
    engine.close()


def test_another_process_is_told_who_is_in_the_way(tmp_path: Path) -> None:
    engine = LevelDbDisk().open(tmp_path / "db")
    program = (
        "import sys; from pathlib import Path; from connect_kv.storage.leveldb import LevelDbDisk\n"
        "try: LevelDbDisk().open(Path(sys.argv[1]))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "db")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    assert shown == f"StorageInUse {tmp_path / 'db'}: another process holds it; stop that one first\n"
    with pytest.raises(StorageInUse), hold_lock(tmp_path / "db"):
        pass
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout == shown
    engine.close()


def test_a_close_waits_for_calls_on_other_threads(tmp_path: Path) -> None:
    """LevelDB would crash the process."""
    engine = LevelDbDisk().open(tmp_path / "db", write_buffer=64 << 10)
    outcomes: list[BaseException] = []
    started = threading.Barrier(4)

    def busy(number: int) -> None:
        started.wait()
        try:
            for _ in range(1000):
                engine.batch({b"%d" % number: b"x" * 10_000}).write(sync=number == 1)
                if number == 2:
                    engine.compact_range(b"", b"\xff")
        except BaseException as error:
            outcomes.append(error)

    threads = [threading.Thread(target=busy, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    started.wait()
    engine.batch({b"z": b"1"}).write(sync=True)
    engine.close()
    for thread in threads:
        thread.join(30)
    assert all(isinstance(error, StorageError) and "closed" in str(error) for error in outcomes)


def test_the_name_of_a_new_log_file_is_synced_with_its_first_synced_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = LevelDbDisk().open(tmp_path / "db", write_buffer=64 << 10)
    synced: list[Path] = []
    monkeypatch.setattr(leveldb, "sync_directory", synced.append)
    engine.batch({b"a": b"1"}).write(sync=True)
    assert synced == []
    engine.batch({b"b": b"x" * (100 << 10)}).write(sync=False)
    engine.batch({b"c": b"x" * (100 << 10)}).write(sync=False)
    engine.batch({b"d": b"1"}).write(sync=True)
    assert synced == [tmp_path / "db"]
    engine.close()


def test_a_path_that_cannot_be_a_directory_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be created"):
        LevelDbDisk().open(tmp_path / "file" / "db")


def test_every_directory_that_is_made_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is durable once the directory that holds it is synced, up to the one that was there before."""
    synced: set[Path] = set()

    def noting(descriptor: int) -> None:
        synced.add(Path(os.readlink(f"/proc/self/fd/{descriptor}")))

    monkeypatch.setattr(os, "fsync", noting)
    LevelDbDisk().open(tmp_path / "data" / "state" / "1").close()
    assert synced >= {tmp_path, tmp_path / "data", tmp_path / "data" / "state", tmp_path / "data/state/1"}


def test_a_lock_that_the_binding_finds_taken_is_named_as_such() -> None:
    """Ours is taken first, so it is another program's."""
    said = plyvel.IOError(b"IO error: lock /data/log/LOCK: Resource temporarily unavailable")
    assert isinstance(translate(Path("/data/log"), said), StorageInUse)
    other = plyvel.IOError(b"IO error: /data/log/000003.log: No space left on device")
    assert not isinstance(translate(Path("/data/log"), other), StorageInUse)


def test_a_directory_that_is_made_is_its_owners_alone(tmp_path: Path) -> None:
    """With what is missing above it, and what is made within: passwords' hashes are in it, and all data."""
    before = os.umask(0o022)
    try:
        LevelDbDisk().open(tmp_path / "above" / "n1" / "log").close()
    finally:
        os.umask(before)
    for part in ("above", "above/n1", "above/n1/log"):
        assert (tmp_path / part).stat().st_mode & 0o777 == 0o700
