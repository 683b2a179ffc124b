"""Clients with something to do: registers, lists, a bank. What they saw must fit in one order."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from chaos.machines import Lists
from chaos.recording import ClientHistory, Log, RecordingClient
from connect_kv import errors
from connect_kv.client import client as door
from connect_kv.client import txn
from connect_kv.client.messages import Compare
from connect_kv.testing.checker import models
from connect_kv.testing.checker.linearizability import Model

GENERATION_SECONDS = 6.0
"""So long the same keys are used: histories stay short enough to be judged."""
ACCOUNTS = tuple(f"account{number}" for number in range(4))
FIRST_BALANCE = 100


def _lists(state: Any, input: Any, output: Any, known: bool) -> Any:
    """State: the items, as a tuple."""
    match input:
        case ("append", _, item):
            after = (*state, item)
            return after if not known or output == after else None
        case ("read", _):
            return state if not known or output == state else None
    raise ValueError(f"not an operation of a list: {input!r}")


lists = Model(
    init=tuple,
    step=_lists,
    partition=lambda input: input[1],
    reads=lambda input: input[0] == "read",
    describe=lambda input, output, known: f"{' '.join(map(str, input))} -> {output if known else '?'}",
)
"""``("append", name, item) -> all items``, ``("read", name) -> all items``; each item is appended once."""


async def use_registers(
    recorder: ClientHistory, name: str, client: door.Client, rng: Random, pause: float
) -> None:
    """Reads, writes and compare-and-swap of a few keys, until cancelled."""
    me, number = RecordingClient(name), 0
    async with client:
        while True:
            number += 1
            generation = int(recorder.log.now / GENERATION_SECONDS)
            key, value = f"register/{generation}.{rng.randrange(3)}", f"{name}.{number}"
            match rng.choices(("read", "write", "cas", "delete"), (5, 4, 2, 0.5))[0]:
                case "read":
                    await recorder.call(me, ("read", key), client.get(key), _value, part=generation)
                case "write":
                    work = client.put(key, value)
                    await recorder.call(me, ("write", key, value), work, _nothing, part=generation)
                case "delete":
                    await recorder.call(me, ("delete", key), client.delete(key), _nothing, part=generation)
                case _:
                    expected = await _glance(client, key)
                    swap = client.transaction([_is(key, expected)], [txn.put(key, value)])
                    input = ("cas", key, expected, value)
                    await recorder.call(me, input, swap, lambda one: one.succeeded, part=generation)
            await asyncio.sleep(rng.expovariate(1 / pause))


async def read_registers(
    recorder: ClientHistory, name: str, client: door.Client, rng: Random, pause: float
) -> None:
    """Only read: at a node that was left behind, a writer would wait and not see that it is."""
    me = RecordingClient(name)
    async with client:
        while True:
            generation = int(recorder.log.now / GENERATION_SECONDS)
            key = f"register/{generation}.{rng.randrange(3)}"
            await recorder.call(me, ("read", key), client.get(key), _value, part=generation)
            await asyncio.sleep(rng.expovariate(1 / pause))


async def use_lists(
    recorder: ClientHistory, name: str, client: door.Client, rng: Random, pause: float
) -> None:
    """Append to lists of a user machine, and read them, until cancelled."""
    me, number = RecordingClient(name), 0
    async with client:
        machine = client.machine("lists", Lists)
        while True:
            number += 1
            generation = int(recorder.log.now / GENERATION_SECONDS)
            which = f"{generation}.{rng.randrange(2)}"
            if rng.random() < 0.4:
                work = machine.call(Lists.read, which)
                await recorder.call(me, ("read", which), work, tuple, part=generation)
            else:
                item = rng.randrange(1 << 40)
                work = machine.call(Lists.append, which, item)
                await recorder.call(me, ("append", which, item), work, tuple, part=generation)
            await asyncio.sleep(rng.expovariate(1 / pause))


async def use_bank(
    recorder: ClientHistory, name: str, client: door.Client, rng: Random, pause: float
) -> None:
    """Move amounts between accounts by transactions, and look at all accounts at once, until cancelled."""
    me = RecordingClient(name)
    async with client:
        while True:
            generation = int(recorder.log.now / GENERATION_SECONDS)
            names = [f"bank/{generation}/{account}" for account in ACCOUNTS]
            input = ("txn", (), tuple(("read", one) for one in names), ())
            work = client.transaction([], [txn.get(one) for one in names])
            seen = await recorder.call(me, input, work, _answers, part=generation)
            if seen is not None:
                balances = dict(zip(names, seen[1], strict=True))
                await _transfer(recorder, me, client, rng, balances, generation)
                check_balances(recorder.log, balances)
            await asyncio.sleep(rng.expovariate(1 / pause))


async def _transfer(
    recorder: ClientHistory,
    me: RecordingClient,
    client: door.Client,
    rng: Random,
    balances: dict[str, str | None],
    generation: int,
) -> None:
    """Open the accounts if there are none, else move something, if both accounts are as they were seen."""
    if None in balances.values():
        writes = dict.fromkeys(balances, str(FIRST_BALANCE))
        compares = dict(balances)
    else:
        source, target = rng.sample(sorted(balances), 2)
        amount = rng.randint(1, 20)
        writes = {
            source: str(int(balances[source] or 0) - amount),
            target: str(int(balances[target] or 0) + amount),
        }
        compares = {one: balances[one] for one in writes}
    then = tuple(("write", one, value) for one, value in writes.items())
    input = ("txn", tuple(compares.items()), then, ())
    work = client.transaction(
        [_is(one, value) for one, value in compares.items()],
        [txn.put(one, value) for one, value in writes.items()],
    )
    await recorder.call(me, input, work, _answers, part=generation)


def check_balances(log: Log, balances: dict[str, str | None]) -> None:
    """Whoever looks at all accounts sees all the money, or no account yet."""
    known = [int(value) for value in balances.values() if value is not None]
    if known and (len(known) < len(ACCOUNTS) or sum(known) != FIRST_BALANCE * len(ACCOUNTS)):
        log.violations.append(f"bank: the balances do not add up: {balances}")


async def _glance(client: door.Client, key: str) -> str | None:
    """What the next compare expects; any answer will do."""
    try:
        return _value(await client.get(key, serializable=True))
    except errors.ConnectKvError:
        return None


def _is(key: str, value: str | None) -> Compare:
    return txn.version(key, "=", 0) if value is None else txn.value(key, "=", value)


def _value(found: Any) -> str | None:
    return None if found is None else found.value.decode()


def _nothing(_: Any) -> None:
    return None


def _answers(answer: Any) -> tuple[bool, tuple[str | None, ...]]:
    """The answers of a transaction in the form of `models.transactions`."""
    values: list[str | None] = []
    for one in answer.responses:
        if one.HasField("response_range"):
            found = one.response_range.kvs
            values.append(found[0].value.decode() if found else None)
        else:
            values.append(None)
    return answer.succeeded, tuple(values)


RECORDED = {"registers": models.register, "lists": lists, "bank": models.transactions}
"""The workloads whose histories are judged, and by what."""
