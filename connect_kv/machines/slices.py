"""One slice of entries from parsing to results: who runs a command, and what its session says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.message import DecodeError

from connect_kv.errors import CommandFailed, UnknownEntry
from connect_kv.framework.hosted import Call, Outcome
from connect_kv.interfaces import Clock, Worker
from connect_kv.kv.layout import Changes, Source
from connect_kv.machines.cluster import ClusterTable
from connect_kv.machines.sessions import SessionTable, Slot
from connect_kv.machines.stored_states import skip_key
from connect_kv.machines.user_machines import UserMachines
from connect_kv.raft.types import Entry, EntryKind
from connect_kv.rpc.command_pb2 import Command, CommandBatch, Done, Failure, MachineReply, Result
from connect_kv.rpc.maintenance_pb2 import CORRUPT, NOSPACE

LOOP_SECONDS = 0.002
"""How long a slice holds the loop before others get a turn."""
_LOOK_AT_CLOCK = 8
"""Commands between two looks."""

HIGHEST_COMMAND: int = Command.MEMBER_PUBLISH_FIELD_NUMBER
"""Largest number of a command that this version can apply: what a member publishes, and says in a hello."""

_ABORTED = 10
_INTERNAL = 13
_PENDING = Result(failure=Failure(code=_INTERNAL, message="connect-kv: not finished"))
"""Stands where a result will be."""


class KeyValue(Protocol):
    """The key/value machine as the host uses it."""

    REQUESTS: frozenset[str]
    no_space: bool
    corrupt: bool

    @property
    def revision(self) -> int:
        """Of the last published slice."""

    @property
    def cleanup_pending(self) -> bool:
        """Whether `cleanup` has something to do."""

    def load(self, source: Source) -> None:
        """Continue from that database."""

    def apply(self, command: Command, index: int, log_time: int, overlay: Changes) -> Result:
        """Execute one command."""

    def published(self) -> None:
        """The slice is in the database."""

    def cleanup(self, overlay: Changes) -> None:
        """Remove a little of what compactions left."""

    def close(self) -> None:
        """End reads and watches."""


@dataclass(slots=True)
class Slice:
    """What applying some entries has given so far."""

    overlay: Changes
    log_time: int
    rows: list[list[Result]] = field(default_factory=list)
    """For each entry, one result per command."""
    calls: dict[str, list[Call]] = field(default_factory=dict)
    """Machine calls to run, by machine."""
    call_slots: dict[str, list[Slot]] = field(default_factory=dict)
    """Where their results belong."""
    copies: list[tuple[Slot, Slot]] = field(default_factory=list)
    """Duplicates within the slice: (where the answer will be, where it is wanted too)."""


class Dispatcher:
    """Applies slices; owns nothing, knows all machines."""

    def __init__(
        self,
        *,
        kv: KeyValue,
        sessions: SessionTable,
        cluster: ClusterTable,
        machines: UserMachines,
        apply_worker: Worker,
        clock: Clock,
    ) -> None:
        self._kv = kv
        self._sessions = sessions
        self._cluster = cluster
        self._machines = machines
        self._in_memory = frozenset(machines.in_memory)
        self._apply_worker = apply_worker
        self._clock = clock

    async def run(self, entries: Sequence[Entry], log_time: int, overlay: Changes) -> Slice:
        """Apply entries into `overlay`. Raises UnknownEntry, and whatever else must stop the node."""
        work = Slice(overlay, log_time)
        self._sessions.begin(entries[-1].index)
        for entry in entries:
            row: list[Result] = []
            work.rows.append(row)
            if entry.kind == EntryKind.COMMAND:
                await self._entry(entry, row, work)
        if work.calls:
            await self._run_calls(work)
        for source, target in work.copies:
            target.row[target.position] = source.row[source.position]
        self._sessions.finish(overlay)
        return work

    async def _entry(self, entry: Entry, row: list[Result], work: Slice) -> None:
        batch = parse(entry)
        work.log_time = max(work.log_time, batch.log_time)
        self._sessions.advance(work.log_time, work.overlay)
        index, now, started = entry.index, self._clock.now, self._clock.now()
        for position, command in enumerate(batch.commands):
            row.append(self._command(command, row, index, position, work))
            if not position % _LOOK_AT_CLOCK and now() - started > LOOP_SECONDS:
                await asyncio.sleep(0)
                started = now()

    def _command(self, command: Command, row: list[Result], index: int, position: int, work: Slice) -> Result:
        """The result of one command, or a placeholder until it is known."""
        kind = command.WhichOneof("request")
        if kind in self._kv.REQUESTS:
            return self._key_value(command, row, index, position, work)
        match kind:
            case "machine_call":
                return self._machine_call(command, row, index, position, work)
            case "session_open":
                return self._sessions.open(command.session_open, index, position, work.log_time, work.overlay)
            case "session_close":
                return self._sessions.close(command, work.overlay)
            case "alarm" | "member_publish":
                return self._of_cluster(command, kind, row, index, position, work)
            case _:
                raise UnknownEntry(
                    f"entry {index} holds a command ({kind or 'of an unknown kind'}) that this version "
                    "cannot apply: upgrade this member"
                )

    def _key_value(
        self, command: Command, row: list[Result], index: int, position: int, work: Slice
    ) -> Result:
        if command.session:
            answer = self._admit(command, Slot(row, position), index, work)
            if answer is not None:
                return answer
        result = self._kv.apply(command, index, work.log_time, work.overlay)
        if command.number:
            result.number = command.number
        return result

    def _machine_call(
        self, command: Command, row: list[Result], index: int, position: int, work: Slice
    ) -> Result:
        call, slot = command.machine_call, Slot(row, position)
        name = call.machine
        if not self._machines.knows(name):
            raise UnknownEntry(f"entry {index} calls machine {name!r}, which is not configured here: add it")
        if command.session:
            answer = self._admit(command, slot, index, work)
            if answer is not None:
                if name in self._in_memory:
                    work.overlay.put(skip_key(index, position), b"")
                return answer
        if name not in work.calls:
            work.calls[name], work.call_slots[name] = [], []
        work.calls[name].append(Call(call.method, call.arguments, work.log_time, index))
        work.call_slots[name].append(slot)
        return Result(number=command.number) if command.number else _PENDING

    def _of_cluster(
        self, command: Command, kind: str, row: list[Result], index: int, position: int, work: Slice
    ) -> Result:
        if command.session:
            answer = self._admit(command, Slot(row, position), index, work)
            if answer is not None:
                return answer
        result = Result(number=command.number)
        if kind == "alarm":
            result.alarm.CopyFrom(self._cluster.alarm(command.alarm, work.overlay))
            result.alarm.header.revision = self._kv.revision
            set_alarms(self._kv, self._cluster)
        else:
            self._cluster.publish(command.member_publish, work.overlay)
            result.member_publish.CopyFrom(Done())
        return result

    def _admit(self, command: Command, slot: Slot, index: int, work: Slice) -> Result | None:
        """None if it is to be run; otherwise its answer, or a placeholder for it."""
        answer = self._sessions.admit(command, slot, index, work.log_time, work.overlay, work.overlay)
        if isinstance(answer, Slot):
            work.copies.append((answer, slot))
            return _PENDING
        return answer

    async def _run_calls(self, work: Slice) -> None:
        """All machine calls of the slice, in one call on the apply thread."""
        outcomes = await self._apply_worker.run(lambda: self._machines.execute(work.calls, work.overlay))
        for name, slots in work.call_slots.items():
            for slot, outcome in zip(slots, outcomes[name], strict=True):
                number = slot.row[slot.position].number
                slot.row[slot.position] = result_of(outcome, number)


def parse(entry: Entry) -> CommandBatch:
    """The commands of an entry. Raises UnknownEntry."""
    try:
        return CommandBatch.FromString(entry.data)
    except DecodeError as error:
        raise UnknownEntry(f"entry {entry.index} is no batch of commands: {error}") from error


def result_of(outcome: Outcome, number: int) -> Result:
    """What a machine returned or raised, as it travels."""
    if isinstance(outcome, CommandFailed):
        failure = Failure(code=_ABORTED, message=outcome.message, type=outcome.type)
        return Result(number=number, failure=failure)
    return Result(number=number, machine_call=MachineReply(value=outcome))


def set_alarms(kv: KeyValue, cluster: ClusterTable) -> None:
    """Alarms decide which requests the key/value machine refuses."""
    kv.no_space = cluster.active(NOSPACE)
    kv.corrupt = cluster.active(CORRUPT)
