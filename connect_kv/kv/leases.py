"""LeaseTable: which leases there are, when they were renewed, and which keys hang on them.

Replicated state: every member holds the same table and no clock. Time passes in the `lessor`, which
is told here what was granted, renewed and ended.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from connect_kv.errors import CorruptStorage
from connect_kv.kv import layout
from connect_kv.kv.layout import Changes
from connect_kv.kv.moment import Moment
from connect_kv.kv.scan import SLICE_RECORDS, Walk
from connect_kv.storage.engine import Reader

MINIMUM_TTL = 2
"""Seconds; less is raised to it. A constant of the format: members must not differ in it."""
MAXIMUM_TTL = 9_000_000_000
"""Seconds; more is refused."""

_LEASE = struct.Struct(">qQq")
_MASK = (1 << 63) - 1


@dataclass(slots=True)
class GrantedLease:
    """One lease as of the last applied entry."""

    ttl: int
    """Seconds, as granted."""
    renewal: int
    """Log index of the grant or of the last renewal."""
    renewed_at: int
    """`Moment.now` of that entry, nanoseconds."""

    def encode(self) -> bytes:
        """The stored record."""
        return _LEASE.pack(self.ttl, self.renewal, self.renewed_at)

    @classmethod
    def decode(cls, record: bytes) -> GrantedLease:
        """The lease that a stored record holds."""
        return cls(*_LEASE.unpack(record))


class LeaseListener(Protocol):
    """Who wants to know about changes of the table. Called on the loop, once they are visible."""

    def loaded(self) -> None:
        """The whole table was replaced."""

    def touched(self, leases: Iterable[int]) -> None:
        """These were granted, renewed or ended."""


class LeaseTable:
    """All leases in memory (they are few beside keys), mirrored in the state database."""

    def __init__(self) -> None:
        self._leases: dict[int, GrantedLease] = {}
        self._touched: set[int] = set()
        self._listeners: list[LeaseListener] = []
        self.granted = self.renewed = self.ended = 0
        """Since this process started, by any member's clients."""
        self._loaded_at = Moment()

    def __len__(self) -> int:
        return len(self._leases)

    def __iter__(self) -> Iterator[int]:
        return iter(self._leases)

    def get(self, lease: int) -> GrantedLease | None:
        """The lease with that id, if there is one."""
        return self._leases.get(lease)

    def by_expiry(self) -> list[int]:
        """All ids, those that were to end first at the front."""
        second = 1_000_000_000
        return sorted(
            self._leases, key=lambda id: self._leases[id].renewed_at + self._leases[id].ttl * second
        )

    def listen(self, listener: LeaseListener) -> None:
        """Tell it about everything from now on."""
        self._listeners.append(listener)
        listener.loaded()

    def used(self, lease: GrantedLease) -> float:
        """Seconds of its time that had certainly passed when the table was loaded.

        What was not measured, before there was an entry that says so, is not believed: a wall clock may have
        stepped.
        """
        at = self._loaded_at
        if not at.elapsed:
            return 0.0
        return max(0, at.elapsed - max(lease.renewed_at, at.since)) / 1e9

    def load(self, reader: Reader, at: Moment) -> None:
        """Read the table of a database whose last entry was applied at that moment. Raises CorruptStorage."""
        try:
            self._leases = {
                layout.lease_of(key): GrantedLease.decode(record)
                for key, record in reader.iterate(layout.LEASES, layout.LEASE_KEYS)
            }
        except struct.error as error:
            raise CorruptStorage("state", f"table of leases: {error}") from error
        self._touched.clear()
        self._loaded_at = at
        for listener in self._listeners:
            listener.loaded()

    def published(self) -> None:
        """What was applied is visible now: tell the listeners."""
        if self._touched:
            touched, self._touched = self._touched, set()
            for listener in self._listeners:
                listener.touched(touched)

    def choose_id(self, index: int, at: Moment) -> int:
        """An unused positive id, the same on every member."""
        lease = at.scattered(index)
        while lease == 0 or lease in self._leases:
            lease = (lease + 1) & _MASK
        return lease

    def grant(self, changes: Changes, lease: int, ttl: int, index: int, now: int) -> int:
        """Add a lease with an unused id; returns the TTL it really has."""
        ttl = max(ttl, MINIMUM_TTL)
        self._leases[lease] = GrantedLease(ttl, index, now)
        self.granted += 1
        self._store(changes, lease)
        return ttl

    def renew(self, changes: Changes, lease: int, index: int, now: int) -> int:
        """Start its time anew; returns its TTL, or 0 if there is no such lease."""
        held = self._leases.get(lease)
        if held is None:
            return 0
        self.renewed += 1
        held.renewal = index
        held.renewed_at = now
        self._store(changes, lease)
        return held.ttl

    def outlived(self, lease: int, renewal: int) -> bool:
        """Whether it may end: nothing newer than the renewal that the timer saw was applied."""
        held = self._leases.get(lease)
        return held is not None and held.renewal <= renewal

    def remove(self, changes: Changes, lease: int) -> None:
        """Forget it; its keys are gone already."""
        del self._leases[lease]
        self.ended += 1
        changes.delete(layout.lease_key(lease))
        self._touched.add(lease)

    def attach(self, changes: Changes, key: bytes, lease: int) -> None:
        """`key` lives no longer than `lease`."""
        changes.put(layout.lease_keys_prefix(lease) + key, b"")

    def detach(self, changes: Changes, key: bytes, lease: int) -> None:
        """It does not depend on it any more."""
        changes.delete(layout.lease_keys_prefix(lease) + key)

    def keys(self, reader: Reader, lease: int) -> Walk[list[bytes]]:
        """The keys attached to it, in order."""
        prefix = layout.lease_keys_prefix(lease)
        stop = layout.lease_keys_stop(lease)
        keys = []
        for number, (entry, _) in enumerate(reader.iterate(prefix, stop), 1):
            keys.append(entry[len(prefix) :])
            if not number % SLICE_RECORDS:
                yield
        return keys

    def _store(self, changes: Changes, lease: int) -> None:
        changes.put(layout.lease_key(lease), self._leases[lease].encode())
        self._touched.add(lease)
