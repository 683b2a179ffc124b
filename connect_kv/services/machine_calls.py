"""Calls of user machines, judged before anything is replicated: by both doors alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Mapping
from functools import lru_cache

from connect_kv.errors import BadCall, MachineSuspended
from connect_kv.events import Signal
from connect_kv.node.node import RaftNode
from connect_kv.rpc.command_pb2 import Command, MemberPublish
from connect_kv.statemachine.activation import Claims, claims_from, lacking
from connect_kv.statemachine.hosted import Checked, HostedMachine, NotActive
from connect_kv.statemachine.user_machines import UserMachines

_CHANGE: int = Command.MACHINE_CHANGE_FIELD_NUMBER
_claims = lru_cache(256)(claims_from)


class NoSuchMethod(BadCall):
    """There is no machine, or no method, of that name: NOT_FOUND to the caller."""


class MemberClaims:
    """What the members say of their machines."""

    def __init__(self, node: RaftNode[bytes], published: Callable[[], Mapping[int, MemberPublish]]) -> None:
        self._node = node
        self._published = published

    def by_member(self) -> dict[str, Claims | None]:
        """By the member's name; None if it has not been heard."""
        published, heard = self._published(), self._node.machines
        found: dict[str, Claims | None] = {}
        for node_id in self._node.membership.node_ids:
            name = published[node_id].name if node_id in published else f"{node_id:x}"
            record = heard.get(node_id)
            found[name] = None if record is None else _claims(record)
        return found

    @property
    def can_found(self) -> bool:
        """Whether the cluster can found machines: not while it has members of an older release."""
        return not 0 < self._node.common_highest_command < _CHANGE


class MachineCalls:
    """The machines this member hosts, called under the version that is active."""

    def __init__(
        self,
        machines: UserMachines,
        retired: Container[str] = (),
        claims: MemberClaims | None = None,
        changed: Signal | None = None,
    ) -> None:
        """`claims` of the members, to name those that a version waits for; `changed` tells of machines that
        have begun.
        """
        self._change: asyncio.Future[None] | None = None
        """For all who wait for the next change."""
        if changed is not None:
            changed.subscribe(self._tell)
        self._machines = machines
        self._retired = retired
        self._claims = claims
        self.machines: Mapping[str, HostedMachine] = dict(sorted(machines.machines.items()))
        self._methods = {name: machine.names for name, machine in self.machines.items()}

    def _tell(self) -> None:
        change, self._change = self._change, None
        if change is not None:
            change.set_result(None)

    def check(self, machine: str, method: str, arguments: bytes | str) -> Checked:
        """Whether it is a command or a query, its arguments, and under which version they were checked.

        Raises NoSuchMethod, BadCall for its arguments or its version, MachineSuspended.
        """
        if machine in self._retired:
            raise NoSuchMethod(f"connect-kv: machine {machine[:200]!r} was retired")
        if (suspension := self._machines.suspended.get(machine)) is not None:
            raise MachineSuspended(f"connect-kv: {suspension.of(machine)}")
        methods = self._methods.get(machine)
        if methods is None:
            raise NoSuchMethod(f"connect-kv: {_unknown('machine', machine, self._methods)}")
        if method not in methods:
            text = _unknown("method", method, methods)
            raise NoSuchMethod(f"connect-kv: {machine}: {text}{self._newer(machine)}")
        try:
            return self.machines[machine].check(method, arguments)
        except NotActive as early:
            waits = lacking(machine, early.version, self._members()) or "it is about to be"
            raise BadCall(
                f"connect-kv: version {early.version} of `{machine}` is not active: {waits}"
            ) from None

    def _members(self) -> dict[str, Claims | None]:
        return {} if self._claims is None else self._claims.by_member()

    @property
    def any_unfounded(self) -> bool:
        """Whether any machine here has not begun. Cheap."""
        return any(not machine.standing.version for machine in self.machines.values())

    def unfounded(self, machine: str) -> bool:
        """Whether its commands must wait until the cluster has founded it, which it can."""
        found = self.machines.get(machine)
        if found is None or not found.codes or found.standing.version:
            return False
        if machine in self._retired or machine in self._machines.suspended:
            return False
        return self._claims is not None and self._claims.can_found

    async def founded(self, machine: str, time_limit: float) -> None:
        """Wait until it is. Raises MachineSuspended saying whom it waits for."""
        try:
            async with asyncio.timeout(time_limit):
                while self.unfounded(machine):
                    if self._change is None:
                        self._change = asyncio.get_running_loop().create_future()
                    await asyncio.shield(self._change)
        except TimeoutError:
            waits = lacking(machine, self.machines[machine].newest, self._members()) or "members differ"
            raise MachineSuspended(
                f"connect-kv: machine {machine!r} has not begun; nothing was proposed: {waits}"
            ) from None

    def _newer(self, machine: str) -> str:
        own = self.machines[machine].newest
        for member, claims in self._members().items():
            if claims and machine in claims and claims[machine].newest > own:
                return f"; {member} has version {claims[machine].newest}, and this member {own}"
        return ""


def _unknown(kind: str, name: str, known: Mapping[str, object] | frozenset[str]) -> str:
    names = ", ".join(sorted(known)) or "none"
    return f"unknown {kind} {name[:200]!r}; there is {names}"
