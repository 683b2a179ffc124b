"""MvccStore: the writing half of the key/value store. Every change is kept under its revision.

It holds four numbers, and those of each key that was written lately; everything else is read from the state
database.
The numbers run ahead of what readers can see, by the slice that is being applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from connect_kv.kv import revision, scan, wire
from connect_kv.kv.key_numbers import ABSENT, KeyNumbers, created_and_version, numbers
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
from connect_kv.kv.scan import Walk
from connect_kv.rpc.kv_pb2 import KeyValue

ChangeFields = tuple[bytes, int, bytes | None, bytes | None]
"""The arguments of a WatchedChange; the object is only made once somebody watches."""

UNREAD = b""
"""As the record of before: there was one, and nobody has read it yet."""


class WatchedChange:
    """One change of one key, on its way to the watchers. Encoded once, however many they are."""

    __slots__ = ("_wire", "_wire_with_previous", "key", "previous", "record", "revision")

    def __init__(self, key: bytes, revision: int, record: bytes | None, previous: bytes | None) -> None:
        self.key = key
        self.revision = revision
        self.record = record
        """The new KeyValue; None for a deletion."""
        self.previous = previous
        """The KeyValue before this revision; None if there was none, or UNREAD."""
        self._wire: bytes | None = None
        self._wire_with_previous: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes, roughly, without the previous value."""
        return len(self.key) + 64 if self.record is None else len(self.record) + 64

    def encoded(self, *, prev_kv: bool) -> bytes:
        """As an event of a WatchResponse."""
        if prev_kv and self.previous:
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


class Audience(Protocol):
    """Who is told of changes (`watch.WatchHub`)."""

    prev_kv_watches: int
    """How many watches want to know what was before."""


class Nobody:
    """An audience of none."""

    prev_kv_watches = 0


class MvccStore:
    """Writes of one request at a time: any number of `put` and `delete`, then `finish`.

    All changes between two calls of `finish` share one revision, `writing`.
    """

    __slots__ = (
        "_attachments",
        "_audience",
        "_numbers",
        "_originals",
        "_originals_of",
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

    def __init__(
        self, attachments: Attachments, audience: Audience | None = None, known: KeyNumbers | None = None
    ) -> None:
        self._attachments = attachments
        self._audience = audience or Nobody()
        self._originals: dict[bytes, bytes | None] = {}
        """Of the keys that the request at hand has changed, once it changes more than one at a time."""
        self._originals_of = 0
        """The revision whose request `_originals` belongs to."""
        self._numbers = known or KeyNumbers()
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
        self._numbers.clear()
        self._numbers.complete = state == StoreState()  # nothing was ever written
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
        return changes.get(CURRENT + key)

    def put(
        self, changes: Changes, key: bytes, value: bytes | None, lease: int | None, *, previous: bool = False
    ) -> bytes | None:
        """Set `key`; None keeps the value or lease it has. With `previous`, its record of before."""
        self.puts += 1
        main = self.revision + 1
        known, old = self._numbers.get(key), None
        if known is None:
            known, old = self._learn(changes, key)
        if known:
            created, version = created_and_version(known)
            attached, told = self._numbers.leases.get(key, 0), old or UNREAD
            if not told and (previous or value is None or self._audience.prev_kv_watches):
                told = changes.get(CURRENT + key) or UNREAD
            if value is None:
                value = KeyValue.FromString(told).value
        else:
            created, version, attached, told = main, 0, 0, None
            self.live += 1
            self.range_counts.note(main, key, 1)
        if lease is None:
            lease = attached
        if lease != attached:
            self._move(changes, key, attached, lease)
        version += 1
        self._numbers.set(key, numbers(created, version))
        record = self._records.encode(key, created, main, version, lease, value or b"")
        changes.put(CURRENT + key, record)
        self._note(changes, key, record, told, record, PUT)
        return told

    def put_all(self, changes: Changes, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """`put` of each in turn, with no lease, at a third of its cost: they share what they have in common.

        Each key once, and none that the request at hand has changed before.
        """
        self.puts += len(pairs)
        main = self.revision + 1
        get, keep, leases = self._numbers.get, self._numbers.set, self._numbers.leases
        key_head, value_head, pack, join = wire.key_head, wire.value_head, revision.pack, b"".join
        prev_kv = self._audience.prev_kv_watches
        encoded, encoded_for, first = b"", -1, numbers(main, 1)
        current: dict[bytes, bytes] = {}
        history: dict[bytes, bytes] = {}
        index: dict[bytes, bytes] = {}
        created_keys: list[bytes] = []
        noted: list[ChangeFields] = []
        for sub, (key, value) in enumerate(pairs, self._sub):
            known = get(key)
            old: bytes | None = UNREAD
            if known is None:
                known, old = self._learn(changes, key)
            if known:
                known += 1
                if prev_kv and not old:
                    old = changes.get(CURRENT + key)
                if leases and (attached := leases.get(key)):
                    self._move(changes, key, attached, 0)
            else:
                known, old = first, None
                created_keys.append(key)
            keep(key, known)
            if encoded_for != known:
                encoded_for = known
                created, version = created_and_version(known)
                encoded = self._records.numbers(created, main, version, 0)
            record = join((key_head(len(key)), key, encoded, value_head(len(value)), value))
            revision_key = pack(main, sub)
            current[CURRENT + key] = history[HISTORY + revision_key] = record
            index[index_key(key) + revision_key] = PUT
            noted.append((key, main, record, old))
        self.changes += noted
        for space in (current, history, index):  # in order: they are sorted before they are written
            changes.put_all(space)
        self._sub += len(pairs)
        self.indexed += len(pairs)
        self.live += len(created_keys)
        self.range_counts.note_created(main, created_keys)

    def delete(self, changes: Changes, key: bytes) -> bytes | None:
        """Remove `key` and return its record of before, or None if there was none."""
        self.deletes += 1
        record = changes.get(CURRENT + key)
        if record is None:
            return None
        self._remove(changes, key, scan.parse(record).lease, record)
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

    def _learn(self, changes: Changes, key: bytes) -> tuple[int, bytes | None]:
        """The numbers of a key that are not known, and its record, from which they come."""
        record = changes.get(CURRENT + key)
        if record is None:
            return ABSENT, None
        kv = KeyValue.FromString(record)
        if kv.lease:
            self._numbers.leases[key] = kv.lease
        return numbers(kv.create_revision, kv.version), record

    def _remove(self, changes: Changes, key: bytes, lease: int, old: bytes) -> None:
        if lease:
            self._attachments.detach(changes, key, lease)
            self._numbers.leases.pop(key, None)
        self.live -= 1
        self.range_counts.note(self.revision + 1, key, -1)
        changes.delete(CURRENT + key)
        self._numbers.set(key, ABSENT)
        self._note(changes, key, None, old, DELETED + key, TOMBSTONE)

    def _move(self, changes: Changes, key: bytes, attached: int, lease: int) -> None:
        if attached:
            self._attachments.detach(changes, key, attached)
            self._numbers.leases.pop(key, None)
        if lease:
            self._attachments.attach(changes, key, lease)
            self._numbers.leases[key] = lease

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
