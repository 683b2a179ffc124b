"""Engine over LevelDB (plyvel), and the rules that keep it honest about errors.

LevelDB goes on after errors that matter here: a failed write is forgotten, an iterator ends early
at a damaged block, half of a batch is written when its body raises, a close under a running call
crashes the process. This module is the one place that knows how each of these is prevented.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from connect_kv.errors import CorruptStorage, StorageError, StorageInUse
from connect_kv.storage import copies, manifest, wal
from connect_kv.storage.leveldb_binding import plyvel
from connect_kv.storage.names import Names
from connect_kv.storage.views import OpenViews

logger = logging.getLogger(__name__)

SEE = "see docs/operations.md"

_open_paths: set[Path] = set()
"""Open in this process. LevelDB's lock is the process's: a second look at its file would release it."""
_open_paths_lock = threading.Lock()


class LevelDbDisk:
    """Real directories. Remembers which databases failed: those are not opened again by this process."""

    def __init__(self) -> None:
        self._failed: dict[Path, str] = {}

    def open(
        self, path: Path, *, write_buffer: int = 4 << 20, must_exist: bool = False, in_order: bool = False
    ) -> LevelDbEngine:
        """Open or create the database in `path`; see `OpenEngine`.

        A write-ahead log that was cut short, as by a power failure, is recovered silently up to its
        last whole batch. Any other damage raises CorruptStorage.
        """
        path = path.resolve()
        if reason := self._failed.get(path):
            raise StorageError(str(path), f"a write failed earlier in this process: {reason}; {SEE}")
        return LevelDbEngine(
            path, self._failed, write_buffer=write_buffer, must_exist=must_exist, in_order=in_order
        )

    def list(self, path: Path) -> list[str]:
        """Names in a directory, sorted; empty if it does not exist."""
        try:
            return sorted(os.listdir(path))
        except FileNotFoundError:
            return []

    def remove(self, path: Path) -> None:
        """Delete a database and its directory, if there."""
        try:
            shutil.rmtree(path)
            sync_directory(path.parent)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(str(path), f"cannot be deleted: {error.strerror}; {SEE}") from error

    def free_bytes(self, path: Path) -> tuple[int, int]:
        """(free, total) bytes of the file system that holds `path`, as an ordinary user may use them."""
        usage = os.statvfs(path)
        return usage.f_bavail * usage.f_frsize, usage.f_blocks * usage.f_frsize


class LevelDbEngine:
    """One open LevelDB database. Made by `LevelDbDisk.open`."""

    def __init__(
        self, path: Path, failed: dict[Path, str], *, write_buffer: int, must_exist: bool, in_order: bool
    ) -> None:
        self._path = path
        self._failed = failed
        self._calls = _Calls()
        self.views = OpenViews(write_buffer)
        self._db = _open(path, write_buffer, must_exist, in_order)
        try:
            self._wal_files = wal.files(path)
            self._wal_names = Names(path)
            sync_directory(path)
            sync_directory(path.parent)
        except OSError as error:
            self.close()
            raise StorageError(str(path), f"cannot be synced: {error.strerror}; {SEE}") from error

    @property
    def path(self) -> Path:
        """The directory of the database."""
        return self._path

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""
        return _get(self._path, self._db, key)

    def iterate(
        self, start: bytes, stop: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Pairs of ``[start, stop)`` as of the first step, in key order or backwards."""
        return _iterate(self._path, self._db, start, stop, reverse)

    def batch(self, changes: Mapping[bytes, bytes | None]) -> LevelDbBatch:
        """Prepare `changes`; all per-key work is done on return."""
        return LevelDbBatch(self, changes)

    def view(self) -> LevelDbView:
        """The state now."""
        number = self.views.opened()  # before it is: who compares must not take it for younger than it is
        try:
            with _errors(self._path):
                return LevelDbView(self._path, self._db.snapshot(), self.views, number)
        except BaseException:
            self.views.closed(number)
            raise

    def copy(self, target: Path) -> bool:
        """Make a database in `target` with what is in this one now: see `Engine`. True: it is there."""
        with self._calls.running(self._path):
            copies.copy_open(self._path, target)
        return True

    def sync(self) -> None:
        """Make every write that returned before this call durable.

        LevelDB leaves an old write-ahead log unsynced when it starts the next, so each is synced
        here. One that is gone by then was replaced by a table, which LevelDB syncs itself.
        """
        with self._writing():
            for name in wal.files(self._path):
                with contextlib.suppress(FileNotFoundError):
                    _sync_file(self._path / name)
            sync_directory(self._path)

    def compact_range(self, start: bytes, stop: bytes) -> None:
        """Give back the space of what was deleted in ``[start, stop)``. May run beside writes."""
        with self._calls.running(self._path), _errors(self._path):
            self._db.compact_range(start=start, stop=stop)

    def lowest_tables(self, start: bytes, stop: bytes) -> tuple[bytes, bytes] | None:
        """The first and last key within tables of the lowest level there; None without tables."""
        with _errors(self._path):
            return manifest.lowest_tables(self._path, start, stop)

    def approximate_size(self, start: bytes, stop: bytes) -> int:
        """Bytes on disk of that range, roughly; what was written lately is not in it."""
        with _errors(self._path):
            return int(self._db.approximate_size(start, stop))

    def disk_size(self) -> int:
        """Bytes of all its files."""
        size = 0
        with os.scandir(self._path) as files:
            for file in files:
                with contextlib.suppress(FileNotFoundError):
                    size += file.stat().st_size
        return size

    def close(self) -> None:
        """Close it, after blocking calls on other threads have ended. Safe to repeat."""
        if self._calls.close():
            self._db.close()
            with _open_paths_lock:
                _open_paths.discard(self._path)

    def write(self, batch: Any, sync: bool) -> None:
        """Write a prepared plyvel batch (for `LevelDbBatch`)."""
        with self._writing():
            if sync:
                synced = self._db.write_batch(transaction=True, sync=True)
                synced.append(batch)
                synced.write()
                self._sync_new_wal()
            else:
                batch.write()

    def new_plyvel_batch(self) -> Any:
        """An empty, unsynced plyvel batch (for `LevelDbBatch`)."""
        with _errors(self._path):
            return self._db.write_batch(transaction=True)

    def _sync_new_wal(self) -> None:
        """A synced write in a new file is not on disk before the file's name is."""
        if self._wal_names.may_have_changed() and (names := wal.files(self._path)) != self._wal_files:
            sync_directory(self._path)
            self._wal_files = names

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Whatever goes wrong within is final: LevelDB would take further writes and lose them."""
        with self._calls.running(self._path):
            if reason := self._failed.get(self._path):
                raise StorageError(str(self._path), f"a write failed earlier: {reason}; {SEE}")
            try:
                with _errors(self._path):
                    yield
            except BaseException as error:
                self._failed[self._path] = error.reason if isinstance(error, StorageError) else repr(error)
                raise


class LevelDbBatch:
    """Changes that wait to be written, once."""

    def __init__(self, engine: LevelDbEngine, changes: Mapping[bytes, bytes | None]) -> None:
        self._engine = engine
        self._batch: Any = engine.new_plyvel_batch()
        self._size = 0
        self.add(changes)

    def add(self, changes: Mapping[bytes, bytes | None]) -> None:
        """More of them; all per-key work is done on return.

        In key order: the write buffer is a skip list, and neighbours find the way to their place in
        the processor's caches (a quarter off what a write costs).
        """
        put, delete, size = self._batch.put, self._batch.delete, self._size
        for key in sorted(changes):
            value = changes[key]
            size += len(key)
            if value is None:
                delete(key)
            else:
                put(key, value)
                size += len(value)
        self._size = size

    @property
    def size(self) -> int:
        """Bytes of keys and values."""
        return self._size

    def write(self, *, sync: bool) -> None:
        """Apply it; a second time is an error."""
        batch, self._batch = self._batch, None
        if batch is None:
            raise ValueError("this batch was written before")
        self._engine.views.wrote(self._size)
        self._engine.write(batch, sync)


class LevelDbView:
    """A frozen state of one database."""

    def __init__(self, path: Path, snapshot: Any, views: OpenViews, number: int) -> None:
        self._path = path
        self._snapshot = snapshot
        self._views = views
        self._number = number

    def get(self, key: bytes) -> bytes | None:
        """The value of `key` then, or None."""
        return _get(self._path, self._snapshot, key)

    def gets(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """`get` of each of them."""
        get = self._snapshot.get
        try:
            return [get(key, verify_checksums=True) for key in keys]
        except (plyvel.Error, RuntimeError) as error:
            raise translate(self._path, error) from error

    def iterate(
        self, start: bytes, stop: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Pairs of ``[start, stop)`` in key order, or backwards."""
        return _iterate(self._path, self._snapshot, start, stop, reverse)

    def close(self) -> None:
        """Give it back. Safe to repeat."""
        self._snapshot.close()
        self._views.closed(self._number)


class _Calls:
    """Counts blocking calls, so that a close waits for them instead of crashing the process."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._running = 0
        self._closed = False

    @contextlib.contextmanager
    def running(self, path: Path) -> Iterator[None]:
        with self._condition:
            if self._closed:
                raise StorageError(str(path), "is closed")
            self._running += 1
        try:
            yield
        finally:
            with self._condition:
                self._running -= 1
                self._condition.notify_all()

    def close(self) -> bool:
        """Wait for all of them; True for the one caller that has to close."""
        with self._condition:
            first, self._closed = not self._closed, True
            self._condition.wait_for(lambda: self._running == 0)
            return first


def make_directory(path: Path) -> None:
    """Make it and what is missing above it, for its owner alone; every name is on disk on return. Raises
    OSError.
    """
    missing = [one for one in (path, *path.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)
        sync_directory(one.parent)
    path.mkdir(exist_ok=True)  # says so where it is no directory


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Keep every other process from opening the database in `path`. Raises StorageInUse.

    Not for a database that is open in this process: refused, for it would release that one's lock.
    """
    with _open_paths_lock:
        if path in _open_paths:
            raise StorageInUse(str(path), "is open already in this process")
    try:
        descriptor = os.open(path / "LOCK", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StorageError(str(path), f"cannot be locked: {error.strerror}") from error
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise _in_use(path) from error
    finally:
        os.close(descriptor)


def _open(path: Path, write_buffer: int, must_exist: bool, in_order: bool) -> Any:
    if not (path / "CURRENT").exists():
        if must_exist:
            raise CorruptStorage(str(path), f"is missing, or its file CURRENT is; {SEE}")
        try:
            make_directory(path)
        except OSError as error:
            raise StorageError(str(path), f"cannot be created: {error.strerror}") from error
        _refuse_orphans(path)
    with hold_lock(path), _errors(path):
        if not must_exist and manifest.creation_was_interrupted(path):
            _clear(path)
        if (path / "CURRENT").exists():
            manifest.check(path)
        wal.check(path)
        if in_order:
            _drop_after_gap(path)
    with _open_paths_lock:
        with _errors(path):
            database = plyvel.DB(
                str(path),
                create_if_missing=not must_exist,
                paranoid_checks=True,
                write_buffer_size=write_buffer,
                lru_cache_size=16 << 20,
                bloom_filter_bits=10,
                # Snappy took a third of a node's processor time; what is stored is mostly small values.
                compression=None,
            )
        _open_paths.add(path)
    return database


def _drop_after_gap(path: Path) -> None:
    """The newest file first: a second power failure in between leaves the gap to be seen."""
    names = wal.after_gap(path, *manifest.read(path)) if (path / "CURRENT").exists() else []
    for name in reversed(names):
        logger.warning(
            "what was written after a gap is given up", extra={"database": str(path), "file": name}
        )
        (path / name).unlink()
        sync_directory(path)


def _clear(path: Path) -> None:
    for name in os.listdir(path):
        if name != "LOCK":
            (path / name).unlink()


def _refuse_orphans(path: Path) -> None:
    """What is written without CURRENT is what is left of a database: a new one would take its place.

    A creation that is interrupted leaves neither: the log's name is on disk before anything is in it.
    """
    if manifest.holds_data(path):
        raise CorruptStorage(str(path), f"its file CURRENT is missing; {SEE}")


def _get(path: Path, source: Any, key: bytes) -> bytes | None:
    try:
        value: bytes | None = source.get(key, verify_checksums=True)
    except (plyvel.Error, RuntimeError) as error:
        raise translate(path, error) from error
    return value


def _iterate(
    path: Path, source: Any, start: bytes, stop: bytes | None, reverse: bool
) -> Iterator[tuple[bytes, bytes]]:
    """A raw iterator, for plyvel's other kind ends without a word at a damaged block."""
    with _errors(path):
        iterator = source.raw_iterator(verify_checksums=True)
    try:
        with _errors(path):
            _seek(iterator, start, stop, reverse)
        step = iterator.prev if reverse else iterator.next
        valid, item = iterator.valid, iterator.item
        while valid():
            pair = item()
            if (pair[0] < start) if reverse else (stop is not None and pair[0] >= stop):
                return
            yield pair
            try:
                step()
            except (plyvel.Error, RuntimeError) as error:
                raise translate(path, error) from error
    finally:
        iterator.close()


def _seek(iterator: Any, start: bytes, stop: bytes | None, reverse: bool) -> None:
    if not reverse:
        iterator.seek(start)
    elif stop is None:
        iterator.seek_to_last()
    else:
        iterator.seek(stop)
        if iterator.valid():
            iterator.prev()
        else:
            iterator.seek_to_last()


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (plyvel.Error, RuntimeError, OSError) as error:
        raise translate(path, error) from error


def translate(path: Path, error: Exception) -> StorageError:
    """Our error for one of plyvel's or the system's."""
    text = error.args[0] if error.args else ""
    reason = text.decode(errors="replace") if isinstance(text, bytes) else str(error)
    if isinstance(error, plyvel.CorruptionError) or (
        isinstance(error, plyvel.Error) and reason.startswith("NotFound: ")
    ):
        return CorruptStorage(str(path), f"{reason}; {SEE}")
    if isinstance(error, RuntimeError):  # plyvel's word for use after close
        return StorageError(str(path), "is closed")
    if "/LOCK: " in reason and reason.startswith("IO error: lock"):
        return _in_use(path)
    return StorageError(str(path), f"{reason}; {SEE}")


def _in_use(path: Path) -> StorageInUse:
    return StorageInUse(str(path), "another process holds it; stop that one first")
