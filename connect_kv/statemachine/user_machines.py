"""The user machines of a node: checked on the loop, run on one thread, one call at a time.

What goes wrong in a machine stays in it: one that cannot go on is suspended, and the others do not notice.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from connect_kv.errors import BadCall, CommandFailed, ConfigError, CorruptStorage, MachineSuspended
from connect_kv.kv.layout import Changes
from connect_kv.statemachine.code_records import OLD
from connect_kv.statemachine.hosted import (
    Activation,
    Halt,
    HostedMachine,
    MachineCall,
    Outcome,
    Standing,
    Step,
)
from connect_kv.statemachine.machine_counts import MachineCounts
from connect_kv.statemachine.stored_states import Header, MachineState
from connect_kv.statemachine.stores import ReadStore, SliceStore
from connect_kv.storage import codec
from connect_kv.storage.engine import Reader
from connect_kv.storage.overlay import Overlay

logger = logging.getLogger(__name__)


_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")

NOT_HOSTED = "this member does not host it: add it here, or retire it"


@dataclass(frozen=True, slots=True)
class Suspension:
    """Why a machine does not go on on this member."""

    reason: str
    index: int
    """The entry at which it stopped; 0 if that was not at one."""
    position: int = 0
    """Of the command within it."""

    def of(self, name: str) -> str:
        """Why the machine of that name does not go on here, for people."""
        at = f" at entry {self.index}" if self.index else ""
        return f"machine {name!r} is suspended on this member{at}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Passed:
    """What comes of a command on a member whose machine is suspended: others have run it."""

    reason: str


class Retired:
    """A step: the machine goes back to where it began."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A step: a digest of the state is taken."""

    index: int


RETIRED = Retired()

AnyStep = Step | Retired | Measure

AnyOutcome = Outcome | Passed


class UserMachines:
    """All user machines by name. Raises ConfigError for a combination that cannot work."""

    def __init__(self, machines: Mapping[str, HostedMachine]) -> None:
        self._machines = dict(machines)
        for name, machine in machines.items():
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    f"machine {name!r}: a name is a letter, then letters, digits, '_', '.', '-'"
                )
            if not machine.can_snapshot and len(machines) > 1:
                raise ConfigError(
                    f"machine {name!r} cannot be stored (it has no snapshot and restore), so the log could "
                    "never be compacted: it cannot run beside other machines"
                )
        self.in_memory = tuple(sorted(name for name, one in machines.items() if not one.persistent))
        """Those whose state is rebuilt at start: from a stored state and the log after it."""
        self.can_snapshot = all(machine.can_snapshot for machine in machines.values())
        self._suspended: dict[str, Suspension] = {}
        self.counts = MachineCounts({name: machine.names for name, machine in machines.items()})
        """Commands that were applied and queries that were answered; what is run again counts once."""
        self._first = {
            name: MachineState(machines[name].snapshot(), standing=machines[name].standing)
            for name in self.in_memory
            if machines[name].can_snapshot
        }
        self._runs = dict.fromkeys(self.in_memory, 1)
        """How often the state of each may have changed..."""
        self._stored_runs = dict.fromkeys(self.in_memory, 0)
        """...and when it was stored last."""
        self._rebuilding: Suspension | None = None
        self.measured: tuple[int, dict[str, bytes]] = (0, {})
        """Digests of states, and the entry that asked for them."""
        self._log_time = 0
        """Of the last command executed. Its slice may still be on its way to the database."""

    @property
    def machines(self) -> Mapping[str, HostedMachine]:
        """Those hosted here, by name."""
        return self._machines

    @property
    def suspended(self) -> Mapping[str, Suspension]:
        """Those that do not go on here, and why."""
        return self._suspended

    @property
    def storable(self) -> frozenset[str]:
        """Machines in memory whose state can be stored."""
        return frozenset(self._first)

    def first_chunks(self, name: str) -> list[bytes]:
        """The state with which it begins; nothing where that is not in memory."""
        return self._first[name].chunks if name in self._first else []

    def runs(self, name: str) -> bool:
        """Whether there is one of that name, and it goes on."""
        return name in self._machines and name not in self._suspended

    def replays(self, name: str) -> bool:
        """Whether calls of it may be met again in a replay."""
        return name in self._runs or not self.runs(name)

    # On the apply thread.

    def execute(
        self,
        steps: Mapping[str, Sequence[AnyStep]],
        changes: Changes,
        *,
        rebuilding: Suspension | None = None,
    ) -> dict[str, list[AnyOutcome]]:
        """Run commands, those of each machine in order, with what else befalls it between them.

        One outcome for each command. A machine that cannot go on is suspended. With `rebuilding`, one is
        run that is suspended for this reason, and only while it is: it may stop anew, or be retired.
        """
        self._rebuilding = rebuilding
        return {name: self._run(name, of_machine, changes) for name, of_machine in steps.items()}

    def _run(self, name: str, steps: Sequence[AnyStep], changes: Changes) -> list[AnyOutcome]:
        outcomes: list[AnyOutcome] = []
        waiting: list[Step] = []
        for step in steps:
            if isinstance(step, Measure):
                outcomes += self._run_together(name, waiting, changes)
                waiting = []
                self._measure(name, step.index)
            elif isinstance(step, Retired):
                outcomes += self._run_together(name, waiting, changes)
                waiting = []
                self._retire(name, changes)
            else:
                waiting.append(step)
        return outcomes + self._run_together(name, waiting, changes)

    def _run_together(self, name: str, steps: Sequence[Step], changes: Changes) -> list[AnyOutcome]:
        if not steps:
            return []
        machine = self._machines.get(name)
        if machine is None and name not in self._suspended:
            self.suspend(name, NOT_HOSTED, steps[0])
        if machine is None or self._suspended.get(name) is not self._rebuilding:
            return self._passed(name, steps)
        self._log_time = max(self._log_time, steps[-1].log_time)
        if name in self._runs:
            self._runs[name] += 1
        # What a machine has written before it stops is not kept: it runs these steps again later.
        written = Overlay(changes) if machine.persistent else None
        try:
            outcomes = machine.execute(steps, SliceStore(name, written) if written is not None else None)
        except Halt as halt:
            at = steps[0] if machine.persistent else halt.at or steps[0]
            self.suspend(name, halt.reason, at)
            done: list[Outcome] = [] if machine.persistent else halt.outcomes
            return [*done, *self._passed(name, steps)[len(done) :]]
        if written is not None:
            for key, value in written.changes.items():
                changes.delete(key) if value is None else changes.put(key, value)
        return list(outcomes)

    def _passed(self, name: str, steps: Sequence[Step]) -> list[AnyOutcome]:
        suspension = self._suspended.get(name) or Suspension("it was retired", 0)
        reason = f"{suspension.of(name)}; others may have run this call"
        return [Passed(reason) for step in steps if isinstance(step, MachineCall)]

    def _measure(self, name: str, index: int) -> None:
        if index != self.measured[0]:
            self.measured = (index, {})
        if self.runs(name) and (digest := self._machines[name].digest()) is not None:
            self.measured[1][name] = digest

    def _retire(self, name: str, changes: Changes) -> None:
        self._suspended.pop(name, None)
        machine = self._machines.get(name)
        if machine is not None and machine.persistent:
            store = SliceStore(name, changes)
            for key in [key for key, _ in store.iterate()]:
                store.delete(key)
        if name in self._first:
            self.restore(name, self._first[name].chunks, Standing(0))
            self._runs[name] += 1

    def query(self, name: str, method: str, arguments: bytes, log_time: int, reader: Reader) -> bytes:
        """Run one query, at `log_time` or when the last command ran.

        Raises BadCall, CommandFailed, MachineSuspended.
        """
        machine = self._named(name)
        log_time = max(log_time, self._log_time)
        counts = self.counts.query(name, method)
        assert counts is not None
        try:
            value = machine.query(method, arguments, log_time, ReadStore(name, reader))
        except BadCall as error:
            counts.not_run += 1
            raise BadCall(f"machine {name!r}: {error}") from None
        except CommandFailed:
            counts.raised += 1
            raise
        counts.returned += 1
        return value

    def try_upgrade(self, name: str, version: int) -> str | None:
        """Upgrade a copy of its state: what goes wrong, if anything does."""
        try:
            self._named(name).try_upgrade(version)
        except BaseException as error:
            return f"upgrade to version {version}: {type(error).__name__}: {error}"
        return None

    # States.

    def changed_states(self, names: Iterable[str]) -> dict[str, MachineState]:
        """Take the state of each of `names`, and of all that ran since the state that `stored` told of.

        One whose state cannot be taken is suspended.
        """
        changed = {name for name, runs in self._runs.items() if runs != self._stored_runs[name]}
        states: dict[str, MachineState] = {}
        for name in sorted((changed | set(names)) & set(self._runs)):
            if name in self._suspended:
                continue
            machine = self._machines[name]
            try:
                states[name] = MachineState(machine.snapshot(), self._runs[name], machine.standing)
            except BaseException as error:
                self.suspend(name, f"its state cannot be stored: {type(error).__name__}: {error}")
        return states

    def stored(self, states: Mapping[str, MachineState]) -> None:
        """These states are stored now. Until then they count as changed: storing them may be given up."""
        self._stored_runs.update({name: state.runs for name, state in states.items()})

    def begin(self, headers: Mapping[str, Header]) -> None:
        """Everything is loaded anew: nothing is suspended, but what is stored here and not hosted."""
        self._suspended.clear()
        for name, header in headers.items():
            if name not in self._machines:
                self._suspend(name, Suspension(NOT_HOSTED, header.index if header.first else 0))

    def restore_first(self, name: str) -> None:
        """Back to where it began."""
        self.restore(name, self._first[name].chunks, Standing(0))

    def restore(self, name: str, chunks: Iterable[bytes], standing: Standing = OLD) -> None:
        """Replace the state of one. Where its class cannot take it, the machine is suspended."""
        taken = list(chunks)
        try:
            self._machines[name].restore(iter(taken), standing)
        except Halt as halt:
            self.suspend(name, halt.reason)
        except BaseException as error:
            reason = f"its stored state cannot be restored: {type(error).__name__}: {error}"
            self.suspend(name, reason)
        self._stored_runs[name] = self._runs[name]

    def suspend(self, name: str, reason: str, at: Step | None = None) -> None:
        """It does not go on here until it is loaded anew."""
        index, position = (
            (at.entry_index, at.position) if isinstance(at, MachineCall | Activation) else (0, 0)
        )
        self._suspend(name, Suspension(reason, index, position))

    def resume(self, name: str, suspension: Suspension) -> None:
        """Its state was built anew; unless it has stopped for another reason meanwhile, it goes on."""
        if self._suspended.get(name) is suspension:
            del self._suspended[name]

    def _suspend(self, name: str, suspension: Suspension) -> None:
        self._suspended[name] = suspension
        logger.error(suspension.of(name))

    def _named(self, name: str) -> HostedMachine:
        if (suspension := self._suspended.get(name)) is not None:
            raise MachineSuspended(suspension.of(name))
        machine = self._machines.get(name)
        if machine is None:
            known = ", ".join(sorted(self._machines)) or "none"
            raise BadCall(f"unknown machine {name!r}; there are: {known}")
        return machine


_RETIRED_KIND = 1


class RetiredMachines:
    """Used by apply; names."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def __contains__(self, name: object) -> bool:
        return name in self._names

    @property
    def names(self) -> list[str]:
        """The names of all machines, sorted."""
        return sorted(self._names)

    def load(self, reader: Reader) -> None:
        """Replace everything by what is stored. Raises CorruptStorage."""
        start, stop = bytes((codec.MACHINES, _RETIRED_KIND)), bytes((codec.MACHINES, _RETIRED_KIND + 1))
        try:
            self._names = {key[2:].decode() for key, _ in reader.iterate(start, stop)}
        except UnicodeDecodeError as error:
            raise CorruptStorage("state", f"retired machines: {error}") from error

    def retire(self, name: str, changes: Changes) -> None:
        """From now on its calls are refused."""
        self._names.add(name)
        changes.put(_key(name), b"")

    def host(self, name: str, changes: Changes) -> None:
        """From now on they are not."""
        self._names.discard(name)
        changes.delete(_key(name))


def _key(name: str) -> bytes:
    return bytes((codec.MACHINES, _RETIRED_KIND)) + name.encode()
