"""A state database of keys made from their history alone, as it lies in a backup or in a file of etcd.

Everything else about keys follows from it: what each key is now, at which revisions it changed, and which
keys hang on which lease. The history comes in order; what is made of it goes out in batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from connect_kv.kv import layout, revision, scan
from connect_kv.kv.layout import CURRENT, DELETED, HISTORY, PUT, TOMBSTONE, StoreState, index_key
from connect_kv.kv.scan import Walk
from connect_kv.rpc.kv_pb2 import KeyValue
from connect_kv.storage.engine import Reader


class HistoryFill:
    """Takes one change after the other; `take` gives what is to be written of them."""

    def __init__(self) -> None:
        self._changes: dict[bytes, bytes | None] = {}
        self._parse = KeyValue.FromString
        self._last = b""
        self.size = 0
        """Bytes that wait in `take`, roughly."""
        self.indexed = 0
        """Changes so far."""
        self.revision = 0
        """Of the last one."""

    def put(self, main: int, sub: int, record: bytes) -> KeyValue:
        """A key was set; `record` is its KeyValue, which is returned. Raises ValueError."""
        kv = self._parse(record)
        if (
            kv.mod_revision != main
            or kv.version < 1
            or not 0 < kv.create_revision <= main
            or record[:1] != b"\x0a"
        ):
            raise ValueError(f"the change at {main}.{sub} is no key and value of that revision")
        place = self._place(main, sub)
        key = kv.key
        changes = self._changes
        changes[CURRENT + key] = changes[HISTORY + place] = record
        changes[index_key(key) + place] = PUT
        if kv.lease:
            changes[layout.lease_keys_prefix(kv.lease) + key] = b""
        self.size += 2 * len(record) + len(key) + 40
        return kv

    def delete(self, main: int, sub: int, key: bytes) -> None:
        """A key was deleted. Raises ValueError."""
        if not key:
            raise ValueError(f"the deletion at {main}.{sub} names no key")
        place = self._place(main, sub)
        changes = self._changes
        changes[CURRENT + key] = None
        changes[HISTORY + place] = DELETED + key
        changes[index_key(key) + place] = TOMBSTONE
        self.size += 3 * len(key) + 40

    def take(self) -> Mapping[bytes, bytes | None]:
        """What is to be written, and was not taken before."""
        taken, self._changes, self.size = self._changes, {}, 0
        return taken

    def _place(self, main: int, sub: int) -> bytes:
        place = revision.pack(main, sub)
        if place <= self._last:
            raise ValueError(f"the change at {main}.{sub} does not come after those before it")
        self._last = place
        self.indexed += 1
        self.revision = main
        return place


def loose_attachments(reader: Reader) -> Walk[list[bytes]]:
    """Attachments to leases that a later change of their key has ended: to be deleted when all is written."""
    loose = []
    records = reader.iterate(layout.LEASE_KEYS, layout.LEASE_KEYS_END)
    for number, (entry, _) in enumerate(records, 1):
        key = entry[len(layout.lease_keys_prefix(0)) :]
        record = reader.get(CURRENT + key)
        if record is None or scan.parse(record).lease != layout.lease_of(entry):
            loose.append(entry)
        if not number % scan.SLICE_RECORDS:
            yield
    return loose


@dataclass(slots=True)
class Counted:
    """What the index of a filled database tells."""

    live: int = 0
    indexed: int = 0


def counted(reader: Reader) -> Walk[Counted]:
    """Keys that live, and changes, by one walk over the index."""
    found, name, alive = Counted(), b"", False
    for entry, kind in reader.iterate(layout.INDEX, layout.META):
        if entry[: -revision.SIZE] != name:
            found.live += alive
            name = entry[: -revision.SIZE]
        alive = kind == PUT
        found.indexed += 1
        if not found.indexed % scan.SLICE_RECORDS:
            yield
    found.live += alive
    return found


def numbers(reader: Reader, revision: int, compacted: int) -> Walk[StoreState]:
    """What stands beside the keys of a filled database."""
    found = yield from counted(reader)
    return StoreState(revision, compacted, found.live, found.indexed)
