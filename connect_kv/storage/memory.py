"""Engine in memory, with the ways a disk fails: for tests and the simulator.

It keeps what LevelDB keeps on disk: write-ahead log files that are synced one by one. A crash cuts
off some of what a file had not synced, each file for itself, so that an older file may lose its end
while a newer one keeps everything.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import merge
from itertools import islice
from pathlib import Path
from threading import RLock

from sortedcontainers import SortedDict

from connect_kv.errors import CorruptStorage, StorageError, StorageInUse
from connect_kv.storage.views import OpenViews

_PAGE = 64

Changes = Mapping[bytes, bytes | None]


@dataclass(slots=True)
class _WalFile:
    """One write-ahead log file: its batches, and how many of them are on disk."""

    batches: list[Changes] = field(default_factory=list)
    synced: int = 0
    size: int = 0
    cut: bool = False
    """A power failure took its end."""


@dataclass(slots=True)
class _Directory:
    """What is on the disk of one database."""

    tables: dict[bytes, bytes] = field(default_factory=dict)
    table_bytes: int = 0
    """Of their keys and values."""
    wal: list[_WalFile] = field(default_factory=lambda: [_WalFile()])
    failed: str | None = None
    owner: MemoryEngine | None = None

    def flush(self, keep: int) -> None:
        """Turn the oldest WAL files into tables, which are always on disk, until `keep` are left."""
        while len(self.wal) > keep:
            for batch in self.wal.pop(0).batches:
                for key, value in batch.items():
                    self._put(key, value)

    def _put(self, key: bytes, value: bytes | None) -> None:
        before = self.tables.pop(key, None)
        if before is not None:
            self.table_bytes -= len(key) + len(before)
        if value is not None:
            self.tables[key] = value
            self.table_bytes += len(key) + len(value)

    def lose(self, rng: random.Random) -> None:
        """Forget a part of what each WAL file had not synced: often all, sometimes nothing."""
        for file in self.wal:
            loose = len(file.batches) - file.synced
            lost = loose if rng.random() < 0.5 else rng.randint(0, loose)
            del file.batches[len(file.batches) - lost :]
            file.synced = len(file.batches)
            file.cut = lost > 0

    def drop_after_gap(self) -> None:
        """Give up the files after one that lost its end."""
        for position, file in enumerate(self.wal):
            if file.cut:
                del self.wal[position + 1 :]
                return


class MemoryDisk:
    """Directories in memory, and what can go wrong with them.

    `rng` decides how much of the unsynced data a crash takes. `wal_bytes`: a database starts a new
    WAL file after so many bytes; None: when its write buffer is full.
    """

    def __init__(self, rng: random.Random, *, wal_bytes: int | None = None) -> None:
        self._rng = rng
        self._wal_bytes = wal_bytes
        self._directories: dict[Path, _Directory] = {}
        self.full = False
        """Every write fails for lack of space, until it is set back (and the process restarted)."""
        self.total_bytes = 1 << 40
        """Size of the pretended file system."""
        self.before_write: Callable[[Path], None] | None = None
        """Called with the database's path before each write and sync, and before it is made or deleted, on
        its thread: be slow, or raise."""
        self.before_read: Callable[[Path], None] | None = None
        """Called with the database's path before each read; raises `damaged` for a block that rotted."""
        self.after_read: Callable[[Path, bytes, bytes], bytes] | None = None
        """Given path, key and value: what is read instead of the value, by a bit that flipped unnoticed."""

    def damaged(self, path: Path) -> CorruptStorage:
        """What a read of a block raises whose checksum does not match."""
        return CorruptStorage(str(path), "block checksum mismatch; see docs/operations.md")

    def open(
        self, path: Path, *, write_buffer: int = 4 << 20, must_exist: bool = False, in_order: bool = False
    ) -> MemoryEngine:
        """Open or create the database in `path`; see `OpenEngine`."""
        directory = self._directories.get(path)
        if directory is None:
            if must_exist:
                raise CorruptStorage(str(path), "is missing; see docs/operations.md")
            self.about_to_write(path)
            directory = self._directories[path] = _Directory()
        if directory.owner is not None:
            raise StorageInUse(str(path), "another process holds it; stop that one first")
        if directory.failed is not None:
            raise StorageError(str(path), f"a write failed earlier in this process: {directory.failed}")
        if in_order:
            directory.drop_after_gap()
        directory.flush(0)
        directory.wal = [_WalFile()]
        return MemoryEngine(self, path, directory, self._wal_bytes or write_buffer)

    def list(self, path: Path) -> list[str]:
        """Names in a directory, sorted."""
        depth = len(path.parts)
        return sorted({at.parts[depth] for at in self._directories if path in at.parents})

    def remove(self, path: Path) -> None:
        """Delete a database, or a directory of them, if there."""
        for at in [at for at in self._directories if at == path or path in at.parents]:
            if self._directories[at].owner is not None:
                raise StorageInUse(str(at), "is open, and cannot be deleted")
            self.about_to_write(at)
            del self._directories[at]

    def about_to_write(self, path: Path) -> None:
        """Something in that directory is about to change."""
        if self.before_write is not None:
            self.before_write(path)

    def failing(self) -> bool:
        """Whether a write has failed in any database since its process began."""
        return any(directory.failed is not None for directory in self._directories.values())

    def is_open(self, path: Path) -> bool:
        """Whether a process has that database open."""
        directory = self._directories.get(path)
        return directory is not None and directory.owner is not None

    def free_bytes(self, path: Path) -> tuple[int, int]:
        """(free, total) bytes of the pretended file system."""
        used = sum(_size(directory) for directory in self._directories.values())
        return (0 if self.full else max(0, self.total_bytes - used)), self.total_bytes

    def crash(self, under: Path | None = None) -> None:
        """Power fails for the databases below `under` (None: all): unsynced data may be lost.

        Engines open on them are dead; open them again as a new process would.
        """
        for directory in self._die(under):
            directory.lose(self._rng)

    def kill(self, under: Path | None = None) -> None:
        """The process dies and the machine does not: what was written stays."""
        self._die(under)

    def fail_next_write(self, path: Path, reason: str = "Input/output error") -> None:
        """The next write or sync of that open database fails, and so do all after it.

        Whether the failed batch survives a crash is for the crash to decide.
        """
        owner = self._directories[path].owner
        if owner is None:
            raise ValueError(f"{path} is not open")
        owner.fail_next = reason

    def _die(self, under: Path | None) -> Sequence[_Directory]:
        dead = [d for at, d in self._directories.items() if under is None or under in (at, *at.parents)]
        for directory in dead:
            if directory.owner is not None:
                directory.owner.die()
            directory.failed = None
        return dead


class MemoryEngine:
    """One open database in memory. Made by `MemoryDisk.open`."""

    def __init__(self, disk: MemoryDisk, path: Path, directory: _Directory, wal_bytes: int) -> None:
        self._disk = disk
        self._path = path
        self._directory = directory
        self._wal_bytes = wal_bytes
        self._lock = RLock()
        self._data: SortedDict[bytes, bytes] = SortedDict(directory.tables)
        self._views: set[MemoryView] = set()
        self.views = OpenViews(wal_bytes)
        self._ended: str | None = None
        self.fail_next: str | None = None
        directory.owner = self

    @property
    def path(self) -> Path:
        """The directory that the database would have on a disk."""
        return self._path

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""
        self.reads()
        value = self._data.get(key)
        return value if value is None else self.as_read(key, value)

    def as_read(self, key: bytes, value: bytes) -> bytes:
        """What comes of reading that value."""
        flip = self._disk.after_read
        return value if flip is None else flip(self._path, key, value)

    def copy(self, target: Path) -> bool:
        """False: there are no files."""
        return False

    def reads(self) -> None:
        """Somebody is about to read a block of it."""
        self._check_open()
        if self._disk.before_read is not None:
            self._disk.before_read(self._path)

    def iterate(
        self, start: bytes, stop: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Pairs of ``[start, stop)`` as of the first step, in key order or backwards."""
        view = self.view()
        try:
            yield from view.iterate(start, stop, reverse=reverse)
        finally:
            view.close()

    def batch(self, changes: Changes) -> MemoryBatch:
        """Prepare `changes`."""
        self._check_open()
        return MemoryBatch(self, changes)

    def view(self) -> MemoryView:
        """The state now."""
        with self._lock:
            self._check_open()
            view = MemoryView(self, self._data, self._lock, self.views.opened())
            self._views.add(view)
            return view

    def sync(self) -> None:
        """Make every write that returned before this call durable."""
        self._run_hook()
        with self._lock:
            self._before_write(None)
            for file in self._directory.wal:
                file.synced = len(file.batches)

    def compact_range(self, start: bytes, stop: bytes) -> None:
        """Nothing is left over here; but LevelDB would write tables now, so this does."""
        with self._lock:
            self._check_open()
            self._directory.flush(0)
            self._directory.wal.append(_WalFile())

    def lowest_tables(self, start: bytes, stop: bytes) -> tuple[bytes, bytes] | None:
        """As if one table held everything."""
        self._check_open()
        return start, stop

    def approximate_size(self, start: bytes, stop: bytes) -> int:
        """Bytes of keys and values in that range."""
        with self._lock:
            self._check_open()
            return sum(
                len(key) + len(self._data[key]) for key in self._data.irange(start, stop, (True, False))
            )

    def disk_size(self) -> int:
        """Bytes of keys and values on the pretended disk, with what was overwritten lately."""
        with self._lock:
            return _size(self._directory)

    def close(self) -> None:
        """Close it; what was written is still there. Safe to repeat."""
        with self._lock:
            if self._ended is None:
                self._ended = "is closed"
                self._directory.owner = None

    def write(self, changes: Changes, sync: bool) -> None:
        """Apply a batch (for `MemoryBatch`)."""
        self.views.wrote(_bytes_of(changes))
        self._run_hook()
        with self._lock:
            self._before_write(changes)
            self._append(changes)
            if sync:
                file = self._directory.wal[-1]
                file.synced = len(file.batches)
            for view in self._views:
                view.keep(changes)
            _update(self._data, changes)

    def die(self) -> None:
        """The process that had it open is gone (for `MemoryDisk`)."""
        with self._lock:
            self._ended = "its process has died"
            self._directory.owner = None

    def forget(self, view: MemoryView) -> None:
        """A view was closed (for `MemoryView`)."""
        with self._lock:
            self._views.discard(view)
        self.views.closed(view.number)

    def _append(self, changes: Changes) -> None:
        files = self._directory.wal
        if files[-1].size >= self._wal_bytes:
            files.append(_WalFile())
            self._directory.flush(2)
        files[-1].batches.append(changes)
        files[-1].size += _bytes_of(changes)

    def _run_hook(self) -> None:
        """Outside the lock: a slow disk holds up writers, not readers."""
        if self._disk.before_write is not None:
            try:
                self._disk.about_to_write(self._path)
            except BaseException as error:
                self._directory.failed = error.reason if isinstance(error, StorageError) else repr(error)
                raise

    def _before_write(self, changes: Changes | None) -> None:
        self._check_open()
        if (failed := self._directory.failed) is not None:
            raise StorageError(str(self._path), f"a write failed earlier: {failed}")
        reason, self.fail_next = self.fail_next, None
        if self._disk.full:
            reason = "No space left on device"
        if reason is not None:
            self._directory.failed = reason
            if changes is not None:
                self._append(changes)
            raise StorageError(str(self._path), reason)

    def _check_open(self) -> None:
        if self._ended is not None:
            raise StorageError(str(self._path), self._ended)


class MemoryBatch:
    """Changes that wait to be written, once."""

    def __init__(self, engine: MemoryEngine, changes: Changes) -> None:
        self._engine = engine
        self._changes: dict[bytes, bytes | None] | None = {}
        self._size = 0
        self.add(changes)

    def add(self, changes: Changes) -> None:
        """Take in more changes, to be written with the others."""
        if self._changes is None:
            raise ValueError("this batch was written before")
        self._changes |= changes
        self._size += _bytes_of(changes)

    @property
    def size(self) -> int:
        """Bytes of keys and values."""
        return self._size

    def write(self, *, sync: bool) -> None:
        """Apply it; a second time is an error."""
        changes, self._changes = self._changes, None
        if changes is None:
            raise ValueError("this batch was written before")
        self._engine.write(changes, sync)


class MemoryView:
    """A frozen state: the living data, and aside what has been overwritten since."""

    def __init__(
        self, engine: MemoryEngine, data: SortedDict[bytes, bytes], lock: RLock, number: int
    ) -> None:
        self.number = number
        self._engine = engine
        self._data = data
        self._lock = lock
        self._kept: SortedDict[bytes, bytes | None] = SortedDict()
        self._closed = False

    def get(self, key: bytes) -> bytes | None:
        """The value of `key` then, or None."""
        with self._lock:
            self._check_open()
            self._engine.reads()
            value = self._value(key)
            return value if value is None else self._engine.as_read(key, value)

    def gets(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """`get` of each of them."""
        return [self.get(key) for key in keys]

    def iterate(
        self, start: bytes, stop: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Pairs of ``[start, stop)`` in key order, or backwards."""
        low, high, inclusive = start, stop, (True, False)
        while True:
            page = self._page(low, high, inclusive, reverse)
            yield from page
            if len(page) < _PAGE:
                return
            if reverse:
                high = page[-1][0]
            else:
                low, inclusive = page[-1][0], (False, False)

    def close(self) -> None:
        """Give it back. Safe to repeat."""
        self._closed = True
        self._engine.forget(self)

    def keep(self, changes: Changes) -> None:
        """Put aside what `changes` are about to overwrite (for `MemoryEngine`)."""
        for key in changes:
            if key not in self._kept:
                self._kept[key] = self._data.get(key)

    def _value(self, key: bytes) -> bytes | None:
        return self._kept[key] if key in self._kept else self._data.get(key)

    def _page(
        self, low: bytes, high: bytes | None, inclusive: tuple[bool, bool], reverse: bool
    ) -> list[tuple[bytes, bytes]]:
        with self._lock:
            self._check_open()
            self._engine.reads()
            living = (k for k in self._data.irange(low, high, inclusive, reverse) if k not in self._kept)
            kept = (k for k in self._kept.irange(low, high, inclusive, reverse) if self._kept[k] is not None)
            keys = islice(merge(living, kept, reverse=reverse), _PAGE)
            read = self._engine.as_read
            return [(key, read(key, value)) for key in keys if (value := self._value(key)) is not None]

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError(str(self._engine.path), "this view is closed")


def _update(data: SortedDict[bytes, bytes], changes: Changes) -> None:
    for key, value in changes.items():
        if value is None:
            data.pop(key, None)
        else:
            data[key] = value


def _bytes_of(changes: Changes) -> int:
    return sum(len(key) + len(value or b"") for key, value in changes.items())


def _size(directory: _Directory) -> int:
    return directory.table_bytes + sum(file.size for file in directory.wal)
