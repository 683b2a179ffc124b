"""Keeps in-memory machines rebuildable: stores their states now and then, restores and replays at start."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from connect_kv.errors import CorruptStorage, RefusedToStart
from connect_kv.framework.hosted import Call
from connect_kv.interfaces import Worker
from connect_kv.raft.types import Entry, EntryKind
from connect_kv.statemachine import stored_states
from connect_kv.statemachine.batches import commands_of, parse
from connect_kv.statemachine.sessions import SessionLimits
from connect_kv.statemachine.stored_states import Header, MachineState
from connect_kv.statemachine.user_machines import UserMachines
from connect_kv.statemachine.writer import BatchWriter
from connect_kv.storage.overlay import Overlay
from connect_kv.storage.state_dirs import StateDatabase

logger = logging.getLogger(__name__)

ReadLog = Callable[[int, int], Awaitable[Sequence[Entry]]]
"""Entries of ``[start, end)`` from the log on disk: the first, and as many more as it likes."""

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


class Taken(NamedTuple):
    """States of machines at one index; only of those that have changed."""

    last_applied: int
    log_time: int
    states: dict[str, MachineState]
    entries: int
    bytes: int
    """What had been applied since states were stored last."""


class StateKeeper:
    """What is stored of each in-memory machine, and how it comes back."""

    def __init__(
        self, machines: UserMachines, writer: BatchWriter, apply_worker: Worker, config: HostConfig
    ) -> None:
        self.storing = asyncio.Lock()
        """Held while states are on their way to disk."""
        self._machines = machines
        self._writer = writer
        self._apply_worker = apply_worker
        self._config = config
        self._first = machines.first_states()
        self._headers: dict[str, Header] = {}
        self._stored_bytes = 0
        self._entries = 0
        self._bytes = 0

    @property
    def oldest(self) -> int | None:
        """From where a replay would start; None if no machine needs one."""
        return min((header.index for header in self._headers.values()), default=None)

    @property
    def missing(self) -> set[str]:
        """Machines of which nothing is stored yet."""
        return self._first.keys() - self._headers.keys()

    @property
    def stored(self) -> set[str]:
        """Machines of which a state is stored."""
        return set(self._headers)

    @property
    def due(self) -> bool:
        """Whether enough was applied to store states again."""
        config = self._config
        enough = self._entries >= config.snapshot_entries or self._bytes >= config.snapshot_bytes
        return enough and self._bytes * config.snapshot_ratio >= self._stored_bytes

    def applied(self, entries: Sequence[Entry]) -> None:
        """Count what a replay would have to read."""
        self._entries += len(entries)
        self._bytes += sum(len(entry.data) for entry in entries)

    # At start.

    def check(self, database: StateDatabase) -> dict[str, Header]:
        """Headers of stored states. Raises RefusedToStart if one has no machine here."""
        found = stored_states.headers(database.engine)
        for name in found:
            if name not in self._machines.in_memory:
                raise RefusedToStart(
                    f"the state of a machine {name!r} is stored here, which is not configured (or not in "
                    f"memory): add it, as with --machine {name}=module:Class"
                )
        return found

    async def load(self) -> None:
        """Every in-memory machine from its stored, or its first, state."""
        self._headers = self.check(self._writer.database)
        self._entries = self._bytes = 0
        await self._apply_worker.run(self._restore)

    def _restore(self) -> None:
        engine = self._writer.engine
        for name in self._first:
            header = self._headers.get(name)
            if header is None:
                self._machines.restore(name, self._first[name].chunks)
            else:
                self._machines.restore(name, stored_states.chunks(engine, name, header))

    async def replay(self, read_log: ReadLog, last_applied: int) -> None:
        """Run the calls between each machine's stored state and `last_applied` once more."""
        unstorable = () if self._machines.can_snapshot else self._machines.in_memory
        # A machine without a stored state is new here, and no entry so far can have called it.
        stands = {name: header.index for name, header in self._headers.items()} | dict.fromkeys(unstorable, 0)
        if not stands:
            return
        start = min(stands.values()) + 1
        log_time = next((h.log_time for h in self._headers.values() if h.index == start - 1), 0)
        skipped = stored_states.skipped(self._writer.engine)
        if start <= last_applied:
            logger.info("replaying entries for machines in memory", extra={"from": start, "to": last_applied})
        while start <= last_applied:
            entries = await read_log(start, last_applied + 1)
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
            for position, command in enumerate(commands_of(batch)):
                if command.WhichOneof("request") != "machine_call":
                    continue
                call = command.machine_call
                if entry.index <= stands.get(call.machine, entry.index):
                    continue
                if (entry.index, position) not in skipped:
                    calls.setdefault(call.machine, []).append(
                        Call(call.method, call.arguments, log_time, entry.index)
                    )
        if calls:
            overlay = Overlay(self._writer.engine)
            await self._apply_worker.run(lambda: self._machines.execute(calls, overlay))
        self.applied(entries)
        return log_time

    # While running.

    async def take(self, last_applied: int, log_time: int) -> Taken:
        """States as they are now, between two slices."""
        states = await self._apply_worker.run(partial(self._machines.changed_states, self.missing))
        return Taken(last_applied, log_time, states, self._entries, self._bytes)

    async def write(self, taken: Taken) -> None:
        """Store what was taken. An unchanged state is only said to stand at the new index.

        Hold `storing`, from before `take` on. Nothing counts as stored until all of it is: whoever asked may
        be cancelled halfway.
        """
        for name, state in taken.states.items():
            await self._write_chunks(name, taken.last_applied, state)
        new = {
            name: stored_states.header_for(taken.states[name], taken.last_applied, taken.log_time)
            if name in taken.states
            else replace(self._headers[name], index=taken.last_applied, log_time=taken.log_time)
            for name in sorted(self._first)
        }
        engine = self._writer.engine
        removed = stored_states.skips_up_to(engine, taken.last_applied)
        await self._writer.write(stored_states.header_changes(engine, new) | removed)
        self._headers = new
        self._machines.stored(taken.states)
        self._entries -= taken.entries
        self._bytes -= taken.bytes
        if taken.states:
            self._stored_bytes = sum(state.size for state in taken.states.values())

    async def _write_chunks(self, name: str, generation: int, state: MachineState) -> None:
        # An attempt that a crash ended may have left more chunks under this name than there are now.
        changes = stored_states.leftover_chunks(self._writer.engine, name, generation)
        size = 0
        for key, chunk in stored_states.chunk_changes(name, generation, state):
            changes[key] = chunk
            size += len(chunk)
            if size >= _WRITE_BYTES:
                await self._writer.write(changes)
                changes, size = {}, 0
        if changes:
            await self._writer.write(changes)
