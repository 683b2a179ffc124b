"""A data directory made from a backup: the first of a member of a new cluster."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

from google.protobuf.message import DecodeError

from connect_kv.backup.etcd_format import head_of, state_records
from connect_kv.backup.file import BackupFile, Progress, is_first_format
from connect_kv.backup.history import Loaded, ended, load_history, write_attachments
from connect_kv.config import ServerConfig
from connect_kv.errors import CorruptStorage, RefusedToStart
from connect_kv.etcd_files.reader import BoltFile
from connect_kv.interfaces import Identity, Worker
from connect_kv.kv import layout
from connect_kv.kv.filling import Counted, counted
from connect_kv.kv.layout import StoreState
from connect_kv.node import startup
from connect_kv.node.workers import ThreadWorker
from connect_kv.raft.types import EntryId, Member, SnapshotMeta
from connect_kv.storage import codec, transfer
from connect_kv.storage.leveldb import LevelDbDisk, sync_directory
from connect_kv.storage.log_store import EngineLogStore
from connect_kv.storage.state_dirs import StateDatabase, StateDirs

_STATE = "1"
_BATCH_RECORDS = 2048
_LEFT_BEHIND = (codec.SESSIONS, codec.SESSION_REPLIES, codec.SKIPPED, codec.CLUSTER)
"""What belongs to the old cluster alone: its sessions, alarms, and what its members said of themselves."""
_PARTS = 2
"""A backup is read twice: for its digest, and to be restored."""
_LARGEST_REVISION = 1 << 62
"""Half of what the API's numbers hold is left for the new cluster."""


class RestoreSource(Protocol):
    """A state that a directory is made from."""

    @property
    def digest(self) -> bytes:
        """Of the file it comes from."""

    @property
    def last_applied(self) -> int:
        """The index of the log at which it stands."""

    async def load(self, database: Path, work: Path) -> None:
        """Put what can be whole tables into a new database, which is closed (`history.load_history`)."""

    async def fill(self, database: StateDatabase, meta: SnapshotMeta, worker: Worker) -> None:
        """Put the rest there. Blocking calls go to `worker`."""


async def restore(
    path: Path,
    config: ServerConfig,
    *,
    bump_revision: int = 0,
    progress: Progress = lambda done, total: None,
) -> Identity:
    """Make ``config.data_dir`` that of the member ``config.name`` of a new cluster with this state.

    Every member of it must be restored from the same file, with the same initial cluster and bump. Ids
    are new: members of the old cluster, should some still run, have nothing to do with it. The log goes
    on at the index of the backup, so what was numbered by it stays unique. `bump_revision` raises the
    revision and compacts what was before, so that no client takes the new history for the old.

    Raises RefusedToStart, CorruptStorage, StorageError; the directory is not there then.
    """
    with new_directory(config) as directory:
        if is_first_format(path):
            with BackupFile(path, progress) as first:
                return await fill_directory(directory, config, _FirstFormat(first), bump_revision)
        with BoltFile(path) as file:
            digest = file.check_digest(lambda done, total: progress(done, total * _PARTS))
            return await fill_directory(directory, config, _Backup(file, digest, progress), bump_revision)


class _Backup:
    """A backup, to be restored."""

    def __init__(self, file: BoltFile, digest: bytes, progress: Progress) -> None:
        self._file = file
        self._progress = progress
        self.digest = digest
        self.last_applied = head_of(file).last_applied
        self._loaded = Loaded()
        self._done = 0

    async def load(self, database: Path, work: Path) -> None:
        """The history of keys. Raises CorruptStorage."""
        try:
            self._loaded = await load_history(self._file, database, work, self._told)
        except (ValueError, DecodeError) as error:
            raise CorruptStorage(str(self._file.path), str(error)) from error

    def _told(self, done: int) -> None:
        self._done += done
        total = self._file.content_bytes
        self._progress(total + min(self._done // 2, total), total * _PARTS)

    async def fill(self, database: StateDatabase, meta: SnapshotMeta, worker: Worker) -> None:
        """All of it but what belongs to the old cluster alone. Raises CorruptStorage."""
        try:
            await self._fill(database, worker)
        except (ValueError, DecodeError) as error:
            raise CorruptStorage(str(self._file.path), str(error)) from error
        await worker.run(partial(database.adopt, meta.last.index))

    async def _fill(self, database: StateDatabase, worker: Worker) -> None:
        engine, total = database.engine, self._file.content_bytes
        await write_attachments(self._loaded, engine, worker)
        changes: dict[bytes, bytes | None] = {}
        for key, value in state_records(self._file):
            if key[0] not in _LEFT_BEHIND:
                changes[key] = value
            if len(changes) >= _BATCH_RECORDS:
                await worker.run(partial(engine.batch(changes).write, sync=False))
                changes = {}
        await worker.run(partial(engine.batch(changes).write, sync=False))
        view = engine.view()
        try:
            self._compare(StoreState.decode(engine.get(layout.STATE)), ended(counted(view)))
        finally:
            view.close()
        self._progress(total * _PARTS, total * _PARTS)

    def _compare(self, state: StoreState, found: Counted) -> None:
        if (state.live, state.indexed) != (found.live, found.indexed):
            raise ValueError(
                f"it holds {found.live} keys and {found.indexed} changes,"
                f" not {state.live} and {state.indexed}"
            )


class _FirstFormat:
    """A backup of the first format, to be restored."""

    def __init__(self, file: BackupFile) -> None:
        self._file = file
        self.digest = file.digest
        self.last_applied = file.head.last_applied

    async def load(self, database: Path, work: Path) -> None:
        """Nothing: it is a stream of records in the order of the database."""

    async def fill(self, database: StateDatabase, meta: SnapshotMeta, worker: Worker) -> None:
        """All of it but what belongs to the old cluster alone."""
        await transfer.fill(database, meta, self._file.pieces(), worker)
        await worker.run(partial(_leave_behind, database))


@contextmanager
def new_directory(config: ServerConfig) -> Iterator[Path]:
    """A directory to be filled, which becomes ``config.data_dir`` if the body succeeds.

    Raises RefusedToStart if there is one with something in it.
    """
    target = config.data_dir
    if target.exists() and any(target.iterdir()):
        raise RefusedToStart(f"{target} is not empty: name a new directory, or delete it")
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.restoring")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    try:
        yield unfinished
        if target.exists():
            target.rmdir()
        unfinished.rename(target)
        sync_directory(target.parent)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


async def fill_directory(
    directory: Path, config: ServerConfig, source: RestoreSource, bump_revision: int
) -> Identity:
    """Make it that of the member ``config.name`` of a new cluster that begins with the state of `source`."""
    disk, worker = LevelDbDisk(), ThreadWorker("restore")
    members = [Member(node_id=0, name=one.name, peer_address=one.peer_address) for one in config.members]
    # Members restored from something else must not find each other.
    token = f"{config.initial_cluster_token}\0{source.digest.hex()}\0{bump_revision}"
    cluster_id, membership = startup.initial_cluster(members, token)
    meta = SnapshotMeta(EntryId(0, source.last_applied), membership)
    try:
        dirs = StateDirs(disk, directory)
        empty = dirs.create(_STATE)
        path = empty.engine.path
        empty.close()
        work = directory / "work"
        work.mkdir()
        await source.load(path, work)
        database = dirs.open(_STATE, 0)
        try:
            await source.fill(database, meta, worker)
            await worker.run(partial(_bump, database, bump_revision))
            await worker.run(database.make_durable)
        finally:
            database.close()
        shutil.rmtree(work)
    finally:
        await worker.close()
    own = next(one for one in membership.members if one.name == config.name)
    identity = Identity(
        cluster_id=cluster_id,
        node_id=own.node_id,
        name=config.name,
        directory_id=random.SystemRandom().randbytes(16),
    )
    log = EngineLogStore.open(disk, directory)
    try:
        log.bootstrap(identity, membership, _STATE)
        log.install(_STATE, meta)
    finally:
        log.close()
    return identity


def _leave_behind(database: StateDatabase) -> None:
    doomed: dict[bytes, bytes | None] = {}
    for space in _LEFT_BEHIND:
        keys = [key for key, _ in database.engine.iterate(bytes((space,)), bytes((space + 1,)))]
        doomed.update(dict.fromkeys(keys))
    records = list(doomed)
    for at in range(0, len(records), _BATCH_RECORDS):
        changes: dict[bytes, bytes | None] = dict.fromkeys(records[at : at + _BATCH_RECORDS])
        database.prepare(changes, database.last_applied).write(sync=False)


def _bump(database: StateDatabase, by: int) -> None:
    if not by:
        return
    state = StoreState.decode(database.engine.get(layout.STATE))
    revision = state.revision + by
    if revision > _LARGEST_REVISION:
        raise RefusedToStart(f"the revision would become {revision}; {_LARGEST_REVISION} is the largest")
    bumped = state._replace(revision=revision, compacted=revision)
    database.prepare({layout.STATE: bumped.encode()}, database.last_applied).write(sync=False)
