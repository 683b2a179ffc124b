"""Simulating the upgrade of a machine: member by member to newer code, once back again, under faults.

Every answer is compared with one object that has the older class up to the activation in the log, and the
newer one from there on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from connect_kv.errors import ConfigError
from connect_kv.framework.versions import methods_of, versions_of
from connect_kv.statemachine.fingerprint import changed, codes_of
from connect_kv.testing.simulation.executed import Factory, ObservedMachine
from connect_kv.testing.simulation.host import SimulatedHost
from connect_kv.testing.simulation.invariants import Violation
from connect_kv.testing.simulation.machine import NAME, MachineSimulation, first_of
from connect_kv.testing.simulation.simulation import SETTLE_SECONDS, RunConfig

STEPS = 10
"""Parts of a run: the first member is upgraded after one, goes back after three, and so on."""


class UpgradeSimulation(MachineSimulation):
    """Members with the older code, which an operator upgrades while clients call."""

    def __init__(self, config: RunConfig, old: Factory, new: Factory) -> None:
        """Raises ConfigError for classes that are no two versions of one."""
        older: type = type(first_of(old))
        newer: type = type(first_of(new))
        self._newest = versions_of(newer).newest
        if versions_of(older).newest >= self._newest:
            raise ConfigError(
                f"{newer.__name__} has version {self._newest}, as {older.__name__} has: there is no upgrade. "
                "Give it the next one, as class Name(Replicated, version=2)"
            )
        before = versions_of(older).newest
        self._codes = codes_of(older)[before - 1], codes_of(newer)[before - 1]
        """Of the older version: what both execute must be the same."""
        self._old, self._new = old, new
        self._newer = newer
        self._upgrading = False
        self._upgraded: set[str] = set()
        """Names of members that have the newer code."""
        super().__init__(config, old, new=new)

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """Callers, and the operator."""
        return [*super().work(), self._operate()]

    def current(self) -> tuple[type, Any]:
        """The class that clients know, and its methods: that of the active version."""
        if self.executed.version < self._newest:
            return super().current()
        return self._newer, methods_of(self._newer)

    def makes(self) -> ObservedMachine:
        """For members that join: what the others are upgraded to, once that has begun for good."""
        return self._machine(self._new if self._upgrading else self._old)

    async def _operate(self) -> None:
        """One member up, and back; then all, one by one."""
        part, members = self.config.seconds / STEPS, [host for host in self.world.hosts if host.wanted]
        await asyncio.sleep(part)
        await self._restart(members[0], self._new)
        await asyncio.sleep(2 * part)
        await self._restart(members[0], self._old)
        await asyncio.sleep(part)
        self._upgrading = True
        for host in list(self.world.hosts):
            await self._restart(host, self._new)
            await asyncio.sleep(part / 2)
        while True:
            await asyncio.sleep(part)
            await self._all_upgraded()  # who joined with the older code meanwhile

    async def comes_to_rest(self) -> None:
        """All have the newer code, and the newer version becomes active."""
        await self._all_upgraded()
        with suppress(Violation):  # said better below
            await self.world.until(self._active, SETTLE_SECONDS, "the activation")
        if names := changed(self._codes[0], self._codes[1]):
            raise Violation(
                f"the code of version {self._codes[0].version} was changed ({', '.join(names)}): that of "
                f"{self._newer.__name__} is not that of the older class; keep the older bodies with @before"
            )
        if not self._active():
            raise Violation(
                f"version {self._newest} of {self._newer.__name__} is not active: {self._why_not()}"
            )
        await super().comes_to_rest()

    async def _all_upgraded(self) -> None:
        self._upgrading = True
        for host in list(self.world.hosts):
            if host.wanted and host.name not in self._upgraded:
                await self._restart(host, self._new)

    def _active(self) -> bool:
        return self.executed.version == self._newest

    def _why_not(self) -> str:
        try:
            self.executed.reference.moved().try_upgrade(self._newest)
        except BaseException as error:
            return f"its upgrade fails: {type(error).__name__}: {error}"
        return "not all members have it"

    async def _restart(self, host: SimulatedHost, make: Factory) -> None:
        host.machines = {NAME: lambda: self._machine(make)}
        if make is self._new:
            self._upgraded.add(host.name)
        else:
            self._upgraded.discard(host.name)
        await host.kill()

    def _machine(self, make: Factory) -> ObservedMachine:
        return ObservedMachine(make(), self.executed)
