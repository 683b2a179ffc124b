"""Moving in from etcd: its database becomes the state of a new cluster, and is read again to compare.

Taken over: every key with its create, mod and version, the whole history since the last compaction, leases
with their keys, users with their passwords, roles, and the revision. Left behind: members, alarms, and what
an etcd of a later version may keep beside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from google.protobuf.message import DecodeError

from connect_kv.auth import etcd_records
from connect_kv.backup.file import Progress
from connect_kv.backup.history import Loaded, ended, load_history, write_attachments
from connect_kv.backup.restoring import fill_directory, new_directory
from connect_kv.config import ServerConfig
from connect_kv.errors import CorruptStorage
from connect_kv.etcd_files import records, sources
from connect_kv.etcd_files.checksums import crc32c
from connect_kv.etcd_files.reader import BoltFile
from connect_kv.interfaces import Identity, Worker
from connect_kv.kv import compaction, hashing, layout, revision
from connect_kv.kv.filling import numbers
from connect_kv.kv.layout import StoreState
from connect_kv.kv.leases import MAXIMUM_TTL, GrantedLease
from connect_kv.kv.moment import STORED_ELAPSED
from connect_kv.kv.scan import Walk
from connect_kv.raft.types import SnapshotMeta
from connect_kv.rpc.etcd_files_pb2 import EtcdLease
from connect_kv.storage import codec
from connect_kv.storage.bulk import ReopeningReader
from connect_kv.storage.engine import Reader
from connect_kv.storage.state_dirs import StateDatabase

_FIRST_INDEX = 1
"""Where the log of the new cluster begins: nothing in an etcd is numbered by its index."""
_SECOND = 1_000_000_000
_FILL_SHARE = 4
"""Filling takes so many times as long as reading for the digest, roughly; and comparing twice as long."""


@dataclass(slots=True, kw_only=True)
class Report:
    """What was taken over."""

    keys: int = 0
    changes: int = 0
    """Records of the history."""
    revision: int = 1
    compacted: int = -1
    leases: int = 0
    users: int = 0
    roles: int = 0
    auth_enabled: bool = False
    etcd_hash: int = 0
    """HashKV at `revision`, computed from the file."""
    hash: int = 0
    """HashKV at `revision`, computed from the new directory."""
    left_behind: list[str] = field(default_factory=list)
    """What is not taken over, in words."""
    identity: Identity | None = None


async def import_etcd(
    source: Path,
    config: ServerConfig,
    *,
    wal_dir: Path | None = None,
    check_digest: bool = True,
    bump_revision: int = 0,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Make ``config.data_dir`` that of the member ``config.name`` of a new cluster with what an etcd holds.

    `source` is a snapshot or the data directory of an etcd that was stopped. Members of a cluster of several
    are made one by one, from the same source, with the same initial cluster and bump (`restoring.restore`).

    Raises RefusedToStart, CorruptStorage, StorageError, each saying what is wrong with which file; the
    directory is not there then.
    """

    def reading(done: int, total: int) -> None:
        progress(done, total * (1 + _FILL_SHARE + 2))

    found = sources.opened(source, wal_dir=wal_dir, check_digest=check_digest, progress=reading)
    with new_directory(config) as directory, found as (file, digest):
        moving = _Etcd(file, digest, progress)
        identity = await fill_directory(directory, config, moving, bump_revision)
        moving.report.identity = identity
        return moving.report


class _Etcd:
    """A database of etcd, to be taken over (`restoring.Source`)."""

    def __init__(self, file: BoltFile, digest: bytes, progress: Progress) -> None:
        self._file = file
        self.digest = digest
        self.last_applied = _FIRST_INDEX
        self._progress = progress
        self.report = Report()
        self._loaded = Loaded()
        self._state = StoreState()
        self._cleaned_up = True
        self._done = 0

    async def load(self, database: Path, work: Path) -> None:
        """The history of keys. Raises CorruptStorage."""
        try:
            self._loaded = await load_history(self._file, database, work, self._told)
            self._compare(ReopeningReader(database))
        except (ValueError, DecodeError) as error:
            raise CorruptStorage(str(self._file.path), str(error)) from error

    async def fill(self, database: StateDatabase, meta: SnapshotMeta, worker: Worker) -> None:
        """See `Source`. Ends with the comparison of both."""
        try:
            await self._fill(database, worker)
        except (ValueError, DecodeError) as error:
            raise CorruptStorage(str(self._file.path), str(error)) from error
        await worker.run(partial(database.adopt, meta.last.index))

    async def _fill(self, database: StateDatabase, worker: Worker) -> None:
        report, engine, state = self.report, database.engine, self._state

        def write(changes: Mapping[bytes, bytes | None]) -> None:
            engine.batch(changes).write(sync=False)

        await write_attachments(self._loaded, engine, worker)
        rest: dict[bytes, bytes | None] = {layout.STATE: state.encode()}
        if self._cleaned_up and report.compacted >= 0:
            rest[layout.CLEANUP] = compaction.finished(report.compacted)
        rest.update(self._leases())
        rest.update(self._users())
        self._left_behind()
        await worker.run(partial(write, rest))

    def _compare(self, reader: Reader) -> None:
        """Read all that was made of the keys. Raises CorruptStorage if it is not what the file holds."""
        report = self.report
        scheduled, finished = self._compactions()
        self._cleaned_up = scheduled <= finished
        report.compacted = max(scheduled, finished)
        report.revision = max(self._loaded.last, report.compacted, 1)
        self._state = ended(numbers(reader, report.revision, report.compacted))
        report.keys, report.changes = self._state.live, self._state.indexed
        if (report.keys, report.changes) != (self._loaded.live, self._loaded.indexed):
            raise CorruptStorage(
                str(self._file.path),
                f"{self._loaded.live} keys and {self._loaded.indexed} changes of it became {report.keys} and"
                f" {report.changes}",
            )
        report.hash, report.etcd_hash = ended(self._hashes(reader))
        if report.hash != report.etcd_hash:
            raise CorruptStorage(
                str(self._file.path),
                f"HashKV of it is {report.etcd_hash}, and of what was made of it {report.hash}",
            )

    def _told(self, done: int) -> None:
        self._done += done
        total = self._file.content_bytes
        self._progress(total + min(self._done // 2, total) * _FILL_SHARE, total * (1 + _FILL_SHARE + 2))

    def _hashes(self, view: Reader) -> Walk[tuple[int, int]]:
        """HashKV of the new database, and of the file by the same rule.

        A compaction that has ended leaves next to nothing that is left out: then the file need not be read
        once more.
        """
        report, total = self.report, self._file.content_bytes
        whole = total * (1 + _FILL_SHARE + 2)
        own = yield from hashing.etcd_history(view, report.revision, report.compacted)
        self._progress(whole - total, whole)
        left = yield from hashing.left_out(view, report.revision, report.compacted, b"")
        if not left.places:
            self._progress(whole, whole)
            return own, self._loaded.checksum
        extend = crc32c()
        theirs = extend(0, records.KEY)
        start = b""
        while True:
            for key, value in self._file.items(records.KEY):
                main, sub, deleted = records.read_place(key)
                place = revision.pack(main, sub)
                counts = start <= place and (left.end is None or place < left.end)
                if counts and place not in left.places and (deleted or value):
                    theirs = extend(theirs, key + value)
            if left.end is None:
                self._progress(whole, whole)
                return own, theirs
            start = left.end
            left = yield from hashing.left_out(view, report.revision, report.compacted, start)

    def _compactions(self) -> tuple[int, int]:
        """(scheduled, finished); -1: never."""
        found = dict(self._file.items(records.META))

        def at(name: bytes) -> int:
            return records.read_place(found[name])[0] if name in found else -1

        return at(records.SCHEDULED), at(records.FINISHED)

    def _leases(self) -> Iterator[tuple[bytes, bytes]]:
        """With the time they had left, where etcd stored it (it does with checkpoints); else the full one.

        Time passes from a moment on at which that of the oldest has passed already.
        """
        used: dict[int, tuple[int, int]] = {}
        for key, value in self._file.items(records.LEASE):
            lease = EtcdLease.FromString(value)
            if records.signed(records.read_number(key)) != lease.ID or not lease.ID:
                raise ValueError(f"the lease {key.hex()} is recorded as {lease.ID}")
            left = lease.RemainingTTL if 0 < lease.RemainingTTL <= lease.TTL <= MAXIMUM_TTL else lease.TTL
            used[lease.ID] = lease.TTL, (lease.TTL - left) * _SECOND
        self.report.leases = len(used)
        now = max((passed for _, passed in used.values()), default=0)
        for id, (ttl, passed) in used.items():
            yield layout.lease_key(id), GrantedLease(ttl, _FIRST_INDEX, now - passed).encode()
        if now:
            yield STORED_ELAPSED, codec.pair(now, 0)

    def _users(self) -> Iterator[tuple[bytes, bytes]]:
        items = self._file.items
        users, roles = list(items(records.USERS)), list(items(records.ROLES))
        self.report.users, self.report.roles = len(users), len(roles)
        auth = list(items(records.AUTH))
        self.report.auth_enabled = etcd_records.standing_from_etcd(auth).enabled
        return etcd_records.from_etcd(users, roles, auth)

    def _left_behind(self) -> None:
        items = self._file.items
        for bucket, words in ((records.ALARM, "alarms"), (records.MEMBERS, "members")):
            if count := sum(1 for _ in items(bucket)):
                self.report.left_behind.append(f"{count} {words}")
        for bucket in self._file.buckets:
            if bucket not in records.BUCKETS:
                self.report.left_behind.append(f"the bucket {bucket.decode('utf-8', 'backslashreplace')}")
