"""Keeps in-memory machines rebuildable: stores their states now and then, restores and replays at start."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from connect_kv.errors import CorruptStorage
from connect_kv.interfaces import Worker
from connect_kv.kv.layout import Changes
from connect_kv.raft.types import Entry, EntryKind
from connect_kv.rpc.command_pb2 import Command
from connect_kv.statemachine import stored_states
from connect_kv.statemachine.batches import commands_of, parse
from connect_kv.statemachine.code_records import activation_from
from connect_kv.statemachine.database import BatchWriter
from connect_kv.statemachine.hosted import MachineCall
from connect_kv.statemachine.sessions import SessionLimits
from connect_kv.statemachine.stored_states import Header, MachineState
from connect_kv.statemachine.user_machines import RETIRED, AnyStep, Suspension, UserMachines
from connect_kv.storage.overlay import Overlay

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
    suspended_bytes: int = 1 << 30
    """So much of the log is kept for a machine that is suspended; without it, the member will need the
    whole state from another one."""
    sessions: SessionLimits = field(default_factory=SessionLimits)


class CapturedStates(NamedTuple):
    """States of machines at one index; only of those that have changed."""

    last_applied: int
    log_time: int
    states: dict[str, MachineState]
    entries: int
    bytes: int
    """What had been applied since states were stored last."""


class MachineSnapshots:
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
        self._storable = machines.storable
        self._retained: dict[str, int] = {}
        """Bytes of entries applied since a machine was suspended."""
        self._headers: dict[str, Header] = {}
        self._retired: set[str] = set()
        """Names of which nothing may be stored that was captured before: whoever bears it now is another."""
        self._stored_bytes = 0
        self._entries = 0
        self._bytes = 0

    @property
    def oldest(self) -> int | None:
        """From where a replay would start; None if no machine needs one."""
        kept = [
            header.index
            for name, header in self._headers.items()
            if self._retained.get(name, 0) <= self._config.suspended_bytes
        ]
        return min(kept, default=None)

    @property
    def missing(self) -> set[str]:
        """Machines of which nothing is stored yet."""
        return set(self._storable - self._headers.keys() - self._machines.suspended.keys())

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

    def applied(self, entries: int, size: int) -> None:
        """Count what a replay would have to read: so many entries more, of so many bytes."""
        self._entries += entries
        self._bytes += size
        if self._machines.suspended:
            for name in self._machines.suspended:
                self._retained[name] = self._retained.get(name, 0) + size

    # At start.

    async def load(self, retired: Container[str]) -> None:
        """Every in-memory machine from its stored, or its first, state. What cannot be, is suspended."""
        self._headers = {
            name: header
            for name, header in stored_states.headers(self._writer.engine).items()
            if name in self._machines.machines or name not in retired
        }
        self._entries = self._bytes = 0
        self._retained.clear()
        await self._apply_worker.run(self._restore)

    def _restore(self) -> None:
        self._machines.begin(self._headers)
        for name in self._storable:
            self._restore_one(name)

    def _restore_one(self, name: str) -> None:
        header = self._headers.get(name)
        if header is None or header.first or not header.standing.version:
            self._machines.restore_first(name)
        else:
            chunks = stored_states.chunks(self._writer.engine, name, header)
            self._machines.restore(name, chunks, header.standing)

    def suspend_behind(self, log_starts: int) -> None:
        """Machines that need entries from before the first one of the log cannot be rebuilt from it."""
        for name, header in self._headers.items():
            if header.index + 1 < log_starts and name not in self._machines.suspended:
                self._machines.suspend(name, f"it stands at entry {header.index}, and the log begins later")

    async def replay(
        self, read_log: ReadLog, last_applied: int, *, only: str | None = None, after: int = 0
    ) -> None:
        """Run the calls between each machine's stored state and `last_applied` once more.

        `only` of one that is suspended and being rebuilt, from `after` on.
        """
        unstorable = () if self._machines.can_snapshot else self._machines.in_memory
        # A machine without a stored state is new here, and no entry so far can have called it.
        stands = {name: header.index for name, header in self._headers.items()} | dict.fromkeys(unstorable, 0)
        rebuilding = None if only is None else self._machines.suspended.get(only)
        stands = {
            name: max(index, after)
            for name, index in stands.items()
            if name == only or (only is None and name not in self._machines.suspended)
        }
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
            log_time = await self._replay_entries(entries, log_time, stands, skipped, rebuilding=rebuilding)
            start = entries[-1].index + 1

    async def _replay_entries(
        self,
        entries: Sequence[Entry],
        log_time: int,
        stands: Mapping[str, int],
        skipped: set[tuple[int, int]],
        *,
        rebuilding: Suspension | None,
    ) -> int:
        steps: dict[str, list[AnyStep]] = {}
        for entry in entries:
            if entry.kind != EntryKind.COMMAND:
                continue
            batch = parse(entry)
            log_time = max(log_time, batch.log_time)
            for position, command in enumerate(commands_of(batch)):
                found = _step(command, log_time, entry.index, position)
                if found is None or entry.index <= stands.get(found[0], entry.index):
                    continue
                if (entry.index, position) not in skipped:
                    steps.setdefault(found[0], []).append(found[1])
        if steps:
            overlay = Overlay(self._writer.engine)
            run = partial(self._machines.execute, steps, overlay, rebuilding=rebuilding)
            await self._apply_worker.run(run)
            await self._replayed(entries[-1].index, log_time, overlay, rebuilding)
        if rebuilding is None:  # else they were counted when they were applied
            self.applied(len(entries), sum(len(entry.data) for entry in entries))
        return log_time

    async def _replayed(
        self, index: int, log_time: int, overlay: Overlay, rebuilding: Suspension | None
    ) -> None:
        """What machines have written into their stores, with how far they have come."""
        changes = dict(overlay.changes)
        for name, header in list(self._headers.items()):
            machine = self._machines.machines.get(name)
            runs = self._machines.suspended.get(name) is rebuilding
            if machine is not None and machine.persistent and runs:
                self._headers[name] = replace(header, index=index, log_time=log_time)
                key, record = stored_states.header_record(name, self._headers[name])
                changes[key] = record
        if changes:
            await self._writer.write(changes)

    async def caught_up(self) -> None:
        """The replay has ended: machines with a store of their own need no header any more."""
        changes: dict[bytes, bytes | None] = {}
        for name in list(self._headers):
            machine = self._machines.machines.get(name)
            if machine is not None and machine.persistent and name not in self._machines.suspended:
                del self._headers[name]
                changes |= stored_states.removal(self._writer.engine, name)
        if changes:
            await self._writer.write(changes)

    # While running.

    def suspended(self, index: int, log_time: int, changes: Changes) -> None:
        """A slice up to `index` was applied: who did not run it, and has nothing stored, begins there again.

        `index` and `log_time` are those before the slice.
        """
        for name in self._machines.suspended:
            if name not in self._headers:
                self._headers[name] = stored_states.awaiting(index, log_time)
                changes.put(*stored_states.header_record(name, self._headers[name]))

    def retired(self, name: str, index: int, log_time: int, changes: Changes) -> None:
        """Nothing of it stays stored; if it is hosted again, that comes after this entry."""
        self._headers.pop(name, None)
        self._retained.pop(name, None)
        self._retired.add(name)
        for key in stored_states.removal(self._writer.engine, name):
            changes.delete(key)
        if name in self._storable:
            self._headers[name] = stored_states.awaiting(index - 1, log_time)
            changes.put(*stored_states.header_record(name, self._headers[name]))

    def needed_version(self, name: str) -> int:
        """The version of the stored state, with which a replay begins."""
        header = self._headers.get(name)
        return 1 if header is None else header.standing.version

    def has_stored(self, name: str, index: int) -> bool:
        """Whether the stored state of a machine holds the effect of that entry."""
        header = self._headers.get(name)
        return header is not None and header.index >= index

    async def rebuild(self, name: str) -> int:
        """A suspended machine back to its stored state: the index from where `replay` goes on."""
        self._retained.pop(name, None)
        if name in self._storable:
            await self._apply_worker.run(partial(self._restore_one, name))
        header = self._headers.get(name)
        return 0 if header is None else header.index

    async def capture(self, last_applied: int, log_time: int) -> CapturedStates:
        """States as they are now, between two slices."""
        self._retired.clear()
        states = await self._apply_worker.run(partial(self._machines.changed_states, self.missing))
        return CapturedStates(last_applied, log_time, states, self._entries, self._bytes)

    async def store(self, captured: CapturedStates) -> None:
        """Store what was captured. An unchanged state is only said to stand at the new index.

        Hold `storing`, from before `take` on. Nothing counts as stored until all of it is: whoever asked may
        be cancelled halfway.
        """
        for name, state in captured.states.items():
            await self._write_chunks(name, captured.last_applied, state)
        # A header for one that was retired meanwhile would name chunks that went with it.
        states = {name: state for name, state in captured.states.items() if name not in self._retired}
        new = {
            name: stored_states.header_for(states[name], captured.last_applied, captured.log_time)
            if name in states
            else replace(self._headers[name], index=captured.last_applied, log_time=captured.log_time)
            for name in sorted(self._storable)
            if name in states or name in self._headers
            if name not in self._machines.suspended and name not in self._retired
        }
        engine = self._writer.engine
        headers = self._headers | new
        needed = min((header.index for header in headers.values()), default=captured.last_applied)
        removed = stored_states.skips_up_to(engine, needed)
        await self._writer.write(stored_states.header_changes(engine, new) | removed)
        self._log_versions_over(new)
        self._headers |= {name: header for name, header in new.items() if name not in self._retired}
        self._machines.stored(states)
        self._entries -= captured.entries
        self._bytes -= captured.bytes
        if captured.states:
            self._stored_bytes = sum(state.size for state in captured.states.values())

    def _log_versions_over(self, new: Mapping[str, Header]) -> None:
        for name, header in new.items():
            before = self._headers.get(name)
            if before is not None and 0 < before.standing.version < header.standing.version:
                logger.info(
                    "this member needs nothing any more that a class keeps for older versions",
                    extra={"machine": name, "before": header.standing.version},
                )

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


def _step(command: Command, log_time: int, index: int, position: int) -> tuple[str, AnyStep] | None:
    """What a command is to a machine, and to which."""
    kind = command.WhichOneof("request")
    if kind == "machine_call":
        call = command.machine_call
        return call.machine, MachineCall(
            call.method, call.arguments, log_time, index, call.version or 1, position
        )
    if kind == "machine_change":
        change = command.machine_change
        if change.HasField("activate"):
            return change.machine, activation_from(change.activate, log_time, index, position)
        if change.HasField("retire"):
            return change.machine, RETIRED
    return None
