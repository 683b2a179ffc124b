"""A state database of keys made from their history alone, as it lies in a backup or in a file of etcd.

Everything else about keys follows from it: what each key is now, at which revisions it changed, and which
keys hang on which lease. It is made in two steps, so that it comes out in order of keys without all of it
being in memory: `Spread` takes the history as it comes and says of each change which key it is of; then
`KeyRange` takes the changes of the keys of one range, and has them in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from connect_kv.etcd_files import records
from connect_kv.kv import layout, revision, scan
from connect_kv.kv.layout import CURRENT, DELETED, HISTORY, PUT, TOMBSTONE, StoreState, index_key
from connect_kv.kv.scan import Walk
from connect_kv.rpc.kv_pb2 import KeyValue
from connect_kv.storage.engine import Reader

Change = tuple[bytes, bytes, bytes | None, int]
"""Of one key: (the key, place and kind, its record or None if it was deleted, its lease)."""

_SEPARATOR_AND_SUB = b"_\0\0\0\0"
"""After the main part of a place in etcd's database: no transaction has 2^32 changes."""
_PLACE_BYTES, _DELETION_BYTES = 17, 18
_SUB = 13
_MARK = revision.SIZE + 1
"""Bytes of a place with its kind."""


class Spread:
    """Takes the history in etcd's form, in order."""

    def __init__(self) -> None:
        self.history: list[tuple[bytes, bytes]] = []
        """What belongs into HISTORY, in order; who takes it empties it."""
        self.changes: list[Change] = []
        """Of which keys; who takes it empties it."""
        self.size = 0
        """Bytes of records in `changes`; who takes it sets it to 0."""
        self.last = 0
        """The revision that was reached."""
        self._parse = KeyValue.FromString
        self._before = b""

    def leaf(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Take some: the inner loop of every import. Raises ValueError, DecodeError if it is no history."""
        parse, before, history, changes = self._parse, self._before, self.history, self.changes
        main, size = self.last, 0
        for key, record in pairs:
            place = key[:8] + key[_SUB:_PLACE_BYTES]
            main = int.from_bytes(key[:8])
            if len(key) != _PLACE_BYTES or key[8:_SUB] != _SEPARATOR_AND_SUB or place <= before:
                if not self._is_deletion(key, record, place, before):
                    continue
                deleted = parse(record).key
                if not deleted:
                    raise ValueError(f"the deletion at {_named(place)} names no key")
                history.append((HISTORY + place, DELETED + deleted))
                changes.append((deleted, place + TOMBSTONE, None, 0))
            elif record:
                kv = parse(record)
                if (
                    kv.mod_revision != main
                    or kv.version < 1
                    or not 0 < kv.create_revision <= main
                    or record[0] != 0x0A
                ):
                    raise ValueError(f"the change at {_named(place)} is no key and value of that revision")
                history.append((HISTORY + place, record))
                changes.append((kv.key, place + PUT, record, kv.lease))
            else:  # it only stands for its revision: a restore that raised it left it there
                records.read_place(key)
            before = place
            size += len(record)
        self._before, self.last = before, main
        self.size += size

    @staticmethod
    def _is_deletion(key: bytes, record: bytes, place: bytes, before: bytes) -> bool:
        _, _, deleted = records.read_place(key)
        if place <= before:
            raise ValueError(f"the change at {_named(place)} does not come after those before it")
        return deleted


def _named(place: bytes) -> str:
    return "{}.{}".format(*revision.unpack(place))


@dataclass(slots=True)
class KeyRange:
    """The keys of one range, from their changes, which come in order of revisions."""

    _places: dict[bytes, bytes | bytearray] = field(default_factory=dict)
    """Places and kinds of each key's changes, one after the other: a key may have very many."""
    _current: dict[bytes, bytes | None] = field(default_factory=dict)
    _leases: dict[bytes, int] = field(default_factory=dict)

    def add(self, changes: Iterable[Change]) -> None:
        """Take some."""
        places, current, leases = self._places, self._current, self._leases
        for key, place, record, lease in changes:
            if key in current:
                known = places[key]
                if isinstance(known, bytes):
                    places[key] = known = bytearray(known)
                known += place
            else:
                places[key] = place
            current[key] = record
            if lease:
                leases[key] = lease
            elif leases:
                leases.pop(key, None)

    def sort(self) -> None:
        """Bring the keys into order: before `current` and `index`."""
        self._places = {key: self._places[key] for key in sorted(self._places)}

    @property
    def live(self) -> int:
        """How many keys exist at the last revision."""
        return len(self._current) - sum(record is None for record in self._current.values())

    @property
    def indexed(self) -> int:
        """Changes."""
        return sum(map(len, self._places.values())) // _MARK

    def current(self) -> Iterator[tuple[bytes, bytes]]:
        """What belongs into CURRENT, in order."""
        current = self._current
        for key in self._places:
            record = current[key]
            if record is not None:
                yield CURRENT + key, record

    def index(self) -> Iterator[tuple[bytes, bytes]]:
        """What belongs into INDEX, in order."""
        for key, places in self._places.items():
            name = index_key(key)
            for at in range(0, len(places), _MARK):
                end = at + _MARK
                yield name + places[at : end - 1], bytes(places[end - 1 : end])

    def attachments(self) -> list[bytes]:
        """Entries of LEASE_KEYS, in no order."""
        return [layout.lease_keys_prefix(lease) + key for key, lease in self._leases.items()]


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
