"""A state as a file of etcd's: its own tools restore the keys of it, and ours all of it.

The buckets are etcd's. What etcd has no place for (sessions, states of replicated classes, rights on them,
when a lease was renewed, how far the log has come) lies in one more bucket, `connect_kv`, which etcd keeps
and does not look at: a head, and records of the state database as they are. What follows from the history
is not in the file: it is made again (`kv.filling`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict

from connect_kv.auth import etcd_records
from connect_kv.auth.table import AuthTable
from connect_kv.backup.file import BackupHead, read_head
from connect_kv.errors import RefusedToStart
from connect_kv.etcd_files import records
from connect_kv.etcd_files.reader import BoltFile
from connect_kv.etcd_files.writer import Bucket, Pairs
from connect_kv.kv import hashing, layout, scan
from connect_kv.kv.layout import StoreState
from connect_kv.kv.leases import GrantedLease
from connect_kv.rpc.auth_pb2 import StoredAuth
from connect_kv.rpc.etcd_files_pb2 import EtcdLease
from connect_kv.storage import codec, transfer
from connect_kv.storage.engine import Reader

OUR_BUCKET = b"connect_kv"
HEAD_KEY = b"head"
STATE_KEY = b"s"
"""Before the key of a record of the state database."""
FORMAT = 2
"""The first one was no file of etcd's (`file.BackupFile`)."""

MADE_AGAIN = frozenset((codec.KV_CURRENT, codec.KV_HISTORY, codec.KV_KEY_INDEX, codec.LEASE_KEYS))
"""First bytes of records that are in no bucket of ours: history has one, and the rest follows from it."""


def buckets(view: Reader, head: BackupHead, *, exact: bool) -> list[Bucket]:
    """All buckets of a file with the state in `view`, in order.

    Not `exact`: values have their length only, which is all that a layout needs, and costs half.
    """
    state = StoreState.decode(view.get(layout.STATE))
    table = AuthTable()
    table.load(view)
    standing = StoredAuth(enabled=table.enabled, revision=table.revision)
    content: dict[bytes, Callable[[], Pairs]] = {
        **{name: _nothing for name in records.BUCKETS},
        OUR_BUCKET: lambda: _ours(view, head),
        records.AUTH: lambda: etcd_records.standing_to_etcd(standing),
        records.USERS: lambda: sorted(map(etcd_records.user_to_etcd, table.users.values())),
        records.ROLES: lambda: sorted(map(etcd_records.role_to_etcd, table.roles.values())),
        records.KEY: lambda: _history(view, exact=exact),
        records.LEASE: lambda: _leases(view),
        records.META: lambda: _compactions(state),
    }
    return sorted(content.items())


def _nothing() -> Pairs:
    return ()


def _history(view: Reader, *, exact: bool) -> Pairs:
    record_of = hashing.etcd_record if exact else hashing.etcd_sized
    for pair in scan.sliced(view.iterate(*layout.history_bounds(0, (1 << 64) - 1))):
        yield None if pair is None else record_of(pair[0][1:], pair[1])


def _leases(view: Reader) -> Pairs:
    """In the order of ours, which is etcd's: negative ids last."""
    for key, record in view.iterate(layout.LEASES, layout.LEASE_KEYS):
        lease = layout.lease_of(key)
        value = EtcdLease(ID=lease, TTL=GrantedLease.decode(record).ttl)
        yield records.number(lease), value.SerializeToString()


def _compactions(state: StoreState) -> Pairs:
    """Both marks, if anything was ever compacted: older releases of etcd take no head from one alone."""
    if state.compacted <= 0:
        return ()
    at = records.place(state.compacted, 0)
    return [(records.FINISHED, at), (records.SCHEDULED, at)]


def _ours(view: Reader, head: BackupHead) -> Pairs:
    yield HEAD_KEY, json.dumps({"format": FORMAT, **asdict(head)}, sort_keys=True).encode()
    for pair in scan.sliced(_rest(view)):
        yield None if pair is None else (STATE_KEY + pair[0], pair[1])


def _rest(view: Reader) -> Iterator[tuple[bytes, bytes]]:
    """What is made again is not even read."""
    yield from transfer.meta_records(view)
    start = codec.META + 1
    for space in (*sorted(MADE_AGAIN), 256):
        if start < space:
            yield from view.iterate(bytes((start,)), bytes((space,)) if space < 256 else None)
        start = space + 1


def head_of(file: BoltFile) -> BackupHead:
    """The head of a backup.

    Raises CorruptStorage; RefusedToStart if it was made by an etcd, also from one of ours: then what is in
    our bucket is of another moment than the keys.
    """
    key, text = next(file.items(OUR_BUCKET), (b"", b""))
    if key != HEAD_KEY:
        raise RefusedToStart(f"{file.path}: is a file of etcd's: move in with `connect-kv import-etcd`")
    if records.CONSISTENT_INDEX in dict(file.items(records.META)):
        raise RefusedToStart(
            f"{file.path}: an etcd has gone on with this backup since it was made: move in with"
            " `connect-kv import-etcd`"
        )
    return read_head(file.path, text, FORMAT)


def state_records(file: BoltFile) -> Iterator[tuple[bytes, bytes]]:
    """Those of the state database that are in the file as they were. Raises ValueError."""
    for key, value in file.items(OUR_BUCKET):
        if key == HEAD_KEY:
            continue
        if not key.startswith(STATE_KEY) or len(key) < 2 or key[1] in MADE_AGAIN:
            raise ValueError(f"{key!r} is no record of a state")
        yield key[1:], value
