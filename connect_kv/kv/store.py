"""MvccStore: the writing half of the key/value store. Every change is kept under its revision.

It holds four numbers and the records written last; everything else is read from the state database.
The numbers run ahead of what readers can see, by the slice that is being applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from connect_kv.kv import revision, scan, wire
from connect_kv.kv.layout import (
    CURRENT,
    DELETED,
    HISTORY,
    PUT,
    STATE,
    TOMBSTONE,
    Changes,
    StoreState,
    index_key,
    pack_state,
)
from connect_kv.kv.range_counts import RangeCounts
from connect_kv.kv.record_cache import Known, RecordCache
from connect_kv.kv.scan import Walk
from connect_kv.rpc.kv_pb2 import KeyValue

ChangeFields = tuple[bytes, int, bytes | None, bytes | None]
"""The arguments of a Change; the object is only made once somebody watches."""


class WatchedChange:
    """One change of one key, on its way to the watchers. Encoded once, however many they are."""

    __slots__ = ("_wire", "_wire_with_previous", "key", "previous", "record", "revision")

    def __init__(self, key: bytes, revision: int, record: bytes | None, previous: bytes | None) -> None:
        self.key = key
        self.revision = revision
        self.record = record
        """The new KeyValue; None for a deletion."""
        self.previous = previous
        """The KeyValue before this revision; None if there was none."""
        self._wire: bytes | None = None
        self._wire_with_previous: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes, roughly, without the previous value."""
        return len(self.key) + 64 if self.record is None else len(self.record) + 64

    def encoded(self, *, prev_kv: bool) -> bytes:
        """As an event of a WatchResponse."""
        if prev_kv and self.previous is not None:
            if self._wire_with_previous is None:
                previous = None if self._creates() else self.previous
                self._wire_with_previous = wire.event(self.key, self.revision, self.record, previous)
            return self._wire_with_previous
        if self._wire is None:
            self._wire = wire.event(self.key, self.revision, self.record, None)
        return self._wire

    def _creates(self) -> bool:
        """Whether the key begins a new life: what a transaction deleted first is not its previous value."""
        return self.record is not None and KeyValue.FromString(self.record).create_revision == self.revision


class Attachments(Protocol):
    """Which keys hang on which lease (`leases.LeaseTable`)."""

    def attach(self, changes: Changes, key: bytes, lease: int) -> None:
        """`key` lives no longer than `lease`."""

    def detach(self, changes: Changes, key: bytes, lease: int) -> None:
        """It does not depend on it any more."""


class MvccStore:
    """Writes of one request at a time: any number of `put` and `delete`, then `finish`.

    All changes between two calls of `finish` share one revision, `writing`.
    """

    __slots__ = (
        "_attachments",
        "_originals",
        "_originals_of",
        "_recent",
        "_records",
        "_sub",
        "changes",
        "compacted",
        "deletes",
        "indexed",
        "live",
        "puts",
        "range_counts",
        "revision",
    )

    def __init__(self, attachments: Attachments, recent: RecordCache | None = None) -> None:
        self._attachments = attachments
        self._originals: dict[bytes, bytes | None] = {}
        """Of the keys that the request at hand has changed, once it changes more than one at a time."""
        self._originals_of = 0
        """The revision whose request `_originals` belongs to."""
        self._recent = recent or RecordCache()
        self._records = wire.Records()
        self.range_counts = RangeCounts()
        self.puts = self.deletes = 0
        """Requests since this process started, those of transactions among them."""
        self.changes: list[ChangeFields] = []
        """What happened since the list was last taken, in order."""
        self.load(StoreState())

    def load(self, state: StoreState) -> None:
        """Continue from a state of the database."""
        self.revision, self.compacted, self.live, self.indexed = state
        self._sub = self._originals_of = 0
        self.changes = []
        self._recent.clear()
        self.range_counts.clear()

    @property
    def state(self) -> StoreState:
        """The numbers, as they are stored."""
        return StoreState(self.revision, self.compacted, self.live, self.indexed)

    @property
    def written(self) -> bool:
        """Whether the request at hand has changed anything yet."""
        return self._sub > 0

    @property
    def writing(self) -> int:
        """What a read within the request at hand sees: its own revision once it has written."""
        return self.revision + 1 if self._sub else self.revision

    def get(self, changes: Changes, key: bytes) -> bytes | None:
        """The record of `key`, or None."""
        known = self._recent.get(key)
        return changes.get(CURRENT + key) if known is None else known[0]

    def put(self, changes: Changes, key: bytes, value: bytes | None, lease: int | None) -> bytes | None:
        """Set `key` and return its record of before; None keeps the value or lease it has."""
        self.puts += 1
        main = self.revision + 1
        before = self._recent.get(key) or self._read(changes, key)
        if before is None:
            old, created, version, attached = None, main, 0, 0
            self.live += 1
            self.range_counts.note(main, key, 1)
        else:
            old, created, version, attached = before
            if value is None:
                value = KeyValue.FromString(old).value
        if lease is None:
            lease = attached
        if lease != attached:
            self._move(changes, key, attached, lease)
        version += 1
        record = self._records.encode(key, created, main, version, lease, value or b"")
        changes.put(CURRENT + key, record)
        if version > 1:  # of keys that are only created there can be any number
            self._recent.put(key, (record, created, version, lease))
        self._note(changes, key, record, old, record, PUT)
        return old

    def put_all(self, changes: Changes, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """`put` of each in turn, with no lease, at a third of its cost: they share what they have in common.

        Each key once, and none that the request at hand has changed before.
        """
        self.puts += len(pairs)
        main, sub = self.revision + 1, self._sub
        recent, read, pack = self._recent, self._read, revision.pack
        head, numbers_of, join = wire.key_head, self._records.numbers, b"".join
        numbers, numbers_for = b"", (-1, 0)
        current: dict[bytes, bytes] = {}
        history: dict[bytes, bytes] = {}
        index: dict[bytes, bytes] = {}
        created_keys: list[bytes] = []
        for key, value in pairs:
            before = recent.get(key) or read(changes, key)
            if before is None:
                old, created, version = None, main, 1
                created_keys.append(key)
            else:
                old, created, version, attached = before
                version += 1
                if attached:
                    self._move(changes, key, attached, 0)
            if numbers_for != (created, version):
                numbers_for = created, version
                numbers = numbers_of(created, main, version, 0)
            record = join((head(len(key)), key, numbers, wire.value_head(len(value)), value))
            revision_key = pack(main, sub)
            current[CURRENT + key] = history[HISTORY + revision_key] = record
            index[index_key(key) + revision_key] = PUT
            if version > 1:
                recent.put(key, (record, created, version, 0))
            self.changes.append((key, main, record, old))
            sub += 1
        for space in (current, history, index):  # in order: they are sorted before they are written
            changes.put_all(space)
        self._sub = sub
        self.indexed += len(pairs)
        self.live += len(created_keys)
        self.range_counts.note_created(main, created_keys)

    def delete(self, changes: Changes, key: bytes) -> bytes | None:
        """Remove `key` and return its record of before, or None if there was none."""
        self.deletes += 1
        before = self._recent.get(key) or self._read(changes, key)
        if before is None:
            return None
        record, _, _, lease = before
        self._remove(changes, key, lease, record)
        return record

    def delete_range(self, changes: Changes, key: bytes, range_end: bytes) -> Walk[list[bytes]]:
        """Remove all keys of the range, in order; returns their records of before."""
        self.deletes += 1
        records = []
        for record in scan.current(changes, key, range_end):
            if record is None:
                yield
            else:
                records.append(record)
        for number, record in enumerate(records, 1):
            kv = scan.parse(record)
            self._remove(changes, kv.key, kv.lease, record)
            if not number % scan.SLICE_WRITES:
                yield
        return records

    def finish(self) -> int:
        """End a request; returns the revision the store stands at now."""
        if self._sub:
            self._sub = 0
            self.revision += 1
        return self.revision

    def save(self, changes: Changes) -> None:
        """Store the numbers: after the last request of a slice."""
        changes.put(STATE, pack_state(self.revision, self.compacted, self.live, self.indexed))

    def take_changes(self) -> list[ChangeFields]:
        """Hand over what happened since the last call."""
        taken = self.changes
        self.changes = []
        return taken

    def _read(self, changes: Changes, key: bytes) -> Known | None:
        record = changes.get(CURRENT + key)
        if record is None:
            return None
        kv = KeyValue.FromString(record)
        return record, kv.create_revision, kv.version, kv.lease

    def _remove(self, changes: Changes, key: bytes, lease: int, old: bytes) -> None:
        if lease:
            self._attachments.detach(changes, key, lease)
        self.live -= 1
        self.range_counts.note(self.revision + 1, key, -1)
        changes.delete(CURRENT + key)
        self._recent.discard(key)
        self._note(changes, key, None, old, DELETED + key, TOMBSTONE)

    def _move(self, changes: Changes, key: bytes, attached: int, lease: int) -> None:
        if attached:
            self._attachments.detach(changes, key, attached)
        if lease:
            self._attachments.attach(changes, key, lease)

    def _note(
        self, changes: Changes, key: bytes, record: bytes | None, old: bytes | None, entry: bytes, kind: bytes
    ) -> None:
        """Write one change into the history and the index, and keep it for the watchers."""
        main = self.revision + 1
        revision_key = revision.pack(main, self._sub)
        changes.put(HISTORY + revision_key, entry)
        changes.put(index_key(key) + revision_key, kind)
        self.indexed += 1
        if self._sub:
            # A transaction can put a key and delete it in one revision; what was before is the same for both.
            if self._originals_of != main:
                self._originals_of = main
                self._originals = {change[0]: change[3] for change in self.changes[-self._sub :]}
            old = self._originals.setdefault(key, old)
        self._sub += 1
        self.changes.append((key, main, record, old))
