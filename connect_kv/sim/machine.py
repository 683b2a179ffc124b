"""Simulating a machine of a user's own: calls with arguments from the seed, checked against the class itself.

The class is its own specification: run by one thread, one call after another, it says what each call must
answer. A cluster of it under faults has to answer as if that had happened.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Hashable
from typing import Any

from connect_kv import errors
from connect_kv.framework import data
from connect_kv.framework.hosted import Call, ReplicatedMachine
from connect_kv.framework.methods import methods_of
from connect_kv.framework.replicated import Replicated
from connect_kv.framework.types import Kind
from connect_kv.sim.linearizability import Model
from connect_kv.sim.made_up import made_up
from connect_kv.sim.simulation import SETTLE_SECONDS, RunConfig, Simulation
from connect_kv.sim.telling import arguments_in_words, value_in_words
from connect_kv.sim.workloads import Caller, Recorder
from connect_kv.sim.world import WorldConfig

NAME = "machine"
STATE_CHARACTERS = 200
CLIENTS = 5
Factory = Callable[[], Replicated]
Arguments = Callable[[str, random.Random], dict[str, Any]]
"""Arguments for a call of the method of that name."""


class MachineSimulation(Simulation):
    """Members that host one machine, clients that call it, faults."""

    def __init__(self, config: RunConfig, make: Factory, arguments: Arguments | None = None) -> None:
        self.make = make
        self.kind = type(make())
        owner: type = self.kind
        self.methods = methods_of(owner)
        self.arguments = arguments or (lambda name, rng: made_up(self.kind, self.methods[name], rng))
        super().__init__(config)
        self.recorders = {NAME: Recorder(self.world, NAME, model_of(make))}
        self.watchers = []

    def world_config(self, skew: float) -> WorldConfig:
        """The machine alone."""
        config = self.config
        return WorldConfig(
            seed=config.seed, machines={NAME: self.make}, clock_skew=skew, step_limit=config.step_limit
        )

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """Callers of all its methods."""
        recorder = self.recorders[NAME]
        return [
            self._call(Caller(recorder, f"c{number}", session=True, timeout=2)) for number in range(CLIENTS)
        ]

    async def comes_to_rest(self) -> None:
        """All members apply all there is; that each result was the same on all is checked with each."""
        await self.world.until(self.all_applied, SETTLE_SECONDS, "all members to apply everything")

    async def _call(self, caller: Caller) -> None:
        rng, names = caller.rng, sorted(self.methods)
        async with caller.client as client:
            machine = client.machine(NAME, self.kind)
            while True:
                name = rng.choice(names)
                given = self.arguments(name, rng)
                reads = self.methods[name].kind is Kind.QUERY
                input = (name, self.methods[name].bind((), given), reads)
                work = machine.call(getattr(self.kind, name), **given)
                await caller.call(input, _outcome(work), lambda answer: answer, reads=reads)
                await caller.rest(self.config.pause)


async def _outcome(work: Any) -> bytes | str:
    """A value as it travels, or what was raised: both are answers."""
    try:
        return data.encode(await work)
    except errors.CommandFailed as failed:
        return f"{failed.type}: {failed.message}"


def model_of(make: Factory) -> Model:
    """The class as a sequential specification; a state is its snapshot."""
    depends_on_time = any(
        "log_time" in getattr(value, "__code__", _NO_CODE).co_names for value in vars(type(make())).values()
    )

    def step(state: Any, input: Any, output: Any, known: bool) -> Hashable | None:
        name, arguments, reads = input
        machine = ReplicatedMachine(make())
        machine.restore(state)
        if reads:
            try:
                answer: object = machine.query(name, arguments, 0, None)
            except errors.CommandFailed as failed:
                answer = f"{failed.type}: {failed.message}"
        else:
            (outcome,) = machine.execute([Call(name, arguments, 0, 1)], None)
            answer = (
                f"{outcome.type}: {outcome.message}" if isinstance(outcome, errors.CommandFailed) else outcome
            )
        if known and not depends_on_time and answer != output:
            return None
        return state if reads else tuple(machine.snapshot())

    def describe_state(state: Any) -> str:
        machine = make()
        machine.restore(state)
        return ", ".join(f"{name} = {value!r}" for name, value in vars(machine).items())[:STATE_CHARACTERS]

    return Model(
        init=lambda: tuple(ReplicatedMachine(make()).snapshot()),
        step=step,
        reads=lambda input: bool(input[2]),
        describe=_described,
        describe_state=describe_state,
    )


def _no_code() -> None:
    """Stands for what has none."""


_NO_CODE = _no_code.__code__


def _described(input: Any, output: Any, known: bool) -> str:
    name, arguments, _ = input
    answer = value_in_words(output) if isinstance(output, bytes) else output
    return f"{name}({arguments_in_words(arguments)}) → {answer if known else '?'}"
