"""Backup files outside a running node: looked at, and made from a stopped one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from connect_kv.backup.etcd_format import OUR_BUCKET, STATE_KEY, head_of
from connect_kv.backup.file import BackupFile, BackupHead, Progress, is_first_format, new_file
from connect_kv.backup.running import backup
from connect_kv.errors import RefusedToStart
from connect_kv.etcd_files import records
from connect_kv.etcd_files.checksums import crc32c
from connect_kv.etcd_files.reader import BoltFile
from connect_kv.interfaces import Identity, Worker
from connect_kv.kv import hashing, layout
from connect_kv.kv.layout import StoreState
from connect_kv.kv.machine import KvMachine
from connect_kv.node.clock import SystemClock
from connect_kv.node.workers import ThreadWorker
from connect_kv.raft.types import Entry
from connect_kv.statemachine.host import MachineHost, ReadLog
from connect_kv.statemachine.hosted import HostedMachine
from connect_kv.storage import codec, transfer
from connect_kv.storage.inspect import copied
from connect_kv.storage.leveldb import LevelDbDisk
from connect_kv.storage.log_store import EngineLogStore
from connect_kv.storage.state_dirs import BrokenChain, StateDirs

_REPLAY_BYTES = 4 << 20
_SLICE_ENTRIES = 256
_PROGRESS_PAIRS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a backup holds."""

    head: BackupHead
    size: int
    revision: int
    compacted: int
    keys: int
    hash: int
    """What `etcdctl snapshot status` says of it, too. Of the first format: of its history."""


def nothing(done: int, total: int) -> None:
    """For who wants to see no progress."""


async def contents(path: Path, progress: Progress = nothing) -> Contents:
    """Read a whole backup and check it. Raises CorruptStorage, RefusedToStart for a file that is etcd's."""
    if is_first_format(path):
        return await _first_format(path, progress)
    extend = crc32c()
    with BoltFile(path) as file:
        file.check_digest(lambda done, total: progress(done, total * 2))
        head, checksum, state = head_of(file), 0, StoreState()
        done, total = 0, file.content_bytes
        for bucket in file.buckets:
            checksum = extend(checksum, bucket)
            for number, (key, value) in enumerate(file.items(bucket), 1):
                checksum = extend(checksum, key + value)
                done += len(key) + len(value) + 16
                if bucket == OUR_BUCKET and key == STATE_KEY + layout.STATE:
                    state = StoreState.decode(value)
                if not number % _PROGRESS_PAIRS:
                    progress(total + min(done, total), total * 2)
        progress(total * 2, total * 2)
        return Contents(
            head=head,
            size=file.size,
            revision=state.revision,
            compacted=state.compacted,
            keys=state.live,
            hash=checksum,
        )


async def _first_format(path: Path, progress: Progress) -> Contents:
    extend = crc32c()
    state, checksum = StoreState(), extend(0, records.KEY)
    with BackupFile(path, progress) as file:
        async for piece in file.pieces():
            for key, value in transfer.pairs_of(piece):
                if key[0] == codec.KV_HISTORY:
                    checksum = extend(checksum, b"".join(hashing.etcd_record(key[1:], value)))
                elif key == layout.STATE:
                    state = StoreState.decode(value)
        return Contents(
            head=file.head,
            size=file.size,
            revision=state.revision,
            compacted=state.compacted,
            keys=state.live,
            hash=checksum,
        )


async def save_stopped(
    data_dir: Path,
    target: Path,
    machines: Mapping[str, HostedMachine],
    progress: Progress = nothing,
    *,
    replace: bool = False,
) -> BackupHead:
    """Make a backup of a stopped node's directory, which is not changed.

    All of its log is taken for committed: with the majority lost nobody can say what was, and what was
    acknowledged is among it if this member has the newest log of those that are left.
    `machines` must be those the node hosted; `replace`: whether `target` may exist.
    Raises StorageError, RefusedToStart, UnknownEntry.
    """
    with copied(data_dir) as copy:
        workers: list[Worker] = [ThreadWorker("log"), ThreadWorker("state"), ThreadWorker("apply")]
        try:
            return await _save_copy(copy, data_dir, target, machines, workers, progress, replace)
        finally:
            for worker in workers:
                await worker.close()


async def _save_copy(
    copy: Path,
    data_dir: Path,
    target: Path,
    machines: Mapping[str, HostedMachine],
    workers: Sequence[Worker],
    progress: Progress,
    replace: bool,
) -> BackupHead:
    log_worker, state_worker, apply_worker = workers
    log = EngineLogStore.open(LevelDbDisk(), copy)
    try:
        if log.identity is None:
            raise RefusedToStart(f"{data_dir}: this node was never started; there is nothing to save")
        dirs = StateDirs(LevelDbDisk(), copy)
        try:
            database = dirs.open(log.state_name, log.durable_index)
        except BrokenChain as error:
            raise RefusedToStart(
                f"{data_dir}: its state lost writes in a power failure: save another member's directory"
            ) from error
        host = MachineHost(
            dirs=dirs,
            state_name=log.state_name,
            database=database,
            kv=KvMachine(),
            machines=machines,
            state_worker=state_worker,
            apply_worker=apply_worker,
            clock=SystemClock(),
        )

        async def read_log(start: int, end: int) -> Sequence[Entry]:
            return await log_worker.run(partial(log.entries, start, end, _REPLAY_BYTES))

        try:
            await host.start(read_log)
            await _apply_rest(host, read_log, log.last_index)
            return await _write(host, log.identity, target, progress, replace)
        finally:
            await host.close()
    finally:
        log.close()


async def _apply_rest(host: MachineHost, read_log: ReadLog, last_index: int) -> None:
    while host.last_applied < last_index:
        start = host.last_applied + 1
        await host.apply(await read_log(start, min(start + _SLICE_ENTRIES, last_index + 1)))


async def _write(
    host: MachineHost, identity: Identity, target: Path, progress: Progress, replace: bool
) -> BackupHead:
    done = 0
    with new_file(target, replace=replace) as file:
        blobs = backup(host, identity, SystemClock())
        async for blob in blobs:
            file.write(blob.data)
            done += len(blob.data)
            progress(done, done + blob.remaining)
    with BoltFile(target) as written:
        return head_of(written)
