"""Simulating a machine of a user's own: calls with arguments from the seed, checked against the class itself.

The class is its own specification: run by one thread, one call after another, it says what each call must
answer. A cluster of it under faults has to answer as if that had happened.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping
from typing import Any, NamedTuple

from connect_kv import errors
from connect_kv.errors import ConfigError
from connect_kv.framework import data
from connect_kv.framework.methods import Method
from connect_kv.framework.replicated import Replicated
from connect_kv.framework.types import MethodKind
from connect_kv.framework.versions import methods_of
from connect_kv.statemachine.hosted import MachineCall, ReplicatedMachine, failed
from connect_kv.testing.checker.linearizability import Model
from connect_kv.testing.simulation.executed import Executed, Factory, ObservedMachine, answer_of
from connect_kv.testing.simulation.random_arguments import random_arguments
from connect_kv.testing.simulation.simulation import SETTLE_SECONDS, RunConfig, Simulation, SimulationReport
from connect_kv.testing.simulation.telling import arguments_in_words, value_in_words
from connect_kv.testing.simulation.workloads import SequentialClient, WorkloadHistory
from connect_kv.testing.simulation.world import WorldConfig

NAME = "machine"
CLIENTS = 5
Arguments = Callable[[str, random.Random], dict[str, Any]]
"""Arguments for a call of the method of that name."""
Answer = bytes | str
"""A value as it travels, or what was raised."""


class AskedCall(NamedTuple):
    """A call, in a history."""

    name: str
    arguments: bytes
    reads: bool


class CallOutcome(NamedTuple):
    """What came of a call to a machine."""

    answer: Answer
    log_times: tuple[int, ...] = ()
    """Of a query: one of these was the log time of the answer."""


class MachineSimulation(Simulation):
    """Members that host one machine, clients that call it, faults."""

    def __init__(
        self,
        config: RunConfig,
        make: Factory,
        arguments: Arguments | None = None,
        *,
        new: Factory | None = None,
    ) -> None:
        self.make = make
        self.kind = type(first_of(make))
        self.executed = Executed(make, lambda violation: self.world.fail(violation), new)
        owner: type = self.kind
        self.methods = methods_of(owner)
        self.arguments = arguments
        super().__init__(config)
        self.recorders = {NAME: WorkloadHistory(self.world, NAME, model_of(self.executed))}
        self.watchers = []

    def run(self) -> SimulationReport:
        """See Simulation."""
        report = super().run()
        report.notes = list(self.executed.notes.values())
        return report

    def world_config(self, skew: float) -> WorldConfig:
        """The machine alone."""
        config = self.config
        return WorldConfig(
            seed=config.seed,
            machines={NAME: self.makes},
            clock_skew=skew,
            step_limit=config.step_limit,
        )

    def makes(self) -> ObservedMachine:
        """What a member hosts."""
        return ObservedMachine(self.make(), self.executed)

    def current(self) -> tuple[Any, Mapping[str, Method]]:
        """The class that clients know, and its methods."""
        return self.kind, self.methods

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """Callers of all its methods."""
        recorder = self.recorders[NAME]
        return [
            self._call(SequentialClient(recorder, f"c{number}", session=True, timeout=2))
            for number in range(CLIENTS)
        ]

    async def comes_to_rest(self) -> None:
        """All members apply all there is; that each result was the same on all is checked with each."""
        await self.world.until(self.all_applied, SETTLE_SECONDS, "all members to apply everything")

    async def _call(self, caller: SequentialClient) -> None:
        rng = caller.rng
        async with caller.client as client:
            while True:
                kind, methods = self.current()
                machine = client.machine(NAME, kind)
                name = rng.choice(sorted(methods))
                method = methods[name]
                given = self.arguments(name, rng) if self.arguments else random_arguments(kind, method, rng)
                reads = method.kind is MethodKind.QUERY
                input = AskedCall(name, method.bind((), given), reads)
                work = machine.call(getattr(kind, name), **given)
                await caller.call(
                    input, self._told(input, work, method.raises), lambda told: told, reads=reads
                )
                await caller.rest(self.config.pause)

    async def _told(
        self, asked: AskedCall, work: Awaitable[Any], declared: tuple[type[Exception], ...]
    ) -> CallOutcome:
        """What the call gives, with the log times at which members were asked meanwhile."""
        before = len(self.executed.asked(asked.name, asked.arguments))
        answer = await _outcome(work, declared)
        times = self.executed.asked(asked.name, asked.arguments)[before:] if asked.reads else ()
        return CallOutcome(answer, tuple(dict.fromkeys(times)))


async def _outcome(work: Awaitable[Any], declared: tuple[type[Exception], ...]) -> Answer:
    """A value as it travels, or what was raised: both are answers."""
    try:
        return data.encode(await work)
    except errors.CommandFailed as raised:
        return answer_of(raised)
    except declared as error:
        return answer_of(failed(error))
    except errors.BadCall as refused:
        # Only where versions change: the one it was made for is over, or not active yet where it was asked.
        raise errors.NotProposed(str(refused)) from refused


def first_of(make: Factory) -> Replicated:
    """A new object of it. Raises ConfigError saying why it is none that can be simulated."""
    name = getattr(make, "__name__", repr(make))
    try:
        inspect.signature(make).bind()
    except TypeError as error:
        raise ConfigError(
            f"{name} cannot be made without arguments: {error}; give each of them a default"
        ) from None
    machine = make()
    ReplicatedMachine(machine)
    return machine


def model_of(executed: Executed) -> Model:
    """The class as a specification: an object that is never stored, run at the log times of the members.

    A state is how many steps were taken. Commands take effect in the order of the log: what would be out of
    turn is not allowed. Activations are nobody's calls: they come before whatever needs them.
    """

    def step(place: int, asked: AskedCall, told: CallOutcome | None, known: bool) -> Hashable | None:
        while True:
            if (after := at(place, asked, told, known)) is not None:
                return after
            if place >= len(executed.steps) or isinstance(executed.steps[place], MachineCall):
                return None
            place += 1

    def at(place: int, asked: AskedCall, told: CallOutcome | None, known: bool) -> int | None:
        if asked.reads:
            if not known or told is None:
                return place
            allowed = any(
                executed.answer(place, asked.name, asked.arguments, log_time) == told.answer
                for log_time in told.log_times
            )
            return place if allowed else None
        if place == len(executed.steps):
            return None
        call, outcome = executed.steps[place], executed.outcomes[place]
        if not isinstance(call, MachineCall) or outcome is None:
            return None
        if (call.method, call.arguments) != (asked.name, asked.arguments):
            return None
        if known and told is not None and told.answer != answer_of(outcome):
            return None
        return place + 1

    return Model(
        init=lambda: 0,
        step=step,
        reads=lambda asked: bool(asked.reads),
        describe=_described,
        describe_state=executed.state,
    )


def _described(asked: AskedCall, told: CallOutcome | None, known: bool) -> str:
    answer: object = told.answer if known and told is not None else "?"
    if isinstance(answer, bytes):
        answer = value_in_words(answer)
    return f"{asked.name}({arguments_in_words(asked.arguments)}) → {answer}"
