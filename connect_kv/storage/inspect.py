"""A look at a stopped node's data directory that changes nothing in it.

LevelDB cannot open a database without writing to it, so what is opened is a temporary copy: links to
the tables, which are never changed, and copies of the few files that are. The database's own lock is
held meanwhile: a running node is not looked at, and none starts.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from connect_kv.errors import RefusedToStart, StorageError, StorageInUse
from connect_kv.interfaces import Identity
from connect_kv.raft.types import Entry, EntryId, HardState, Membership
from connect_kv.storage.engine import Engine
from connect_kv.storage.leveldb import LevelDbDisk, hold_lock
from connect_kv.storage.log_store import EngineLogStore
from connect_kv.storage.state_dirs import StateDatabase

_PROGRESS_RECORDS = 4096
MANY_PROBLEMS = 20
"""A database's report ends after so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSummary:
    """One database below ``state/``."""

    name: str
    current: bool
    """Whether it is the one the log names; others are left-overs that the next start deletes."""
    last_applied: int | None
    """None if it cannot be opened; then `problem` says why."""
    disk_bytes: int
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A data directory at rest."""

    path: Path
    identity: Identity | None
    """None: never bootstrapped; nothing below means anything then."""
    confirmed: bool
    hard_state: HardState
    compacted: EntryId
    """The last entry that is no longer in the log."""
    first_index: int
    last: EntryId
    term_starts: tuple[tuple[int, int], ...]
    memberships: tuple[tuple[int, Membership], ...]
    """(index, membership) from the start of the log on; the last one rules."""
    state_name: str
    durable_index: int
    log_bytes: int
    states: tuple[StateSummary, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationReport:
    """What `verify` found in one database."""

    database: str
    records: int
    """Pairs read, all with their checksums."""
    problems: tuple[str, ...]


def inspect(data_dir: Path) -> Summary:
    """Sum up a stopped node's directory. Raises StorageError (StorageInUse while it runs)."""
    with _log(data_dir) as log:
        restored = log.load()
        return Summary(
            path=data_dir,
            identity=log.identity,
            confirmed=log.confirmed,
            hard_state=restored.hard_state,
            compacted=restored.compacted,
            first_index=log.first_index,
            last=restored.last,
            term_starts=restored.term_starts,
            memberships=restored.memberships,
            state_name=log.state_name,
            durable_index=log.durable_index,
            log_bytes=_disk_bytes(data_dir / "log"),
            states=tuple(_states(data_dir, log.state_name)),
        )


@contextmanager
def copied(data_dir: Path) -> Iterator[Path]:
    """A copy of a stopped node's directory that may be written to, as long as the body runs.

    Tables are links to the originals: databases never change those. Raises StorageError.
    """
    _require(data_dir)
    paths = ["log", *(f"state/{name}" for name in _state_names(data_dir))]
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="connect-kv-"))
        for path in paths:
            original, copy = (data_dir / path).resolve(), Path(directory).resolve() / path
            stack.enter_context(hold_lock(original))
            try:
                _copy_files(original, copy)
            except OSError as error:
                raise StorageError(str(original), f"cannot be read: {error.strerror}") from error
        yield Path(directory).resolve()


def read_entries(data_dir: Path, start: int | None = None, end: int | None = None) -> Iterator[Entry]:
    """Entries of ``[start, end)`` that the log holds. Raises StorageError as `inspect` does."""
    with _log(data_dir) as log:
        index = max(start or 0, log.first_index)
        stop = log.last_index + 1 if end is None else min(end, log.last_index + 1)
        while index < stop:
            found = log.entries(index, stop, 1 << 20)
            yield from found
            index = found[-1].index + 1


def verify(
    data_dir: Path, progress: Callable[[Path, int], None] = lambda path, records: None
) -> list[VerificationReport]:
    """Read every record of every database with its checksums, and see that they fit together.

    `progress` hears now and then how many records of which database were read.
    A database that cannot be opened at all is a report as well; only a directory that is none, or
    is in use, raises StorageError.
    """
    _require(data_dir)
    paths = [data_dir / "log", *(data_dir / "state" / name for name in _state_names(data_dir))]
    reports = []
    current: Path | None = None
    durable_index = 0
    for path in paths:
        problems: list[str] = []
        records = 0
        try:
            with _copy(path) as engine:
                records = _read_all(engine, problems, partial(progress, path))
                if path == data_dir / "log":
                    name, durable_index = _verify_log(engine, problems)
                    current = data_dir / "state" / name if name else None
                else:
                    applied = StateDatabase(engine).last_applied
                    if path == current and applied < durable_index:
                        problems.append(f"stands at {applied}, and was on disk up to {durable_index} once")
        except StorageInUse:
            raise
        except (StorageError, RefusedToStart) as error:
            problems.append(error.reason if isinstance(error, StorageError) else str(error))
        reports.append(
            VerificationReport(database=str(path), records=records, problems=tuple(problems[:MANY_PROBLEMS]))
        )
    if current is not None and current not in paths:
        reports.append(VerificationReport(database=str(current), records=0, problems=("is missing",)))
    return reports


def _read_all(engine: Engine, problems: list[str], progress: Callable[[int], None]) -> int:
    """Every pair, one key space after the other, so that damage to one does not hide the next."""
    records = 0
    for space in range(256):
        stop = bytes([space + 1]) if space < 255 else None
        try:
            for _ in engine.iterate(bytes([space]), stop):
                records += 1
                if not records % _PROGRESS_RECORDS:
                    progress(records)
        except StorageError as error:
            problems.append(f"key space 0x{space:02x}: {error.reason}")
    return records


def _verify_log(engine: Engine, problems: list[str]) -> tuple[str, int]:
    """Returns the name of the state database in use, and up to where it is known to be on disk."""
    log = EngineLogStore(engine, window_entries=1, window_bytes=1)
    last_term = log.load().compacted.term
    for index in range(log.first_index, log.last_index + 1):
        try:
            entry = log.entries(index, index + 1, 0)[0]
        except StorageError as error:
            problems.append(error.reason)
        else:
            if entry.term < last_term:
                problems.append(f"entry {index} is of term {entry.term}, the one before of term {last_term}")
            last_term = entry.term
        if len(problems) >= MANY_PROBLEMS:
            break
    return log.state_name, log.durable_index


def _states(data_dir: Path, current: str) -> Iterator[StateSummary]:
    for name in _state_names(data_dir):
        path = data_dir / "state" / name
        last_applied, problem = None, ""
        try:
            with _copy(path) as engine:
                last_applied = StateDatabase(engine).last_applied
        except (StorageError, RefusedToStart) as error:
            problem = str(error)
        yield StateSummary(
            name=name,
            current=name == current,
            last_applied=last_applied,
            disk_bytes=_disk_bytes(path),
            problem=problem,
        )


@contextmanager
def _log(data_dir: Path) -> Iterator[EngineLogStore]:
    _require(data_dir)
    with _copy(data_dir / "log") as engine:
        yield EngineLogStore(engine, window_entries=1, window_bytes=1)


@contextmanager
def _copy(path: Path) -> Iterator[Engine]:
    """The database in `path`, opened as a copy. Errors name the original."""
    path = path.resolve()
    with hold_lock(path), tempfile.TemporaryDirectory(prefix="connect-kv-") as directory:
        copy = Path(directory).resolve() / "copy"
        try:
            _copy_files(path, copy)
            engine = LevelDbDisk().open(copy, must_exist=True)
            try:
                yield engine
            finally:
                engine.close()
        except StorageError as error:
            reason = error.reason.replace(str(copy), str(path))
            raise type(error)(str(path), reason) from error
        except RefusedToStart as error:
            raise RefusedToStart(str(error).replace(str(copy), str(path))) from error
        except OSError as error:
            raise StorageError(str(path), f"cannot be read: {error.strerror}") from error


def _copy_files(path: Path, copy: Path) -> None:
    copy.mkdir(parents=True)
    for file in path.iterdir():
        if file.suffix in (".ldb", ".sst"):
            (copy / file.name).symlink_to(file)
        elif file.name != "LOCK":
            shutil.copyfile(file, copy / file.name)


def _require(data_dir: Path) -> None:
    if not (data_dir / "log").is_dir():
        raise StorageError(str(data_dir), "is not the data directory of a node: it has no log")


def _state_names(data_dir: Path) -> Sequence[str]:
    return sorted((n for n in LevelDbDisk().list(data_dir / "state") if n.isdecimal()), key=int)


def _disk_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir())
