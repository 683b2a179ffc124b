"""A node's log and state with a witness beside them: what is written and applied is told to a ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Protocol

from connect_kv.interfaces import Identity, LogStore, ReplicatedState, SnapshotSource
from connect_kv.raft.ready import Ready
from connect_kv.raft.types import Entry, EntryId, Membership, Restored, SnapshotMeta


class Witness(Protocol):
    """Who is told, at the moment it happens."""

    def opened(self, restored: Restored) -> None:
        """The log was found so on disk."""

    def saving(self) -> None:
        """A write begins; if nothing more is said, nobody knows how it ended."""

    def saved(self, readies: Sequence[Ready]) -> None:
        """All of these are stored; durably if any must be."""

    def installed(self, meta: SnapshotMeta) -> None:
        """A snapshot took the place of the log up to there, durably."""

    def compacted(self, compacted: EntryId) -> None:
        """The log before is gone, or will be."""

    def applied(self, entries: Sequence[Entry], results: Sequence[Sequence[bytes]]) -> None:
        """These entries had these results, encoded."""

    def made_durable(self, index: int) -> None:
        """Without the log, the state can be rebuilt up to there."""


class ObservedLog:
    """A LogStore that tells a witness."""

    def __init__(self, inner: LogStore, witness: Witness) -> None:
        self._inner = inner
        self._witness = witness
        if inner.identity is not None:
            witness.opened(inner.load())

    @property
    def identity(self) -> Identity | None:
        """The member that the log belongs to."""
        return self._inner.identity

    def bootstrap(self, identity: Identity, membership: Membership, state_name: str) -> None:
        """Make a new directory this member's."""
        self._inner.bootstrap(identity, membership, state_name)

    @property
    def confirmed(self) -> bool:
        """Whether it may vote."""
        return self._inner.confirmed

    def confirm(self) -> None:
        """Record that this member may vote."""
        self._inner.confirm()

    def noted_directory(self, node_id: int) -> bytes | None:
        """Whose directory is known."""
        return self._inner.noted_directory(node_id)

    def note_directory(self, node_id: int, directory_id: bytes) -> None:
        """Note the directory id of a member."""
        self._inner.note_directory(node_id, directory_id)

    def load(self) -> Restored:
        """What is on disk."""
        return self._inner.load()

    def save(self, readies: Sequence[Ready]) -> None:
        """Store, and tell."""
        self._witness.saving()
        self._inner.save(readies)
        self._witness.saved(readies)

    def entries(self, start: int, end: int, max_bytes: int) -> list[Entry]:
        """Read."""
        return self._inner.entries(start, end, max_bytes)

    def install(self, state_name: str, meta: SnapshotMeta) -> None:
        """Install, and tell."""
        self._witness.saving()
        self._inner.install(state_name, meta)
        self._witness.installed(meta)

    def set_durable(self, index: int) -> None:
        """Record up to where the state is durable."""
        self._inner.set_durable(index)

    def compact(self, compacted: EntryId, membership: Membership) -> None:
        """Compact, and tell."""
        self._witness.compacted(compacted)
        self._inner.compact(compacted, membership)

    @property
    def durable_index(self) -> int:
        """Up to where the state is on disk."""
        return self._inner.durable_index

    @property
    def state_name(self) -> str:
        """Of the current state database."""
        return self._inner.state_name

    def close(self) -> None:
        """Close the log."""
        self._inner.close()


class ObservedState:
    """A ReplicatedState that tells a witness."""

    def __init__(self, inner: ReplicatedState[bytes], witness: Witness) -> None:
        self._inner = inner
        self._witness = witness

    @property
    def last_applied(self) -> int:
        """The last index reads can see."""
        return self._inner.last_applied

    def elapsed(self, members: Iterable[int]) -> int | None:
        """What was measured."""
        return self._inner.elapsed(members)

    async def apply(self, entries: Sequence[Entry]) -> list[Sequence[bytes]]:
        """Apply, and tell."""
        results = await self._inner.apply(entries)
        self._witness.applied(entries, results)
        return results

    async def make_durable(self) -> int:
        """Force it to disk, and tell."""
        index = await self._inner.make_durable()
        self._witness.made_durable(index)
        return index

    async def snapshot(self) -> SnapshotSource:
        """Freeze the state, to be read as it is now."""
        return await self._inner.snapshot()

    async def stage(self, meta: SnapshotMeta, chunks: AsyncIterator[bytes]) -> str:
        """Fill a new database."""
        return await self._inner.stage(meta, chunks)

    async def switch(self, state_name: str) -> None:
        """Use the state that was staged from now on."""
        await self._inner.switch(state_name)

    async def close(self) -> None:
        """End."""
        await self._inner.close()
