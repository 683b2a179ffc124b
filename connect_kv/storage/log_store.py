"""The Raft log, hard state and all that must survive beside them: one database, ``log/``.

Every batch that carries a promise is synced; an unsynced one may vanish although a later synced
one survives, so only hints go unsynced. Entries lie under (generation, index). Where the log starts
is a record, so that what was deleted before it is never scanned; an installed snapshot starts a new
generation, which empties the log in one small batch however long it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from connect_kv.errors import CorruptStorage
from connect_kv.interfaces import Identity
from connect_kv.raft.ready import Ready
from connect_kv.raft.types import (
    ZERO,
    Entry,
    EntryId,
    EntryKind,
    HardState,
    Membership,
    Restored,
    SnapshotMeta,
)
from connect_kv.storage import codec
from connect_kv.storage.codec import Base, DiscardedRun
from connect_kv.storage.engine import Disk, Engine
from connect_kv.storage.log_checks import Memberships, Starts, check_records, check_terms
from connect_kv.storage.log_sweeper import Background, Changes, Sweeper

WRITE_BUFFER = 64 << 20
"""LevelDB has one background thread for all databases: the log must seldom wait for it."""


class EngineLogStore:
    """The `LogStore` over an Engine. Its writing methods are called by one thread at a time."""

    def __init__(
        self, engine: Engine, *, window_entries: int, window_bytes: int, background: Background | None = None
    ) -> None:
        """Use `open`."""
        self._engine = engine
        self._sweeper = Sweeper(engine, background)
        self._window = window_entries, window_bytes
        self._identity: Identity | None = None
        self._confirmed = False
        self._directories: dict[int, bytes] = {}
        self._hard_state = HardState()
        self._base = Base(ZERO, 0)
        self._last_index = 0
        self._starts: Starts = []
        self._memberships: Memberships = [(0, Membership())]
        self._state = ("", 0)
        self._entry_bytes = 0
        self._rewrites = 0
        if (version := engine.get(codec.LOG_FORMAT)) is not None:
            codec.check_format(engine.path, version)
            with self._damage():
                self._read()
        elif next(engine.iterate(b"", None), None) is not None:
            raise self._corrupt("its format version is missing")

    @classmethod
    def open(
        cls,
        disk: Disk,
        data_dir: Path,
        *,
        window_entries: int = 1024,
        window_bytes: int = 4 << 20,
        background: Background | None = None,
    ) -> EngineLogStore:
        """Open ``data_dir/log``, or create it. The windows bound `Restored.recent`: entries before
        them are read once a follower needs them, and do not hold up the start.

        `background` runs what it is given on another thread, in time, and before `close`; that is how
        space is given back without holding up writes (0.1 s now and then). None: at once.

        Raises StorageInUse, CorruptStorage, and RefusedToStart for a newer format.
        """
        engine = disk.open(data_dir / "log", write_buffer=WRITE_BUFFER)
        try:
            return cls(
                engine, window_entries=window_entries, window_bytes=window_bytes, background=background
            )
        except BaseException:
            engine.close()
            raise

    @property
    def engine(self) -> Engine:
        """The database under it, for metrics of its size."""
        return self._engine

    @property
    def identity(self) -> Identity | None:
        """None in a new directory."""
        return self._identity

    @property
    def confirmed(self) -> bool:
        """Whether a majority has noted this directory."""
        return self._confirmed

    @property
    def durable_index(self) -> int:
        """Up to where the current state database is known to be on disk."""
        return self._state[1]

    @property
    def state_name(self) -> str:
        """The current state database's directory name; empty before `bootstrap`."""
        return self._state[0]

    @property
    def membership(self) -> Membership:
        """The last membership in the log, committed or not."""
        return self._memberships[-1][1]

    @property
    def first_index(self) -> int:
        """Index of the first entry the log holds, or will hold."""
        return self._base.compacted.index + 1

    @property
    def last_index(self) -> int:
        """Index of the last entry, or of the last compacted one."""
        return self._last_index

    def bootstrap(self, identity: Identity, membership: Membership, state_name: str) -> None:
        """Make a new directory this member's: an empty log under `membership`. Synced."""
        if self._identity is not None:
            raise ValueError("this directory belongs to a member already")
        self._write(
            {
                codec.LOG_FORMAT: codec.u64(codec.FORMAT_VERSION),
                codec.LOG_IDENTITY: codec.encode_identity(identity),
                codec.LOG_HARD_STATE: codec.encode_hard_state(HardState()),
                codec.LOG_BASE: self._base.encode(),
                codec.LOG_STATE: codec.encode_state(state_name, 0),
                codec.membership_key(0): membership.encode(),
            }
        )
        self._identity = identity
        self._memberships = [(0, membership)]
        self._state = (state_name, 0)

    def confirm(self) -> None:
        """Record that a majority has noted this directory. Synced."""
        self._write({codec.LOG_CONFIRMED: b"\x01"})
        self._confirmed = True

    def noted_directory(self, node_id: int) -> bytes | None:
        """The directory id under which that member first said hello here."""
        return self._directories.get(node_id)

    def note_directory(self, node_id: int, directory_id: bytes) -> None:
        """Record, synced, under which directory id that member said hello."""
        self._write({codec.directory_key(node_id): directory_id})
        self._directories[node_id] = directory_id

    def load(self) -> Restored:
        """What is on disk; of the entries, only the recent ones are read.

        `last_applied` is what the log store knows, the durable index: put the state database's own
        in its place. Raises CorruptStorage if it does not fit together.
        """
        with self._damage():
            recent = self._recent()
            last = recent[-1].id if recent else self._base.compacted
            check_terms(recent, self._starts, self._hard_state.term)
        return Restored(
            hard_state=self._hard_state,
            compacted=self._base.compacted,
            last=last,
            memberships=tuple(self._memberships),
            term_starts=tuple(self._starts),
            recent=recent,
            log_bytes=self._entry_bytes,
            last_applied=self.durable_index,
            needs_snapshot=self.durable_index < self._base.compacted.index,
        )

    def save(self, readies: Sequence[Ready]) -> None:
        """Store hard states and entries of all of them as one batch, synced if any asks for it."""
        changes: Changes = {}
        starts, memberships, last = self._starts, self._memberships, self._last_index
        hard_state, size = self._hard_state, 0
        for ready in readies:
            if ready.hard_state is not None:
                hard_state = ready.hard_state
            if not ready.entries:
                continue
            first = ready.entries[0].index
            if not self._base.compacted.index < first <= last + 1:
                raise ValueError(f"entry {first} does not follow the log, which ends at {last}")
            if first <= last:
                self._rewrites += 1
                for index in range(first, last + 1):
                    changes[codec.entry_key(self._base.generation, index)] = None
                starts, memberships = _truncated(starts, memberships, first, changes)
            starts, memberships, added = self._append(ready.entries, starts, memberships, changes)
            last, size = ready.entries[-1].index, size + added
        if hard_state != self._hard_state:
            changes[codec.LOG_HARD_STATE] = codec.encode_hard_state(hard_state)
        if not changes:
            return
        deletion = self._sweeper.beside(len(changes))
        changes |= deletion.changes
        self._write(changes, sync=any(ready.must_sync for ready in readies))
        deletion.written()
        self._starts, self._memberships, self._last_index = starts, memberships, last
        self._hard_state = hard_state
        self._entry_bytes += size

    def entries(self, start: int, end: int, max_bytes: int) -> list[Entry]:
        """Entries of ``[start, end)``: the first, and more while they fit. Verifies checksums.

        Nothing if `start` has been compacted or is beyond the end. May run beside writes.
        """
        found: list[Entry] = []
        size = 0
        if start < self.first_index:
            return []
        with self._damage():
            for entry in self._scan(start, end):
                size += len(entry.data)
                if found and size > max_bytes:
                    break
                found.append(entry)
        return found

    def install(self, state_name: str, meta: SnapshotMeta) -> None:
        """Name `state_name`, durable up to `meta.last`, and empty the log after it: one synced batch."""
        base = Base(meta.last, self._base.generation + 1)
        changes: Changes = {codec.term_start_key(index): None for index, _ in self._starts}
        changes |= {codec.membership_key(index): None for index, _ in self._memberships}
        changes[codec.membership_key(meta.last.index)] = meta.membership.encode()
        changes[codec.LOG_BASE] = base.encode()
        changes[codec.LOG_STATE] = codec.encode_state(state_name, meta.last.index)
        garbage = self._sweeper.with_run(
            DiscardedRun(self._base.generation, self.first_index, self._last_index + 1), changes
        )
        self._rewrites += 1
        self._write(changes)
        self._sweeper.adopt(garbage, self._entry_bytes)
        self._base, self._last_index = base, meta.last.index
        self._starts, self._memberships = [], [(meta.last.index, meta.membership)]
        self._state = (state_name, meta.last.index)
        self._entry_bytes = 0
        self._sweeper.sweep()

    def set_durable(self, index: int) -> None:
        """Record that the current state database is on disk up to `index`. Synced; never goes back."""
        name, durable = self._state
        if index > durable:
            self._write({codec.LOG_STATE: codec.encode_state(name, index)})
            self._state = (name, index)

    def reset_state(self, state_name: str) -> None:
        """The state database was lost: an empty one, `state_name`, takes its place. Synced.

        Unless the log reaches back to index 1, `load` reports `needs_snapshot` from then on.
        """
        self._write({codec.LOG_STATE: codec.encode_state(state_name, 0)})
        self._state = (state_name, 0)

    def compact(self, compacted: EntryId, membership: Membership) -> None:
        """Forget entries up to `compacted`, never beyond the durable index, and give back their space.

        `membership` is the one in force at `compacted`. First, in one synced batch, the log starts
        later; then the entries are deleted, in slices, for which a crash in between does no harm. Very
        many are not all deleted by this call, but by the next ones and by saves.
        """
        index = compacted.index
        if index > self.durable_index:
            raise ValueError(f"entry {index} is needed: the state is durable up to {self.durable_index}")
        if not self._base.compacted.index < index <= self._last_index:
            return
        changes: Changes = {}
        starts = self._starts_after(compacted, changes)
        memberships: Memberships = [(index, membership)]
        for at, kept in self._memberships:
            if at > index:
                memberships.append((at, kept))
            else:
                changes[codec.membership_key(at)] = None
        changes[codec.membership_key(index)] = membership.encode()
        base = Base(compacted, self._base.generation)
        run = DiscardedRun(self._base.generation, self.first_index, index + 1)
        changes[codec.LOG_BASE] = base.encode()
        garbage = self._sweeper.with_run(run, changes)
        self._rewrites += 1
        self._write(changes)
        # About what these entries took: they are taken for average ones.
        size = self._entry_bytes * (run.end - run.start) // (self._last_index - run.start + 1)
        self._sweeper.adopt(garbage, size)
        self._entry_bytes -= size
        self._base, self._starts, self._memberships = base, starts, memberships
        self._sweeper.sweep()

    def close(self) -> None:
        """Close the database."""
        self._engine.close()

    # --- writing --------------------------------------------------------------------------------

    def _write(self, changes: Changes, *, sync: bool = True) -> None:
        self._engine.batch(changes).write(sync=sync)

    def _append(
        self, entries: Sequence[Entry], starts: Starts, memberships: Memberships, changes: Changes
    ) -> tuple[Starts, Memberships, int]:
        """Add entries to `changes`; returns term starts and memberships with theirs, and their bytes."""
        size, generation = 0, self._base.generation
        term = starts[-1][1] if starts else None
        for entry in entries:
            value = codec.encode_entry(entry)
            changes[codec.entry_key(generation, entry.index)] = value
            size += len(value)
            if entry.term != term:
                term = entry.term
                starts = [*starts, (entry.index, term)]
                changes[codec.term_start_key(entry.index)] = codec.u64(term)
            if entry.kind is EntryKind.MEMBERSHIP:
                memberships = [*memberships, (entry.index, Membership.decode(entry.data))]
                changes[codec.membership_key(entry.index)] = entry.data
        return starts, memberships, size

    def _starts_after(self, compacted: EntryId, changes: Changes) -> Starts:
        """Term starts of the log after `compacted`, the first of them its new first entry."""
        first = compacted.index + 1
        kept = [(index, term) for index, term in self._starts if index >= first]
        for index, _ in self._starts:
            if index < first:
                changes[codec.term_start_key(index)] = None
        if first <= self._last_index and (not kept or kept[0][0] > first):
            kept.insert(0, (first, compacted.term))
            changes[codec.term_start_key(first)] = codec.u64(compacted.term)
        return kept

    # --- reading --------------------------------------------------------------------------------

    def _read(self) -> None:
        """All records but the entries."""
        identity = self._engine.get(codec.LOG_IDENTITY)
        if identity is None:
            raise ValueError("the identity is missing")
        self._identity = codec.decode_identity(identity)
        self._confirmed = self._engine.get(codec.LOG_CONFIRMED) is not None
        self._hard_state = codec.decode_hard_state(self._required(codec.LOG_HARD_STATE, "hard state"))
        self._base = Base.decode(self._required(codec.LOG_BASE, "start of the log"))
        self._state = codec.decode_state(self._required(codec.LOG_STATE, "name of the state database"))
        self._starts = [
            (index, codec.decode_u64(value)) for index, value in self._table(codec.LOG_TERM_START)
        ]
        self._memberships = [
            (index, codec.decode_membership(index, value))
            for index, value in self._table(codec.LOG_MEMBERSHIP)
        ]
        self._directories = dict(self._table(codec.LOG_DIRECTORY))
        self._last_index = self._find_last()
        first, last = self._key(self.first_index), self._key(self._last_index + 1)
        self._entry_bytes = self._engine.approximate_size(first, last)
        self._sweeper.load(first)
        check_records(self.first_index, self._last_index, self._starts, self._memberships)
        if self._last_index >= self.first_index and self._engine.get(first) is None:
            raise ValueError(f"entry {self.first_index}, the first, is missing")

    def _key(self, index: int) -> bytes:
        return codec.entry_key(self._base.generation, index)

    def _required(self, key: bytes, what: str) -> bytes:
        value = self._engine.get(key)
        if value is None:
            raise ValueError(f"the {what} is missing")
        return value

    def _table(self, prefix: bytes) -> list[tuple[int, bytes]]:
        stop = bytes([prefix[0] + 1])
        return [(codec.decode_u64(key[1:]), value) for key, value in self._engine.iterate(prefix, stop)]

    def _find_last(self) -> int:
        stop = codec.entry_key(self._base.generation + 1, 0)
        newest = next(self._engine.iterate(self._key(self.first_index), stop, reverse=True), None)
        return self._base.compacted.index if newest is None else codec.decode_u64(newest[0][-8:])

    def _recent(self) -> tuple[Entry, ...]:
        """The end of the log, within the window; at least the last entry."""
        window_entries, window_bytes = self._window
        start, stop = self._key(self.first_index), self._key(self._last_index + 1)
        found: list[Entry] = []
        size, expected = 0, self._last_index
        for key, value in self._engine.iterate(start, stop, reverse=True):
            size += len(value)
            if found and (len(found) >= window_entries or size > window_bytes):
                break
            index = codec.decode_u64(key[-8:])
            if index != expected:
                raise ValueError(f"entry {expected} is missing")
            found.append(codec.decode_entry(index, value))
            expected -= 1
        return tuple(reversed(found))

    def _scan(self, start: int, end: int) -> Iterator[Entry]:
        rewrites, generation = self._rewrites, self._base.generation
        expected, end = start, min(end, self._last_index + 1)
        pairs = self._engine.iterate(codec.entry_key(generation, start), codec.entry_key(generation, end))
        for key, value in pairs:
            index = codec.decode_u64(key[-8:])
            if index != expected:
                break
            yield codec.decode_entry(index, value)
            expected += 1
        # Unless the log was truncated or compacted meanwhile, on another thread.
        if expected < end and rewrites == self._rewrites:
            raise ValueError(f"entry {expected} is missing")

    @contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise self._corrupt(str(error)) from error

    def _corrupt(self, reason: str) -> CorruptStorage:
        return CorruptStorage(str(self._engine.path), f"{reason}; see docs/operations.md")


def _truncated(
    starts: Starts, memberships: Memberships, first: int, changes: Changes
) -> tuple[Starts, Memberships]:
    """Without what entries at or after `first` brought, which are gone (thesis 4.1)."""
    for index, _ in starts:
        if index >= first:
            changes[codec.term_start_key(index)] = None
    for index, _ in memberships:
        if index >= first:
            changes[codec.membership_key(index)] = None
    return [kept for kept in starts if kept[0] < first], [kept for kept in memberships if kept[0] < first]
