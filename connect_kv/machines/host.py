"""MachineHost: everything that is replicated, behind one apply, one snapshot and one durable index.

A slice of entries is applied into one overlay: sessions and keys on the loop, user machines in one
call on the apply thread. The overlay is written as one batch on the state thread, and only then is
anything of it visible to readers. User machines in memory restart from their last stored state and
the log after it; what they did not run the first time is marked, and not run then either.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from connect_kv.errors import ConnectKvError, CorruptStorage, NodeStopped, RefusedToStart
from connect_kv.framework.hosted import Call, Checked, HostedMachine
from connect_kv.interfaces import Clock, Worker
from connect_kv.machines import stored_states
from connect_kv.machines.cluster import ClusterTable
from connect_kv.machines.queries import Queries
from connect_kv.machines.sessions import SessionLimits, SessionTable
from connect_kv.machines.slices import Dispatcher, KeyValue, parse, set_alarms
from connect_kv.machines.snapshot_source import ViewSource
from connect_kv.machines.stored_states import Header, MachineState
from connect_kv.machines.user_machines import UserMachines
from connect_kv.raft.types import Entry, EntryKind, SnapshotMeta
from connect_kv.rpc.command_pb2 import Result
from connect_kv.storage import codec, transfer
from connect_kv.storage.overlay import Overlay
from connect_kv.storage.state_dirs import StateDatabase, StateDirs

logger = logging.getLogger(__name__)

ReadLog = Callable[[int, int], Awaitable[Sequence[Entry]]]
"""Entries of ``[start, end)`` from the log on disk: the first, and as many more as it likes."""

_LOG_TIME = bytes((codec.META,)) + b"log-time"
_WRITE_BYTES = 4 << 20
"""Stored states are written in batches of about this size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """When the states of in-memory machines are stored, so that the log before can go."""

    snapshot_entries: int = 10_000
    """At most this many entries are applied in between..."""
    snapshot_bytes: int = 32 << 20
    """...or this many bytes of them..."""
    snapshot_ratio: int = 4
    """...but always bytes of at least this part of the last stored states: large ones less often."""
    sessions: SessionLimits = field(default_factory=SessionLimits)


class MachineHost:
    """Sessions, keys, user machines and the cluster table over one state database."""

    def __init__(
        self,
        *,
        dirs: StateDirs,
        state_name: str,
        database: StateDatabase,
        kv: KeyValue,
        machines: Mapping[str, HostedMachine],
        state_worker: Worker,
        apply_worker: Worker,
        clock: Clock,
        config: HostConfig | None = None,
    ) -> None:
        """`database` is open, and the host's from now on. Raises ConfigError naming a machine."""
        self._dirs = dirs
        self._name = state_name
        self._database = database
        self._kv = kv
        self._state_worker = state_worker
        self._apply_worker = apply_worker
        self._config = config or HostConfig()
        self.sessions = SessionTable(self._config.sessions)
        self.cluster = ClusterTable()
        self.machines = UserMachines(machines)
        self._first = self.machines.first_states()
        self._dispatcher = Dispatcher(
            kv=kv, sessions=self.sessions, cluster=self.cluster, machines=self.machines,
            apply_worker=apply_worker, clock=clock,
        )  # fmt: skip
        self._queries = Queries(apply_worker, self._query)
        self._turn = asyncio.Lock()
        """Held while the state moves from one index to another, or must not."""
        self._writing = asyncio.Lock()
        """Batches are written in the order in which they were prepared."""
        self._storing = asyncio.Lock()
        """Held while states of machines are on their way to disk. Taken within the turn, kept beyond it."""
        self._headers: dict[str, Header] = {}
        self._stored_bytes = 0
        self._entries_since = 0
        self._bytes_since = 0
        self._log_time = 0
        self._last_applied = 0
        self._broken = False
        """A slice was begun and not ended: what is in memory is no state at all."""
        self._closed = False
        self._staged: tuple[str, StateDatabase] | None = None
        self._sources: set[ViewSource] = set()
        self._cleanup: asyncio.Task[None] | None = None

    # Start and end.

    async def start(self, read_log: ReadLog) -> None:
        """Load the database, and bring in-memory machines to where it stands by replaying the log.

        Raises RefusedToStart, UnknownEntry or CorruptStorage; the node must not run then.
        """
        await self._state_worker.run(partial(self._dirs.discard_others, self._name))
        await self._load()
        await self._replay(read_log)
        await self._store_states(set(self.machines.in_memory) - self._headers.keys())
        self._clean_up()

    async def close(self) -> None:
        """End reads, queries and snapshots; then close the database."""
        self._closed = True
        await self._queries.close()
        if self._cleanup is not None:
            await self._cleanup
        self._kv.close()
        self._close_sources()
        async with self._turn, self._storing, self._writing:
            if self._staged is not None:
                await self._state_worker.run(self._staged[1].close)
            await self._state_worker.run(self._database.close)

    @property
    def last_applied(self) -> int:
        """The last index whose effect reads can see."""
        return self._last_applied

    @property
    def log_time(self) -> int:
        """Nanoseconds since 1970 as of `last_applied`: never goes back."""
        return self._log_time

    @property
    def disk_size(self) -> int:
        """Bytes of the state database's files."""
        return self._database.engine.disk_size()

    # Calls from services.

    def check_call(self, machine: str, method: str, arguments: bytes | str) -> Checked:
        """Judge a call before anything is replicated; propose what is returned. Raises BadCall."""
        return self.machines.check(machine, method, arguments)

    async def query(self, machine: str, method: str, arguments: bytes) -> bytes:
        """Run a query on the apply thread, never at the same time as a command.

        Linearizable after a read barrier. Raises BadCall, CommandFailed, NodeStopped.
        """
        return await self._queries.ask(machine, method, arguments)

    # ReplicatedState.

    async def apply(self, entries: Sequence[Entry]) -> list[Sequence[Result]]:
        """Apply committed entries, contiguous after `last_applied`, as one batch."""
        async with self._turn:
            self._check_usable()
            if entries[0].index != self._last_applied + 1:
                raise ValueError(f"entry {entries[0].index} does not follow {self._last_applied}")
            self._broken = True
            overlay = Overlay(self._database.engine)
            work = await self._dispatcher.run(entries, self._log_time, overlay)
            if work.log_time != self._log_time:
                overlay.put(_LOG_TIME, codec.u64(work.log_time))
            await self._write(overlay.changes, entries[-1].index)
            self._log_time = work.log_time
            self._last_applied = entries[-1].index
            self._entries_since += len(entries)
            self._bytes_since += sum(len(entry.data) for entry in entries)
            self._kv.published()
            self._broken = False
        self._clean_up()
        return list(work.rows)

    async def make_durable(self) -> int:
        """Force what was applied to disk, after storing the states of in-memory machines if that is due."""
        if not self.machines.can_snapshot:
            await self._state_worker.run(self._database.make_durable)
            return 0
        if self._headers and self._due():
            await self._store_states(set(self._headers))
        stored = min((header.index for header in self._headers.values()), default=None)
        index = await self._state_worker.run(self._database.make_durable)
        return index if stored is None else min(index, stored)

    async def snapshot(self) -> ViewSource:
        """Freeze the state as of `last_applied`, in-memory machines included."""
        if not self.machines.can_snapshot:
            raise ConnectKvError("a machine here has no snapshot and restore: its state cannot be sent")
        async with self._turn:
            self._check_usable()
            behind = {name for name, at in self._headers.items() if at.index != self._last_applied}
            if behind:
                async with self._storing:
                    await self._write_states(behind, await self._take_states())
            source = ViewSource(self._database.engine, self._last_applied, self._sources.discard)
            self._sources.add(source)
            return source

    async def stage(self, meta: SnapshotMeta, chunks: AsyncIterator[bytes]) -> str:
        """Fill a new state database with a snapshot from elsewhere, sync and check it; returns its name."""
        name = self._dirs.next_name(self._name)
        if self._staged is not None:
            await self._state_worker.run(self._staged[1].close)
            self._staged = None
        database = await self._state_worker.run(partial(self._dirs.create, name))
        try:
            await transfer.fill(database, meta, chunks, self._state_worker)
            self._check_machines(database)
        except BaseException:
            await self._state_worker.run(database.close)
            raise
        self._staged = (name, database)
        return name

    async def switch(self, state_name: str) -> None:
        """Use that staged database from now on and delete the old one."""
        if self._staged is None or self._staged[0] != state_name:
            raise ValueError(f"no state database {state_name!r} is staged")
        async with self._turn, self._storing, self._writing:
            self._broken = True
            self._close_sources()
            old, self._database = self._database, self._staged[1]
            self._name, self._staged = state_name, None
            await self._load()
            await self._apply_worker.run(lambda: None)  # queries that still read the old one have ended
            await self._state_worker.run(old.close)
            await self._state_worker.run(partial(self._dirs.discard_others, state_name))
            self._broken = False
        await self._store_states(set(self.machines.in_memory) - self._headers.keys())
        self._clean_up()

    # Loading.

    async def _load(self) -> None:
        """Take everything from the database; machines go to their stored states."""
        engine = self._database.engine
        self._last_applied = self._database.last_applied
        log_time = engine.get(_LOG_TIME)
        self._log_time = codec.decode_u64(log_time) if log_time else 0
        self.sessions.load(engine)
        self.cluster.load(engine)
        self._kv.load(engine)
        set_alarms(self._kv, self.cluster)
        self._headers = self._check_machines(self._database)
        self._entries_since = self._bytes_since = 0
        await self._apply_worker.run(self._restore)

    def _restore(self) -> None:
        """On the apply thread: every in-memory machine from its stored, or its first, state."""
        engine = self._database.engine
        for name in self._first:
            header = self._headers.get(name)
            if header is None:
                self.machines.restore(name, self._first[name].chunks)
            else:
                self.machines.restore(name, stored_states.chunks(engine, name, header))

    def _check_machines(self, database: StateDatabase) -> dict[str, Header]:
        """Headers of stored states. Raises RefusedToStart if one has no machine here."""
        found = stored_states.headers(database.engine)
        for name in found:
            if name not in self.machines.in_memory:
                raise RefusedToStart(
                    f"{database.engine.path} holds the state of a machine {name!r}, which is not configured "
                    "(or not in memory) here: add it"
                )
        return found

    async def _replay(self, read_log: ReadLog) -> None:
        """Run the calls between each machine's stored state and `last_applied` once more."""
        unstorable = () if self.machines.can_snapshot else self.machines.in_memory
        # A machine without a stored state is new here, and no entry so far can have called it.
        stands = {name: header.index for name, header in self._headers.items()} | dict.fromkeys(unstorable, 0)
        if not stands:
            return
        start = min(stands.values()) + 1
        log_time = next((h.log_time for h in self._headers.values() if h.index == start - 1), 0)
        skipped = stored_states.skipped(self._database.engine)
        if start <= self._last_applied:
            logger.info("replaying entries %d to %d for machines in memory", start, self._last_applied)
        while start <= self._last_applied:
            entries = await read_log(start, self._last_applied + 1)
            if not entries or entries[0].index != start:
                raise CorruptStorage(
                    "log", f"entry {start}, needed to rebuild machines in memory, is missing"
                )
            log_time = await self._replay_entries(entries, log_time, stands, skipped)
            start = entries[-1].index + 1

    async def _replay_entries(
        self,
        entries: Sequence[Entry],
        log_time: int,
        stands: Mapping[str, int],
        skipped: set[tuple[int, int]],
    ) -> int:
        calls: dict[str, list[Call]] = {}
        for entry in entries:
            if entry.kind != EntryKind.COMMAND:
                continue
            batch = parse(entry)
            log_time = max(log_time, batch.log_time)
            for position, command in enumerate(batch.commands):
                if command.WhichOneof("request") != "machine_call":
                    continue
                call = command.machine_call
                if entry.index <= stands.get(call.machine, self._last_applied):
                    continue
                if (entry.index, position) not in skipped:
                    calls.setdefault(call.machine, []).append(
                        Call(call.method, call.arguments, log_time, entry.index)
                    )
        if calls:
            overlay = Overlay(self._database.engine)
            await self._apply_worker.run(lambda: self.machines.execute(calls, overlay))
        self._entries_since += len(entries)
        self._bytes_since += sum(len(entry.data) for entry in entries)
        return log_time

    # Storing.

    def _due(self) -> bool:
        config = self._config
        enough = self._entries_since >= config.snapshot_entries or self._bytes_since >= config.snapshot_bytes
        return enough and self._bytes_since * config.snapshot_ratio >= self._stored_bytes

    async def _store_states(self, names: set[str]) -> None:
        """Store the states of these machines, as of one index. Applying goes on while they are written."""
        if not names & self._first.keys():
            return
        async with AsyncExitStack() as storing:
            async with self._turn:
                await storing.enter_async_context(self._storing)
                taken = await self._take_states()
            await self._write_states(names, taken)

    async def _take_states(self) -> _Taken:
        missing = set(self._first) - self._headers.keys()
        states = await self._apply_worker.run(partial(self.machines.changed_states, missing))
        self._entries_since = self._bytes_since = 0
        if states:
            self._stored_bytes = sum(state.size for state in states.values())
        return _Taken(self._last_applied, self._log_time, states)

    async def _write_states(self, names: set[str], taken: _Taken) -> None:
        """A state that did not change since it was stored is only said to stand at the new index."""
        for name, state in taken.states.items():
            await self._write_chunks(name, taken.last_applied, state)
        new = {
            name: stored_states.header_for(taken.states[name], taken.last_applied, taken.log_time)
            if name in taken.states
            else replace(self._headers[name], index=taken.last_applied, log_time=taken.log_time)
            for name in sorted(names & self._first.keys() | taken.states.keys())
        }
        lowest = min(header.index for header in (self._headers | new).values())
        engine = self._database.engine
        changes = stored_states.header_changes(engine, new) | stored_states.skips_up_to(engine, lowest)
        await self._write(changes)
        self._headers |= new

    async def _write_chunks(self, name: str, generation: int, state: MachineState) -> None:
        # An attempt that a crash ended may have left more chunks under this name than there are now.
        changes = stored_states.leftover_chunks(self._database.engine, name, generation)
        size = 0
        for key, chunk in stored_states.chunk_changes(name, generation, state):
            changes[key] = chunk
            size += len(chunk)
            if size >= _WRITE_BYTES:
                await self._write(changes)
                changes, size = {}, 0
        if changes:
            await self._write(changes)

    async def _write(self, changes: Mapping[bytes, bytes | None], last_applied: int | None = None) -> None:
        """One batch, unsynced. Per-key work is done here, the write on the state thread."""
        async with self._writing:
            database = self._database
            at = database.last_applied if last_applied is None else last_applied
            batch = database.prepare(changes, at)
            await self._state_worker.run(partial(batch.write, sync=False))

    # Cleaning up after compactions.

    def _clean_up(self) -> None:
        if self._kv.cleanup_pending and self._cleanup is None and not self._closed:
            self._cleanup = asyncio.create_task(self._clean())

    async def _clean(self) -> None:
        """A little at a time, between slices."""
        try:
            while self._kv.cleanup_pending:
                async with self._turn:
                    if self._closed or self._broken:
                        return
                    self._broken = True
                    overlay = Overlay(self._database.engine)
                    self._kv.cleanup(overlay)
                    await self._write(overlay.changes)
                    self._kv.published()
                    self._broken = False
                await asyncio.sleep(0)
        except Exception:
            logger.exception("cleaning up after a compaction failed; nothing more is applied")
        finally:
            self._cleanup = None

    # Helpers.

    def _query(self, machine: str, method: str, arguments: bytes) -> bytes:
        """On the apply thread."""
        view = self._database.engine.view()
        try:
            return self.machines.query(machine, method, arguments, self._log_time, view)
        finally:
            view.close()

    def _check_usable(self) -> None:
        if self._closed or self._broken:
            raise NodeStopped("this node is stopping, or has failed while it applied")

    def _close_sources(self) -> None:
        for source in list(self._sources):
            source.close()


class _Taken(NamedTuple):
    """States of machines at one index; only of those that have changed."""

    last_applied: int
    log_time: int
    states: dict[str, MachineState]
