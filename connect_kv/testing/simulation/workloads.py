"""Clients with something to do, who write down what they asked and what they were told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from connect_kv import errors
from connect_kv.auth.table import NO_USER_NAME
from connect_kv.client import txn
from connect_kv.client.client import Client
from connect_kv.etcd_errors import NO_SPACE
from connect_kv.framework.replicated import Replicated, command, query
from connect_kv.rpc.maintenance_pb2 import AlarmType
from connect_kv.testing.checker import models
from connect_kv.testing.checker.history import History, check_assumptions
from connect_kv.testing.checker.linearizability import CheckResult, Model, Verdict, check
from connect_kv.testing.simulation.invariants import Violation
from connect_kv.testing.simulation.world import World

CERTAIN = (errors.Unavailable, errors.NoLeader, errors.NotProposed, errors.Overloaded)
"""Errors after which it is certain that nothing was done."""
UNKNOWN = (errors.OutcomeUnknown, errors.SessionExpired)
MAX_STATES = 400_000


class CounterMachine(Replicated):
    """The counter of the first page."""

    def __init__(self) -> None:
        self.total = 0

    @command
    def increment(self, by: int = 1) -> int:
        """Add to the number."""
        self.total += by
        return self.total

    @query
    def value(self) -> int:
        """The number as it stands."""
        return self.total


@dataclass
class WorkloadHistory:
    """The history of one kind of workload, and the model it must fit."""

    world: World
    name: str
    model: Model
    history: History = field(default_factory=History)
    answered: int = 0
    unknown: int = 0

    async def call(
        self, client: object, input: Any, work: Awaitable[Any], output: Callable[[Any], Any], *, reads: bool
    ) -> bool:
        """Make one call and write it down. Whether its outcome is known."""
        number = self.history.call(client, input, self.world.now)
        try:
            answer = output(await work)
        except CERTAIN:
            self.history.drop(number)
        except errors.BadCall as refused:
            if str(refused) != NO_USER_NAME.message:
                raise
            self.history.drop(number)
        except errors.Refused as refused:
            # Judged while nobody was asked, applied when everybody was: authentication was switched on.
            if refused.message not in (NO_SPACE.message, NO_USER_NAME.message):
                raise
            self.history.drop(number)
        except UNKNOWN:
            if not reads:
                self.unknown += 1
                return False
            self.history.drop(number)
        except asyncio.CancelledError:
            if reads:
                self.history.drop(number)
            raise
        else:
            self.answered += 1
            self.history.returns(number, answer, self.world.now)
        return True

    def check(self) -> CheckResult:
        """Whether there is an order that explains every answer. Raises Violation."""
        operations = self.history.operations
        check_assumptions(operations)
        outcome = check(self.model, operations, max_states=MAX_STATES)
        if outcome.verdict is Verdict.VIOLATION:
            describe = self.model.describe
            shown = "\n".join(
                f"  {name_of(one.client)}, {one.called:.4f} to {one.returned:.4f}: "
                f"{describe(one.input, one.output, one.known)}"
                for one in outcome.counterexample
            )
            if outcome.shown is not None and outcome.shown.cut is not None:
                states = " or ".join(self.model.describe_state(state) for state in outcome.shown.before)
                shown = f"  what returned before {outcome.shown.cut:.4f} leaves: {states}\n{shown}"
            which = self.name if outcome.partition is None else f"{self.name}, {outcome.partition!r},"
            text = f"{which} is not linearizable: no order explains these answers\n{shown}"
            raise NotLinearizable(text, self.model, outcome)
        return outcome


def name_of(client: object) -> str:
    """``c1.2``: the second life of client c1."""
    return ".".join(map(str, client)) if isinstance(client, tuple) else str(client)


class NotLinearizable(Violation):
    """No order of the calls explains the answers; the smallest history that shows it."""

    def __init__(self, text: str, model: Model, outcome: CheckResult) -> None:
        super().__init__(text)
        self.model = model
        self.outcome = outcome


class SequentialClient:
    """One client with one call at a time. A call of unknown outcome may still be under way: the next
    one is another client's.
    """

    def __init__(self, recorder: WorkloadHistory, name: str, *, session: bool, timeout: float) -> None:
        self.world = recorder.world
        self.rng: Random = recorder.world.chance(f"{recorder.name} {name}")
        self.client: Client = recorder.world.client(name, session=session, timeout=timeout)
        self._recorder = recorder
        self.name = name
        self._lives = 1

    async def call(
        self, input: Any, work: Awaitable[Any], output: Callable[[Any], Any], *, reads: bool = False
    ) -> None:
        """See Recorder."""
        if not await self._recorder.call((self.name, self._lives), input, work, output, reads=reads):
            self._lives += 1

    async def rest(self, mean: float) -> None:
        """Think."""
        await asyncio.sleep(self.rng.expovariate(1 / mean))


async def use_registers(recorder: WorkloadHistory, caller: SequentialClient, keys: int, pause: float) -> None:
    """Reads, writes, compare-and-swap and deletes of a few keys, for ever."""
    rng, number = caller.rng, 0
    async with caller.client as client:
        while True:
            number += 1
            key, value = f"r{rng.randrange(keys)}", f"{caller.name}.{number}"
            match rng.choices(("read", "write", "cas", "delete"), (4, 4, 2, 0.5))[0]:
                case "read":
                    await caller.call(("read", key), client.get(key), _value, reads=True)
                case "write":
                    await caller.call(("write", key, value), client.put(key, value), _nothing)
                case "cas":
                    seen = await _glance(client, key)
                    swap = client.transaction(
                        [txn.value(key, "=", seen) if seen is not None else txn.version(key, "=", 0)],
                        [txn.put(key, value)],
                    )
                    await caller.call(("cas", key, seen, value), swap, lambda answer: answer.succeeded)
                case _:
                    await caller.call(("delete", key), client.delete(key), _nothing)
            await caller.rest(pause)


async def read_registers(
    recorder: WorkloadHistory, caller: SequentialClient, keys: int, pause: float
) -> None:
    """Only reads, for ever."""
    async with caller.client as client:
        while True:
            key = f"r{caller.rng.randrange(keys)}"
            await caller.call(("read", key), client.get(key), _value, reads=True)
            await caller.rest(pause)


async def use_transactions(recorder: WorkloadHistory, caller: SequentialClient, pause: float) -> None:
    """Move amounts between accounts if nobody else did meanwhile, and read all of them at once."""
    rng, number = caller.rng, 0
    names = ("ta", "tb", "tc")
    async with caller.client as client:
        while True:
            number += 1
            if rng.random() < 0.4:
                reads = tuple(("read", name) for name in names)
                work = client.transaction([], [txn.get(name) for name in names])
                await caller.call(("txn", (), reads, ()), work, _transaction, reads=True)
            else:
                first, second = rng.sample(names, 2)
                seen = await _glance(client, first)
                value = f"{caller.name}.{number}"
                then = (("write", first, value), ("write", second, value), ("read", first))
                work = client.transaction(
                    [txn.value(first, "=", seen) if seen is not None else txn.version(first, "=", 0)],
                    [txn.put(first, value), txn.put(second, value), txn.get(first)],
                    [txn.get(second)],
                )
                input = ("txn", ((first, seen),), then, (("read", second),))
                await caller.call(input, work, _transaction)
            await caller.rest(pause)


async def use_counter(recorder: WorkloadHistory, caller: SequentialClient, pause: float) -> None:
    """Increment and read the counter."""
    rng = caller.rng
    async with caller.client as client:
        counter = client.machine("counter", CounterMachine)
        while True:
            if rng.random() < 0.3:
                await caller.call(("value",), counter.call(CounterMachine.value), int, reads=True)
            else:
                by = rng.randint(1, 3)
                await caller.call(("increment", by), counter.call(CounterMachine.increment, by=by), int)
            await caller.rest(pause)


async def end_alarms(world: World, name: str, pause: float) -> None:
    """An operator who makes room where there is none, and then ends the alarm; for ever."""
    async with world.client(name, session=False, timeout=3) as client:
        while True:
            await asyncio.sleep(pause)
            for member, kind in sorted(world.reference.alarms):
                with suppress(errors.ConnectKvError):
                    await client.maintenance.disarm(member, AlarmType.ValueType(kind))


async def _glance(client: Client, key: str) -> str | None:
    """What a member has just now, however old."""
    try:
        held = await client.get(key, serializable=True, timeout=1)
    except errors.ConnectKvError:
        return None
    return None if held is None else held.value.decode()


def _nothing(_: object) -> None:
    return None


def _value(held: Any) -> str | None:
    return None if held is None else held.value.decode()


def _transaction(answer: Any) -> tuple[bool, tuple[str | None, ...]]:
    found: list[str | None] = []
    for response in answer.responses:
        if response.HasField("response_range"):
            kvs = response.response_range.kvs
            found.append(kvs[0].value.decode() if kvs else None)
        else:
            found.append(None)
    return answer.succeeded, tuple(found)


def recorders(world: World) -> dict[str, WorkloadHistory]:
    """A recorder for each kind of operation."""
    kinds = {"registers": models.register, "transactions": models.transactions, "counter": models.counter}
    return {name: WorkloadHistory(world, name, model) for name, model in kinds.items()}
