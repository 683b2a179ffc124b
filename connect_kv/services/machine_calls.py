"""Calls of user machines, judged before anything is replicated: by both doors alike."""

from __future__ import annotations

from collections.abc import Mapping

from connect_kv.errors import BadCall
from connect_kv.framework.hosted import Checked, HostedMachine


class NoSuchMethod(BadCall):
    """There is no machine, or no method, of that name: NOT_FOUND to the caller."""


class MachineCalls:
    """The machines this member hosts, by name."""

    def __init__(self, machines: Mapping[str, HostedMachine]) -> None:
        self.machines = dict(sorted(machines.items()))
        self._methods = {
            name: frozenset(method.name for method in machine.describe()[1])
            for name, machine in self.machines.items()
        }

    def check(self, machine: str, method: str, arguments: bytes | str) -> Checked:
        """Whether it is a command or a query, and its arguments complete.

        Raises NoSuchMethod, or BadCall for its arguments.
        """
        methods = self._methods.get(machine)
        if methods is None:
            raise NoSuchMethod(f"connect-kv: {_unknown('machine', machine, self._methods)}")
        if method not in methods:
            raise NoSuchMethod(f"connect-kv: {machine}: {_unknown('method', method, methods)}")
        return self.machines[machine].check(method, arguments)


def _unknown(kind: str, name: str, known: Mapping[str, object] | frozenset[str]) -> str:
    names = ", ".join(sorted(known)) or "none"
    return f"unknown {kind} {name[:200]!r}; there is {names}"
