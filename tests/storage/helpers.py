"""What tests of the storage share: disks, memberships, entries, and ways to do harm."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from connect_kv.interfaces import Identity
from connect_kv.raft.ready import Ready
from connect_kv.raft.types import Entry, EntryId, EntryKind, HardState, Member, Membership
from connect_kv.storage.engine import Disk
from connect_kv.storage.leveldb import LevelDbDisk
from connect_kv.storage.log_store import EngineLogStore
from connect_kv.storage.memory import MemoryDisk

IDENTITY = Identity(cluster_id=7, node_id=1, name="n1", directory_id=b"\x01" * 16)

Pairs = list[tuple[bytes, bytes]]


def make_disk(kind: str) -> Disk:
    return LevelDbDisk() if kind == "leveldb" else MemoryDisk(random.Random(1))


def voters(*node_ids: int) -> Membership:
    members = tuple(Member(node_id=i, name=f"n{i}", peer_address=f"127.0.0.1:{i}") for i in node_ids)
    return Membership(members=members, voters=frozenset(node_ids))


def command(term: int, index: int, data: bytes = b"data") -> Entry:
    return Entry(EntryId(term, index), EntryKind.COMMAND, data)


def member_entry(term: int, index: int, membership: Membership) -> Entry:
    return Entry(EntryId(term, index), EntryKind.MEMBERSHIP, membership.encode())


def commands(term: int, start: int, end: int, data: bytes = b"data") -> tuple[Entry, ...]:
    return tuple(command(term, index, data) for index in range(start, end))


def ready(entries: Sequence[Entry] = (), term: int | None = None, *, sync: bool = True) -> Ready:
    state = HardState(term, 1, 0) if term is not None else None
    return Ready(number=1, hard_state=state, entries=tuple(entries), must_sync=sync)


def new_log(disk: Disk, path: Path) -> EngineLogStore:
    log = EngineLogStore.open(disk, path)
    log.bootstrap(IDENTITY, voters(1), "1")
    return log


def pairs(items: Iterator[tuple[bytes, bytes]]) -> Pairs:
    return list(items)


def copy_of(path: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(path, to)
    return to


def only_wal(path: Path) -> Path:
    (file,) = path.glob("*.log")
    return file


def flip(path: Path, at: int, bits: int = 0xFF) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= bits
    path.write_bytes(data)
