"""One slice of entries from parsing to results: who runs a command, and what its session says."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from connect_kv.auth.judgement import judge, on_leases
from connect_kv.auth.table import AuthRefused, AuthTable
from connect_kv.errors import CommandFailed, CorruptStorage, Refused, UnknownEntry
from connect_kv.interfaces import Clock, Worker
from connect_kv.kv.layout import Changes
from connect_kv.kv.machine import KvMachine
from connect_kv.kv.moment import Moment
from connect_kv.kv.proposer import BY_SERVER
from connect_kv.kv.scan import Walk
from connect_kv.raft.types import Entry, EntryKind
from connect_kv.rpc.command_pb2 import Command, Done, EncodedSessionBatch, Failure, Result
from connect_kv.rpc.maintenance_pb2 import CORRUPT, NOSPACE
from connect_kv.statemachine.batches import command_from, commands_from, encoded, session_batch, with_session
from connect_kv.statemachine.cluster import ClusterTable
from connect_kv.statemachine.code_records import activation_from
from connect_kv.statemachine.hosted import MachineCall
from connect_kv.statemachine.loop_budget import LOOK_AT_CLOCK, LoopBudget
from connect_kv.statemachine.machine_counts import MethodCounts
from connect_kv.statemachine.machine_results import encoded_result
from connect_kv.statemachine.sessions import SessionTable, Slot
from connect_kv.statemachine.stored_states import skip_key
from connect_kv.statemachine.user_machines import (
    RETIRED,
    AnyOutcome,
    AnyStep,
    Measure,
    RetiredMachines,
    UserMachines,
)

_SHORT = frozenset(("put", "machine_call"))
"""They take some microseconds here; others may take a millisecond before their first pause."""
_PARSED_AT_ONCE = 32
"""Commands of a session batch, between two looks at the clock."""
_NOT_FOUND = 5
_INTERNAL = 13
_PENDING = Result(failure=Failure(code=_INTERNAL, message="connect-kv: not finished")).SerializeToString()
"""Stands where a result will be."""


@dataclass(slots=True)
class Slice:
    """What applying some entries has given so far."""

    overlay: Changes
    at: Moment
    pace: LoopBudget
    rows: list[list[bytes]] = field(default_factory=list)
    """For each entry, one encoded Result per command: most of them are only stored, or sent on."""
    steps: defaultdict[str, list[AnyStep]] = field(default_factory=lambda: defaultdict(list))
    """Machine calls to run, and what else befalls machines, by machine."""
    changed: bool = False
    """Whether it holds a decision about a machine as a whole."""
    skips: list[tuple[str, int, int]] = field(default_factory=list)
    """(machine, index, position) of commands that are passed over by decision."""
    retired: dict[str, int] = field(default_factory=dict)
    """Machines that were retired, at which entry: nothing of them stays stored."""
    places: defaultdict[str, list[tuple[list[bytes], int]]] = field(default_factory=lambda: defaultdict(list))
    """Of each machine call among them: the row of its result, and its number within its session."""
    judge: str | None = None
    """Whose the command at hand is, if it has to be judged again; None: it was judged by these rights."""
    user: str | None = None
    """Whose it is in any case; None: nobody is asked, or a member proposed it by itself."""
    unfinished: Walk[bytes] | None = None
    """The command whose result is to take the last place of its row, if it paused. Ended before the next."""
    copies: list[tuple[Slot, Slot]] = field(default_factory=list)
    """Duplicates within the slice: (where the answer will be, where it is wanted too)."""


class Dispatcher:
    """Applies slices; owns nothing, knows all machines."""

    def __init__(
        self,
        *,
        kv: KvMachine,
        sessions: SessionTable,
        cluster: ClusterTable,
        auth: AuthTable,
        machines: UserMachines,
        retired: RetiredMachines,
        apply_worker: Worker,
        clock: Clock,
    ) -> None:
        self._kv = kv
        self._retired = retired
        self._sessions = sessions
        self._cluster = cluster
        self._auth = auth
        self._machines = machines
        self._apply_worker = apply_worker
        self._clock = clock

    async def run(self, entries: Sequence[Entry], at: Moment, overlay: Changes) -> Slice:
        """Apply entries into `overlay`, pausing for others whenever that has held the loop for long.

        Raises UnknownEntry, and whatever else must stop the node.
        """
        work = Slice(overlay, at, LoopBudget(self._clock))
        self._sessions.begin(entries[-1].index)
        for entry in entries:
            row: list[bytes] = []
            work.rows.append(row)
            if entry.kind == EntryKind.COMMAND:
                try:
                    await self._entry(entry, row, work)
                except (DecodeError, struct.error) as error:
                    reason = f"a record that entry {entry.index} needs cannot be read: {error}"
                    raise CorruptStorage("state", reason) from error
        if work.steps:
            await self._run_steps(work)
        for source, target in work.copies:
            target.row[target.position] = source.row[source.position]
        await work.pace.through(self._sessions.finish(overlay))
        self._kv.seal(overlay)
        return work

    async def _entry(self, entry: Entry, row: list[bytes], work: Slice) -> None:
        batch, index, pace = encoded(entry), entry.index, work.pace
        work.at = work.at.after(batch.log_time, batch.elapsed)
        await pace.through(self._sessions.advance(work.at, work.overlay))
        for position, data in enumerate(batch.commands):
            if (together := session_batch(data, index)) is not None:
                await self._session_batch(together, row, index, work)
                continue
            command = command_from(data, index)
            kind = command.WhichOneof("request")
            self._note_user(command.user, command.judged, work)
            row.append(self._command(command, kind, row, index, work))
            if work.unfinished is not None:
                await self._finish(work, row)
            if (kind not in _SHORT or not position % LOOK_AT_CLOCK) and pace.due:
                await pace.rest()

    async def _session_batch(
        self, batch: EncodedSessionBatch, row: list[bytes], index: int, work: Slice
    ) -> None:
        """Commands of one session, admitted together if all are new, as they nearly always are."""
        self._note_user(batch.user, batch.judged, work)
        pace, encoded_commands = work.pace, batch.commands
        commands: list[Command] = []
        numbers: list[int] = []
        kinds: list[str | None] = []
        for start in range(0, len(encoded_commands), _PARSED_AT_ONCE):
            part = commands_from(encoded_commands[start : start + _PARSED_AT_ONCE], index)
            commands += part
            numbers += [command.number for command in part]
            kinds += [command.WhichOneof("request") for command in part]
            if pace.due:
                await pace.rest()
        together = "session_close" not in kinds and self._sessions.admit_all(
            batch.session, batch.floor, numbers, Slot(row, len(row)), index, work.at.now, work.overlay
        )
        if not together:
            for command, kind in zip(with_session(batch, commands), kinds, strict=True):
                row.append(self._command(command, kind, row, index, work))
                if work.unfinished is not None:
                    await self._finish(work, row)
                if pace.due:
                    await pace.rest()
            return
        put, overlay, judged = self._kv.plain_put, work.overlay, work.judge is None
        for position, (number, kind, command) in enumerate(zip(numbers, kinds, commands, strict=True)):
            result = None
            if judged and kind == "put":
                result = put(command.put, number, overlay)
            elif judged and kind == "machine_call":
                result = self._machine_call(command, row, index, work)
            row.append(result or self._execute(command, kind, row, index, work))
            if work.unfinished is not None:
                await self._finish(work, row)
            if (kind not in _SHORT or not position % LOOK_AT_CLOCK) and pace.due:
                await pace.rest()

    def _note_user(self, user: str, judged: int, work: Slice) -> None:
        auth = self._auth
        work.user = user if auth.enabled and judged != BY_SERVER else None
        work.judge = user if auth.judge_again(judged) else None

    async def _finish(self, work: Slice, row: list[bytes]) -> None:
        """Run a command that touches many keys to its end; others get the loop in between."""
        walk, work.unfinished = work.unfinished, None
        assert walk is not None
        pace = work.pace
        with closing(walk):
            while True:
                if pace.due:
                    await pace.rest()
                try:
                    next(walk)
                except StopIteration as end:
                    row[-1] = end.value
                    return

    def _command(
        self, command: Command, kind: str | None, row: list[bytes], index: int, work: Slice
    ) -> bytes:
        """The result of one command, or a placeholder until it is known."""
        if kind == "session_close":
            return self._sessions.close(command, work.overlay).SerializeToString()
        if command.session and kind != "session_open":
            slot = Slot(row, len(row))
            answer = self._sessions.admit(command, slot, index, work.at.now, work.overlay, work.overlay)
            if answer is not None:
                if kind == "machine_call" and self._machines.replays(command.machine_call.machine):
                    work.overlay.put(skip_key(index, len(row)), b"")
                if isinstance(answer, Slot):
                    work.copies.append((answer, slot))
                    return _PENDING
                return answer
        return self._execute(command, kind, row, index, work)

    def _execute(
        self, command: Command, kind: str | None, row: list[bytes], index: int, work: Slice
    ) -> bytes:
        """Run a command that its session, if it has one, admitted."""
        number = command.number
        user = work.judge
        if user is None and work.user is not None and on_leases(command, kind):
            user = work.user
        if user is not None:
            refused = judge(self._auth, command, kind, user, work.overlay)
            if refused is not None:
                if kind == "machine_call":  # a replay of this machine must not run it either
                    work.overlay.put(skip_key(index, len(row)), b"")
                return _refused(refused, number)
        if kind == "put":
            done = self._kv.plain_put(command.put, number, work.overlay)
            if done is not None:
                return done
        if kind in self._kv.REQUESTS:
            walk = self._kv.apply(command, index, work.at, work.overlay)
            try:
                next(walk)
            except StopIteration as end:
                return bytes(end.value)
            work.unfinished = walk
            return _PENDING
        if kind == "machine_call":
            return self._machine_call(command, row, index, work)
        if kind == "machine_change":
            return self._machine_change(command, row, index, work)
        if kind == "auth":
            result = self._of_auth(command, index, work)
        elif kind == "session_open":
            request, position = command.session_open, len(row)
            result = self._sessions.open(request, index, position, work.at, work.overlay)
        elif kind in ("alarm", "member_publish"):
            result = self._of_cluster(command, kind, work)
        else:
            raise UnknownEntry(
                f"entry {index} holds a command ({kind or 'of an unknown kind'}) that this version "
                "cannot apply: upgrade this member"
            )
        if number:
            result.number = number
        return result.SerializeToString()

    def _machine_call(self, command: Command, row: list[bytes], index: int, work: Slice) -> bytes:
        call = command.machine_call
        name, position = call.machine, len(row)
        if name in self._retired:
            work.overlay.put(skip_key(index, position), b"")
            failure = Failure(code=_NOT_FOUND, message=f"connect-kv: machine {name!r} was retired")
            return Result(number=command.number, failure=failure).SerializeToString()
        step = MachineCall(call.method, call.arguments, work.at.log_time, index, call.version or 1, position)
        work.steps[name].append(step)
        work.places[name].append((row, command.number))
        return _PENDING

    def _machine_change(self, command: Command, row: list[bytes], index: int, work: Slice) -> bytes:
        """What befalls a machine as a whole, in its turn among its calls."""
        work.changed = True
        change, position = command.machine_change, len(row)
        name = change.machine
        match change.WhichOneof("change"):
            case "activate":
                if name in self._retired:
                    work.overlay.put(skip_key(index, position), b"")
                else:
                    step = activation_from(change.activate, work.at.log_time, index, position)
                    work.steps[name].append(step)
            case "skip":
                work.skips.append((name, change.skip.index, change.skip.position))
            case "retire":
                self._retired.retire(name, work.overlay)
                work.retired[name] = index
                work.steps[name].append(RETIRED)
            case "measure":
                for one in self._machines.in_memory:
                    work.steps[one].append(Measure(index))
            case "host":
                self._retired.host(name, work.overlay)
            case _:
                raise UnknownEntry(
                    f"entry {index} changes machine {name!r} in a way that this version does not know: "
                    "upgrade this member"
                )
        return Result(number=command.number, machine_change=Done()).SerializeToString()

    def _of_auth(self, command: Command, index: int, work: Slice) -> Result:
        """A change of users, roles or the switch: what follows in the log is judged by it."""
        try:
            return Result(auth=self._auth.apply(command.auth, index, work.overlay))
        except AuthRefused as refused:
            return refused.refusal.result()
        except NotImplementedError:
            raise UnknownEntry(
                f"entry {index} changes users or roles in a way that this version does not know: "
                "upgrade this member"
            ) from None

    def _of_cluster(self, command: Command, kind: str, work: Slice) -> Result:
        result = Result()
        if kind == "alarm":
            result.alarm.CopyFrom(self._cluster.alarm(command.alarm, work.overlay))
            result.alarm.header.revision = self._kv.applied_revision
            set_alarms(self._kv, self._cluster)
        else:
            self._cluster.publish(command.member_publish, work.overlay)
            result.member_publish.CopyFrom(Done())
        return result

    async def _run_steps(self, work: Slice) -> None:
        """All machine calls of the slice, in one call on the apply thread."""
        outcomes = await self._apply_worker.run(lambda: self._machines.execute(work.steps, work.overlay))
        for name, places in work.places.items():
            calls = (step for step in work.steps[name] if isinstance(step, MachineCall))
            method: str | None = None
            counts: MethodCounts | None = None
            for place, ((row, number), call, outcome) in enumerate(
                zip(places, calls, outcomes[name], strict=True)
            ):
                if call.method != method:
                    method = call.method
                    counts = self._machines.counts.command(name, method)
                if counts is not None:  # it is hosted here
                    _count(counts, outcome)
                row[call.position] = encoded_result(outcome, number)
                if not place % LOOK_AT_CLOCK and work.pace.due:
                    await work.pace.rest()


def _count(counts: MethodCounts, outcome: AnyOutcome) -> None:
    if isinstance(outcome, bytes):
        counts.returned += 1
    elif isinstance(outcome, CommandFailed):
        counts.raised += 1
    else:
        counts.not_run += 1


def _refused(refused: Refused, number: int) -> bytes:
    failure = Failure(code=refused.code, message=refused.message)
    return Result(number=number, failure=failure).SerializeToString()


def set_alarms(kv: KvMachine, cluster: ClusterTable) -> None:
    """Alarms decide which requests the key/value machine refuses."""
    kv.no_space = cluster.active(NOSPACE)
    kv.corrupt = cluster.active(CORRUPT)
