"""The user machines of a node: checked on the loop, run on one thread, one call at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from connect_kv.errors import BadCall, ConfigError, RefusedToStart, UnknownEntry
from connect_kv.framework.hosted import Call, Checked, HostedMachine, MethodDescription, Outcome
from connect_kv.kv.layout import Changes
from connect_kv.statemachine.stored_states import MachineState
from connect_kv.statemachine.stores import ReadStore, SliceStore
from connect_kv.storage.engine import Reader

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


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
        self._runs = dict.fromkeys(self.in_memory, 1)
        """How often the state of each may have changed..."""
        self._stored_runs = dict.fromkeys(self.in_memory, 0)
        """...and when it was stored last."""
        self._log_time = 0
        """Of the last command executed. Its slice may still be on its way to the database."""

    def describe(self) -> dict[str, tuple[str, tuple[MethodDescription, ...]]]:
        """Documentation and methods of each."""
        return {name: machine.describe() for name, machine in sorted(self._machines.items())}

    def check(self, machine: str, method: str, arguments: bytes | str) -> Checked:
        """Judge a call before anything is replicated. Raises BadCall."""
        try:
            return self._named(machine).check(method, arguments)
        except BadCall as error:
            raise BadCall(f"machine {machine!r}: {error}") from None

    def value_json(self, machine: str, method: str, value: bytes) -> str:
        """A returned value as JSON."""
        return self._named(machine).value_json(method, value)

    def knows(self, machine: str) -> bool:
        """Whether there is one of that name."""
        return machine in self._machines

    def execute(self, calls: Mapping[str, Sequence[Call]], changes: Changes) -> dict[str, list[Outcome]]:
        """Run commands, those of each machine in order. Raises what stops the node."""
        outcomes: dict[str, list[Outcome]] = {}
        for name, of_machine in calls.items():
            machine = self._machines[name]
            store = SliceStore(name, changes) if machine.persistent else None
            self._log_time = max(self._log_time, of_machine[-1].log_time)
            try:
                outcomes[name] = machine.execute(of_machine, store)
            except UnknownEntry as error:
                raise UnknownEntry(f"machine {name!r}: {error}; upgrade this member") from None
            if name in self._runs:
                self._runs[name] += 1
        return outcomes

    def query(self, name: str, method: str, arguments: bytes, log_time: int, reader: Reader) -> bytes:
        """Run one query, at `log_time` or when the last command ran. Raises BadCall, CommandFailed."""
        machine = self._named(name)
        log_time = max(log_time, self._log_time)
        try:
            return machine.query(method, arguments, log_time, ReadStore(name, reader))
        except BadCall as error:
            raise BadCall(f"machine {name!r}: {error}") from None

    def changed_states(self, names: Iterable[str]) -> dict[str, MachineState]:
        """Take the state of each of `names`, and of all that ran since the state that `stored` told of."""
        changed = {name for name, runs in self._runs.items() if runs != self._stored_runs[name]}
        return {
            name: MachineState(self._machines[name].snapshot(), self._runs[name])
            for name in sorted(changed | set(names))
        }

    def stored(self, states: Mapping[str, MachineState]) -> None:
        """These states are stored now. Until then they count as changed: storing them may be given up."""
        self._stored_runs.update({name: state.runs for name, state in states.items()})

    def first_states(self) -> dict[str, MachineState]:
        """The state of each as it was made, to go back to."""
        return {
            name: MachineState(self._machines[name].snapshot())
            for name in self.in_memory
            if self._machines[name].can_snapshot
        }

    def restore(self, name: str, chunks: Iterable[bytes]) -> None:
        """Replace the state of one. Raises RefusedToStart if its class cannot take it."""
        taken = list(chunks)
        try:
            self._machines[name].restore(iter(taken))
        except Exception as error:
            raise RefusedToStart(
                f"machine {name!r} cannot restore its stored state: {type(error).__name__}: {error}"
            ) from error
        self._stored_runs[name] = self._runs[name]

    def _named(self, name: str) -> HostedMachine:
        machine = self._machines.get(name)
        if machine is None:
            known = ", ".join(sorted(self._machines)) or "none"
            raise BadCall(f"unknown machine {name!r}; there are: {known}")
        return machine
