"""State databases, ``state/<n>``: which there are, and whether one that is opened is whole.

Batches here are not synced. After a power failure LevelDB may have lost the end of an older
write-ahead log and kept a newer one: a hole that `last_applied` alone does not show. What came after
it is given up when the database is opened: the state is then that of an earlier moment, and the log
has the rest. Were the whole state given up instead, a power failure of all members could take what
only their states still held.

To be sure, every batch leaves a link, a record under its own number, and at open the numbers must be
unbroken from the *floor*, the last batch known to be on disk, to the newest. Links up to the floor are
removed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex

from connect_kv.errors import CorruptStorage
from connect_kv.storage import codec
from connect_kv.storage.engine import Disk, Engine, WriteBatch

WRITE_BUFFER = 32 << 20
"""With 8 MiB, LevelDB rewrote its tables so often that a put cost 9 us more (measured)."""
_COPY = "copy-"
"""How the names of copies begin, which are of no use after a start."""
LINKS_REMOVED = 64
"""Old links one batch removes at most: their removal is spread, as their writing was."""


class BrokenChain(CorruptStorage):
    """A state database lost batches in its middle or its end, as after a power failure.

    It cannot be used. The log is not concerned: rebuild the state from it, or from the leader.
    """


class StateDirs:
    """The directory ``state/`` of one data directory."""

    def __init__(self, disk: Disk, data_dir: Path) -> None:
        self._disk = disk
        self._path = data_dir / "state"

    def names(self) -> list[str]:
        """The databases there are, oldest first."""
        return sorted((name for name in self._disk.list(self._path) if name.isdecimal()), key=int)

    def next_name(self, current: str) -> str:
        """A name that no database here has, or had since `current` was made."""
        return str(max(int(name) for name in (*self.names(), current or "0")) + 1)

    def create(self, name: str) -> StateDatabase:
        """A new, empty one, on disk on return. What an attempt before left under that name is deleted."""
        path = self._path / name
        self._disk.remove(path)
        engine = self._disk.open(path, write_buffer=WRITE_BUFFER)
        changes = {
            codec.STATE_FORMAT: codec.u64(codec.FORMAT_VERSION),
            codec.STATE_APPLIED: codec.pair(0, 0),
            codec.STATE_FLOOR: codec.u64(0),
        }
        engine.batch(changes).write(sync=True)
        engine.sync()
        return StateDatabase(engine)

    def create_first(self, name: str) -> StateDatabase:
        """The first one of a directory whose log is new.

        An attempt to begin, which was interrupted, may have left an empty one. If there is one that
        holds anything, the directory is not new but has lost its log: raises CorruptStorage, and
        nothing is deleted.
        """
        for other in self.names():
            if self._applied(other):
                log = self._path.parent / "log"
                raise CorruptStorage(
                    str(log),
                    f"is missing or empty, but {self._path / other} holds a state; see docs/operations.md",
                )
        return self.create(name)

    def open(self, name: str, durable_index: int) -> StateDatabase:
        """Open the current one, known to be on disk up to `durable_index`.

        Raises BrokenChain if batches are missing; CorruptStorage for damage, also when it is not there.
        """
        engine = self._disk.open(self._path / name, write_buffer=WRITE_BUFFER, must_exist=True, in_order=True)
        try:
            database = StateDatabase(engine)
            if database.last_applied < durable_index:
                raise BrokenChain(
                    str(engine.path),
                    f"stands at {database.last_applied} and is known to have been on disk up to"
                    f" {durable_index}; see docs/operations.md",
                )
        except BaseException:
            engine.close()
            raise
        return database

    def _applied(self, name: str) -> int:
        engine = self._disk.open(self._path / name)
        try:
            applied = engine.get(codec.STATE_APPLIED)
            return 0 if applied is None else codec.decode_pair(applied)[0]
        except ValueError as error:
            raise CorruptStorage(str(engine.path), f"{error}; see docs/operations.md") from error
        finally:
            engine.close()

    def new_copy(self) -> Path:
        """Where a copy of a database may be made (`Engine.copy`)."""
        return self._path / f"{_COPY}{token_hex(8)}"

    def discard_others(self, name: str) -> None:
        """Delete all but the current one: attempts that were not finished, what it replaced, and copies."""
        copies = [one for one in self._disk.list(self._path) if one.startswith(_COPY)]
        for other in (*self.names(), *copies):
            if other != name:
                self._disk.remove(self._path / other)

    def discard_copy(self, path: Path) -> None:
        """Delete a copy, whatever there is of it."""
        self._disk.remove(path)


class StateDatabase:
    """One open state database. Batches are prepared, and then written, in the same order.

    After a batch was prepared and not written, or not successfully, no other may be.
    """

    def __init__(self, engine: Engine) -> None:
        """Use `StateDirs`. Checks format and chain."""
        self.engine = engine
        version = engine.get(codec.STATE_FORMAT)
        applied = engine.get(codec.STATE_APPLIED)
        floor = engine.get(codec.STATE_FLOOR)
        if version is None or applied is None or floor is None:
            raise CorruptStorage(str(engine.path), "its own records are missing; see docs/operations.md")
        codec.check_format(engine.path, version)
        try:
            self._written = codec.decode_pair(applied)
            self._floor = codec.decode_u64(floor)
            self._links = self._read_chain()
        except ValueError as error:
            raise CorruptStorage(str(engine.path), f"{error}; see docs/operations.md") from error
        self._prepared = self._written
        self._stored_floor = self._floor

    @property
    def last_applied(self) -> int:
        """The index of the last batch written: what reads can see."""
        return self._written[0]

    def prepare(
        self, changes: Mapping[bytes, bytes | None], last_applied: int, begun: WriteBatch | None = None
    ) -> WriteBatch:
        """A batch that brings the state to `last_applied` (which may be where it is), with its link.

        Write it unsynced. Per-key work is done on return, on the calling thread. One that is large can be
        `begun` before, in pieces, as a batch of the engine; it must be written, or the chain has a gap.
        """
        if last_applied < self._prepared[0]:
            raise ValueError(f"the state stands at {self._prepared[0]}, it cannot go back to {last_applied}")
        number = self._prepared[1] + 1
        own: dict[bytes, bytes | None] = {
            codec.STATE_APPLIED: codec.pair(last_applied, number),
            codec.link_key(number): codec.u64(last_applied),
        }
        if self._floor > self._stored_floor:
            self._stored_floor = self._floor
            own[codec.STATE_FLOOR] = codec.u64(self._floor)
        links = self._links
        for _ in range(LINKS_REMOVED):
            if not links or links[0] > self._stored_floor:
                break
            own[codec.link_key(links.popleft())] = None
        links.append(number)
        self._prepared = (last_applied, number)
        batch = self.engine.batch({}) if begun is None else begun
        batch.add(changes)
        batch.add(own)
        return _StateBatch(self, batch, self._prepared)

    def make_durable(self) -> int:
        """Force what was written to disk; returns the index up to which it now is. Blocks.

        The next batch prepared carries the new floor: whoever finds it later knows that everything
        before it had been synced.
        """
        last_applied, number = self._written
        self.engine.sync()
        self._floor = max(self._floor, number)
        return last_applied

    def adopt(self, last_applied: int) -> None:
        """What was put in here is the state at `last_applied`; its chain begins anew. Blocks."""
        if self._prepared != (0, 0):
            raise ValueError("only a new database can be filled")
        self.engine.batch({codec.STATE_APPLIED: codec.pair(last_applied, 0)}).write(sync=True)
        self._written = self._prepared = (last_applied, 0)

    def close(self) -> None:
        """Close it. Every view and call on it must have ended. Safe to repeat."""
        self.engine.close()

    def written(self, position: tuple[int, int]) -> None:
        """A prepared batch is written (for its own use)."""
        self._written = position

    def _read_chain(self) -> deque[int]:
        last_applied, newest = self._written
        start = codec.STATE_LINK
        stop = start[:-1] + bytes([start[-1] + 1])
        links = deque(codec.decode_u64(key[len(start) :]) for key, _ in self.engine.iterate(start, stop))
        present = set(links)
        for number in range(self._floor + 1, newest + 1):
            if number not in present:
                raise BrokenChain(
                    str(self.engine.path),
                    f"stands at {last_applied}, but batch {number} of {newest} before that is missing;"
                    " see docs/operations.md",
                )
        return links


class _StateBatch:
    """A batch of a state database: once it is written, the database stands where it says."""

    def __init__(self, database: StateDatabase, batch: WriteBatch, position: tuple[int, int]) -> None:
        self._database = database
        self._batch = batch
        self._position = position

    @property
    def size(self) -> int:
        """Bytes of keys and values."""
        return self._batch.size

    def add(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Take in more changes, to be written with the others."""
        self._batch.add(changes)

    def write(self, *, sync: bool) -> None:
        """Apply it. Order matters: as prepared."""
        self._batch.write(sync=sync)
        self._database.written(self._position)
