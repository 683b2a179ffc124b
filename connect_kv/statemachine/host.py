"""MachineHost: everything that is replicated, behind one apply, one snapshot and one durable index.

A slice of entries is applied into one overlay: sessions and keys on the loop, user machines in one
call on the apply thread. The overlay is written as one batch on the state thread, and only then is
anything of it visible to readers. User machines in memory restart from their last stored state and
the log after it; what they did not run the first time is marked, and not run then either.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from connect_kv.auth.table import AuthTable
from connect_kv.errors import ConnectKvError, MachineSuspended, NodeStopped
from connect_kv.events import Signal
from connect_kv.interfaces import Clock, Worker
from connect_kv.kv.machine import KvMachine
from connect_kv.kv.moment import STORED_ELAPSED, STORED_LOG_TIME, Moment
from connect_kv.raft.types import Entry, SnapshotMeta
from connect_kv.statemachine.batches import ELAPSED
from connect_kv.statemachine.cluster import ClusterTable
from connect_kv.statemachine.database import BatchWriter, StateCopy, ViewSource, state_hash
from connect_kv.statemachine.dispatcher import Dispatcher, set_alarms
from connect_kv.statemachine.hosted import HostedMachine
from connect_kv.statemachine.machine_snapshots import HostConfig, MachineSnapshots, ReadLog
from connect_kv.statemachine.queries import Queries
from connect_kv.statemachine.sessions import SessionTable
from connect_kv.statemachine.space import CleanupTimes, Space
from connect_kv.statemachine.stored_states import skip_key
from connect_kv.statemachine.user_machines import RetiredMachines, UserMachines
from connect_kv.storage import codec, transfer
from connect_kv.storage.overlay import Overlay
from connect_kv.storage.state_dirs import StateDatabase, StateDirs

_LAST_ENTRIES = 64
"""So few are replayed while nothing else is applied, at the end of a rebuilding."""
_HAS_RUN = "it has run a command of entry {}, which was passed over"
__all__ = ["HostConfig", "MachineHost", "ReadLog"]

CLEANUP_REST_FACTOR = 4
"""While entries are applied, a step of the cleanup is followed by a rest so many times as long: at once and
without a rest it took four fifths of the puts of a loaded cluster, and the log waited for the disk."""
CLEANUP_REST_MOST = 0.05
"""Seconds."""


class MachineHost:
    """Sessions, keys, user machines and the cluster table over one state database."""

    def __init__(
        self,
        *,
        dirs: StateDirs,
        state_name: str,
        database: StateDatabase,
        kv: KvMachine,
        machines: Mapping[str, HostedMachine],
        state_worker: Worker,
        apply_worker: Worker,
        clock: Clock,
        config: HostConfig | None = None,
        space_worker: Worker | None = None,
        sync_worker: Worker | None = None,
    ) -> None:
        """`database` is open, and the host's from now on. Raises ConfigError naming a machine.

        Space is given back on `space_worker`, and what was written is synced on `sync_worker`; without
        one, on the state worker, in the way of writes.
        """
        self._dirs = dirs
        self._name = state_name
        self._writer = BatchWriter(database, state_worker)
        self._kv = kv
        self._state_worker = state_worker
        self._sync_worker = sync_worker or state_worker
        self._syncing = asyncio.Lock()
        """Held while the database is synced beside writes: it must not be exchanged then."""
        self._apply_worker = apply_worker
        self._config = config or HostConfig()
        self.sessions = SessionTable(self._config.sessions)
        self.cluster = ClusterTable()
        self.auth = AuthTable()
        self.machines = UserMachines(machines)
        self.retired = RetiredMachines()
        self.machines_changed = Signal()
        """A machine may have begun, have another version, or be retired."""
        self._snapshots = MachineSnapshots(self.machines, self._writer, apply_worker, self._config)
        self._dispatcher = Dispatcher(
            kv=kv, sessions=self.sessions, cluster=self.cluster, auth=self.auth, machines=self.machines,
            retired=self.retired, apply_worker=apply_worker, clock=clock,
        )  # fmt: skip
        self._clock = clock
        self._space = Space(lambda: self._writer.engine, space_worker or state_worker, state_worker, clock)
        self._queries = Queries(apply_worker, self._query)
        self._turn = asyncio.Lock()
        """Held while the state moves from one index to another, or must not."""
        self._moment = Moment()
        self._last_applied = 0
        self._broken = False
        """A slice was begun and not ended: what is in memory is no state at all."""
        self._failure: Exception | None = None
        """What ended the work between slices; the next one reports it."""
        self._closed = False
        self._staged: tuple[str, StateDatabase] | None = None
        self._filling: StateDatabase | None = None
        """Open, and not in use yet. Only the state worker knows: who asked for it may have been cancelled."""
        self._sources: set[ViewSource] = set()
        self._cleanup: asyncio.Task[None] | None = None
        self._read_log: ReadLog | None = None
        self._rebuilding: set[asyncio.Task[None]] = set()
        self.cleanups = CleanupTimes()

    # Start and end.

    async def start(self, read_log: ReadLog, log_starts: int = 1) -> None:
        """Load the database, and bring in-memory machines to where it stands by replaying the log.

        Raises RefusedToStart, UnknownEntry or CorruptStorage; the node must not run then. A machine that
        cannot be brought there is suspended.
        """
        self._read_log = read_log
        await self._state_worker.run(partial(self._dirs.discard_others, self._name))
        await self._load()
        self._snapshots.suspend_behind(log_starts)
        await self._snapshots.replay(read_log, self._last_applied)
        await self._snapshots.caught_up()
        if self._snapshots.missing:
            await self._store_states()
        self._clean_up()

    async def close(self) -> None:
        """End reads, queries and snapshots; then close the database."""
        self._closed = True
        await self._queries.close()
        if self._cleanup is not None:
            await self._cleanup
        for task in self._rebuilding:
            task.cancel()
        await asyncio.gather(*self._rebuilding, return_exceptions=True)
        await self._space.close()
        self._kv.close()
        self._close_sources()
        async with self._syncing, self._turn, self._snapshots.storing, self._writer.quiet:
            await self._state_worker.run(self._end_staging)
            await self._state_worker.run(self._writer.database.close)

    @property
    def last_applied(self) -> int:
        """The last index whose effect reads can see."""
        return self._last_applied

    @property
    def log_time(self) -> int:
        """Nanoseconds since 1970 as of `last_applied`: never goes back."""
        return self._moment.log_time

    def elapsed(self, members: Iterable[int]) -> int | None:
        """See ReplicatedState."""
        return None if self.cluster.not_understood_by_one(ELAPSED, members) else self._moment.now

    @property
    def disk_size(self) -> int:
        """Bytes of the state database's files."""
        return self._writer.engine.disk_size()

    @property
    def used_size(self) -> int:
        """Bytes of these in tables: what a rewrite would at most leave."""
        engine = self._writer.engine
        return min(self.disk_size, engine.approximate_size(b"", bytes((codec.CLUSTER + 1,))))

    async def measure(self) -> int:
        """Bytes of the files of the state database, asked where a slow disk holds up nobody."""
        return await self._state_worker.run(lambda: self._writer.engine.disk_size())

    async def defragment(self) -> None:
        """Give back all disk space that is not needed; everything goes on meanwhile. Raises NodeStopped."""
        await self._space.defragment()

    async def hash(self) -> tuple[int, int]:
        """(hash, revision) of the whole state, once compactions are cleaned up. Raises NodeStopped."""
        while True:
            compacted = self._kv.compact_revision
            await self._kv.cleaned(compacted)
            async with self._turn:
                self._check_usable()
                source = ViewSource(self._writer.engine, self._last_applied, self._sources.discard)
                self._sources.add(source)
                revision = self._kv.revision
            try:
                if not self._kv.cleanup_pending and self._kv.compact_revision == compacted:
                    return await state_hash(source.view), revision
            finally:
                source.close()

    # Calls from services.

    async def query(self, machine: str, method: str, arguments: bytes, date: int = 0) -> bytes:
        """Run a query on the apply thread, never at the same time as a command.

        Linearizable after a read barrier. Raises BadCall, CommandFailed, NodeStopped.
        """
        return await self._queries.ask(machine, method, arguments, date)

    def needed_version(self, machine: str) -> int:
        """The oldest version that a replay would run: what stands before it may be deleted."""
        return self._snapshots.needed_version(machine)

    async def try_upgrade(self, machine: str, version: int) -> str | None:
        """Upgrade a copy of the state of a machine: what goes wrong, if anything does."""
        return await self._apply_worker.run(lambda: self.machines.try_upgrade(machine, version))

    # ReplicatedState.

    async def apply(self, entries: Sequence[Entry]) -> list[Sequence[bytes]]:
        """Apply committed entries, contiguous after `last_applied`, as one batch.

        Results are encoded Result messages.
        """
        async with self._turn:
            self._check_usable()
            if entries[0].index != self._last_applied + 1:
                raise ValueError(f"entry {entries[0].index} does not follow {self._last_applied}")
            self._broken = True
            overlay = Overlay(self._writer.engine)
            work = await self._dispatcher.run(entries, self._moment, overlay)
            self._snapshots.suspended(self._last_applied, self._moment.log_time, overlay)
            for name, index in work.retired.items():
                self._snapshots.retired(name, index, work.at.log_time, overlay)
            resumed = self._pass_over(work.skips, overlay)
            if work.at.log_time != self._moment.log_time:
                overlay.put(STORED_LOG_TIME, codec.u64(work.at.log_time))
            if work.at.elapsed != self._moment.elapsed:
                overlay.put(STORED_ELAPSED, codec.pair(work.at.elapsed, work.at.since))
            await self._writer.write(overlay.changes, entries[-1].index)
            self._moment = work.at
            self._last_applied = entries[-1].index
            self._snapshots.applied(len(entries), sum(len(entry.data) for entry in entries))
            self._kv.published()
            self._broken = False
        for name in resumed:
            self._resume(name)
        if work.changed:
            self.machines_changed.fire()
        self._clean_up()
        return list(work.rows)

    async def make_durable(self) -> int:
        """Force what was applied to disk, after storing the states of in-memory machines if that is due."""
        if not self.machines.can_snapshot:
            await self._sync()
            return 0
        if self._snapshots.due and self._snapshots.stored:
            await self._store_states()
        stored = self._snapshots.oldest
        index = await self._sync()
        return index if stored is None else min(index, stored)

    async def _sync(self) -> int:
        async with self._syncing:
            return await self._sync_worker.run(self._writer.database.make_durable)

    async def snapshot(self) -> ViewSource:
        """Freeze the state as of `last_applied`, in-memory machines included."""
        async with self._whole():
            source = ViewSource(self._writer.engine, self._last_applied, self._sources.discard)
            self._sources.add(source)
            return source

    async def copy(self, least: int) -> StateCopy | None:
        """The same as files, for another process.

        None if it is kept in memory alone, or has not even `least` bytes on disk: then a process is not worth
        its start.
        """
        async with self._whole(), self._writer.quiet:
            engine = self._writer.engine
            if engine.disk_size() < least:
                return None
            path = self._dirs.new_copy()
            discard = partial(self._state_worker.run, partial(self._dirs.discard_copy, path))
            try:
                there = await self._state_worker.run(partial(engine.copy, path))
            except BaseException:
                await discard()
                raise
            return StateCopy(path, self._last_applied, discard) if there else None

    @asynccontextmanager
    async def _whole(self) -> AsyncIterator[None]:
        """Nothing is applied meanwhile, and what is on disk is all of the state."""
        if not self.machines.can_snapshot:
            raise ConnectKvError("a machine here has no snapshot and restore: its state cannot be sent")
        async with self._turn:
            self._check_usable()
            self._check_whole()
            async with self._snapshots.storing:
                if self._snapshots.oldest not in (None, self._last_applied):
                    await self._snapshots.store(
                        await self._snapshots.capture(self._last_applied, self.log_time)
                    )
                    self._check_whole()
            yield

    async def stage(self, meta: SnapshotMeta, chunks: AsyncIterator[bytes]) -> str:
        """Fill a new state database with a snapshot from elsewhere, sync and check it; returns its name."""
        name = self._dirs.next_name(self._name)
        self._staged = None
        database = await self._state_worker.run(partial(self._begin_staging, name))
        try:
            await transfer.fill(database, meta, chunks, self._state_worker)
        except BaseException:
            await self._state_worker.run(self._end_staging)
            raise
        self._staged = (name, database)
        return name

    def _begin_staging(self, name: str) -> StateDatabase:
        """On the state worker. What an attempt that was cancelled left open would be in the way."""
        self._end_staging()
        self._filling = self._dirs.create(name)
        return self._filling

    def _end_staging(self) -> None:
        """Close the database that a snapshot was filling, if there is one. Runs on the state worker."""
        if self._filling is not None:
            self._filling.close()
            self._filling = None

    async def switch(self, state_name: str) -> None:
        """Use that staged database from now on and delete the old one."""
        if self._staged is None or self._staged[0] != state_name:
            raise ValueError(f"no state database {state_name!r} is staged")
        async with self._syncing, self._turn, self._snapshots.storing, self._writer.quiet:
            self._broken = True
            self._close_sources()
            old, self._writer.database = self._writer.database, self._staged[1]
            self._name, self._staged, self._filling = state_name, None, None
            await self._load()
            await self._apply_worker.run(lambda: None)  # queries that still read the old one have ended
            await self._state_worker.run(old.close)
            await self._state_worker.run(partial(self._dirs.discard_others, state_name))
            self._broken = False
        if self._snapshots.missing:
            await self._store_states()
        self._clean_up()
        self.machines_changed.fire()

    # Loading.

    async def _load(self) -> None:
        """Take everything from the database; machines go to their stored states."""
        engine = self._writer.engine
        self._last_applied = self._writer.database.last_applied
        log_time, elapsed = engine.get(STORED_LOG_TIME), engine.get(STORED_ELAPSED)
        self._moment = Moment(
            codec.decode_u64(log_time) if log_time else 0, *(codec.decode_pair(elapsed) if elapsed else ())
        )
        self.sessions.load(engine)
        self.cluster.load(engine)
        self.auth.load(engine)
        self.retired.load(engine)
        self._kv.load(engine, self._moment)
        set_alarms(self._kv, self.cluster)
        await self._snapshots.load(self.retired)

    async def _store_states(self) -> None:
        """Store the states of all in-memory machines. Applying goes on while they are written."""
        async with AsyncExitStack() as storing:
            async with self._turn:
                await storing.enter_async_context(self._snapshots.storing)
                taken = await self._snapshots.capture(self._last_applied, self.log_time)
            await self._snapshots.store(taken)

    # Machines that stopped.

    def _check_whole(self) -> None:
        """What is sent must be the whole state at one index."""
        for name, suspension in self.machines.suspended.items():
            raise MachineSuspended(f"{suspension.of(name)}; so the state of this member is not whole")

    def _pass_over(self, skips: Sequence[tuple[str, int, int]], overlay: Overlay) -> list[str]:
        """Commands that no member is to run, by decision; machines that can go on now."""
        resumed = []
        for name, index, position in skips:
            key = skip_key(index, position)
            if overlay.get(key) is not None:
                continue
            overlay.put(key, b"")
            suspension = self.machines.suspended.get(name)
            if self._snapshots.has_stored(name, index):
                self.machines.suspend(name, f"{_HAS_RUN.format(index)}: remove this member, and add it again")
            elif suspension is None:
                self.machines.suspend(name, f"{_HAS_RUN.format(index)}: start this member again")
            elif (suspension.index, suspension.position) == (index, position):
                resumed.append(name)
        return resumed

    def _resume(self, name: str) -> None:
        task = asyncio.get_running_loop().create_task(self._rebuild(name), name=f"rebuild {name}")
        self._rebuilding.add(task)
        task.add_done_callback(self._rebuilding.discard)

    async def _rebuild(self, name: str) -> None:
        """From its stored state and the log, beside all else; only the last entries while the rest waits."""
        assert self._read_log is not None
        suspension = self.machines.suspended.get(name)
        if suspension is None:
            return
        try:
            done = await self._snapshots.rebuild(name)
            if self.machines.suspended.get(name) is not suspension:
                return
            while (target := self._last_applied) - done > _LAST_ENTRIES:
                await self._snapshots.replay(self._read_log, target, only=name, after=done)
                done = target
            async with self._turn:
                self._check_usable()
                await self._snapshots.replay(self._read_log, self._last_applied, only=name, after=done)
                self.machines.resume(name, suspension)
                await self._snapshots.caught_up()
        except NodeStopped:
            return
        except Exception as error:
            self._failure = error

    # Cleaning up after compactions.

    def _clean_up(self) -> None:
        if self._kv.cleanup_pending and self._cleanup is None and not self._closed:
            self._cleanup = asyncio.create_task(self._clean())

    async def _clean(self) -> None:
        """A little at a time, between slices, which it leaves most of the loop and of the disk."""
        applied = self._last_applied
        started = self._clock.now()
        try:
            while self._kv.cleanup_pending:
                async with self._turn:
                    begun = self._clock.now()
                    if self._closed or self._broken:
                        return
                    self._broken = True
                    overlay = Overlay(self._writer.engine)
                    self._kv.cleanup(overlay)
                    await self._writer.write(overlay.changes)
                    self._kv.published()
                    self._broken = False
                    took = self._clock.now() - begun
                self.cleanups.steps.add(took)
                await asyncio.sleep(0)
                if self._last_applied != applied:
                    applied = self._last_applied
                    await self._clock.sleep(min(CLEANUP_REST_FACTOR * took, CLEANUP_REST_MOST))
            self.cleanups.wholes.add(self._clock.now() - started)
            self.cleanups.ended_at = self._clock.wall() / 1e9
            if self._kv.take_emptied() is not None:
                self._space.cleaned()
        except Exception as error:
            self._failure = error
        finally:
            self._cleanup = None

    # Helpers.

    def _query(self, machine: str, method: str, arguments: bytes, date: int) -> bytes:
        """Ask a user machine. Runs on the apply thread."""
        view = self._writer.engine.view()
        try:
            return self.machines.query(machine, method, arguments, max(self.log_time, date), view)
        finally:
            view.close()

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closed or self._broken:
            raise NodeStopped("this node is stopping, or has failed while it applied")

    def _close_sources(self) -> None:
        for source in list(self._sources):
            source.close()
