"""What an etcd can be taken from: a snapshot, or the data directory of a member that was stopped."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from connect_kv.errors import CorruptStorage, RefusedToStart
from connect_kv.etcd_files import records
from connect_kv.etcd_files.log import log_end
from connect_kv.etcd_files.reader import BoltFile, Progress, no_progress

_CATCH_UP = "start etcd on it once and stop it, or take a snapshot of the running cluster"


@contextmanager
def opened(
    source: Path, *, wal_dir: Path | None = None, check_digest: bool = True, progress: Progress = no_progress
) -> Iterator[tuple[BoltFile, bytes]]:
    """The database in a snapshot file or a data directory, once it is sure that it is whole; its digest.

    A directory's database is locked against an etcd meanwhile. `wal_dir`: where the directory's log is, if
    elsewhere. Raises CorruptStorage, RefusedToStart, OSError.
    """
    if source.is_dir():
        with BoltFile(_database_of(source)) as file:
            _lock(file)
            # Read again under the lock: a running etcd may have written between.
            with BoltFile(file.path) as locked:
                _check_log(locked, source, wal_dir or source / "member" / "wal")
                yield locked, locked.digest(progress)
    else:
        with BoltFile(source) as file:
            yield file, file.check_digest(progress) if check_digest else file.digest(progress)


def _database_of(directory: Path) -> Path:
    for path in (directory / "member" / "snap" / "db", directory / "snap" / "db"):
        if path.is_file():
            return path
    raise RefusedToStart(f"{directory}: is no data directory of etcd: there is no member/snap/db in it")


def _lock(file: BoltFile) -> None:
    """Etcd holds flock, not the lock of fcntl that `lockf` would ask for."""
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RefusedToStart(
            f"{file.path}: an etcd is running on it: stop it, or take a snapshot from it (--endpoints)"
        ) from None


def _check_log(file: BoltFile, directory: Path, wal_dir: Path) -> None:
    """Etcd writes its database some time after it has answered: what is missing there is only in the log."""
    found = dict(file.items(records.META)).get(records.CONSISTENT_INDEX)
    try:
        applied = records.read_number(found) if found is not None else 0
    except ValueError as error:
        raise CorruptStorage(str(file.path), f"its index: {error}") from error
    for path in file.path.parent.glob("*.snap.db"):
        if int(path.name.split(".")[0], 16) > applied:
            raise RefusedToStart(f"{directory}: a snapshot from its leader waits in {path.name}: {_CATCH_UP}")
    try:
        end = log_end(wal_dir, applied)
    except CorruptStorage as error:
        raise RefusedToStart(f"{error}: name its directory with --wal-dir, or {_CATCH_UP}") from error
    if end.needed:
        raise RefusedToStart(
            f"{directory}: its log goes to {end.last} and its database to {applied}: {_CATCH_UP}"
        )
