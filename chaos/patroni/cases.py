"""What is done to three nodes of Patroni, and how long nobody can write then."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.patroni.gates import Gate
from chaos.patroni.nodes import (
    SCOPE,
    TTL,
    Node,
    all_well,
    leader_of,
    postgres_programs,
    program,
    unprivileged,
)
from chaos.patroni.stores import Store, run
from chaos.patroni.witness import Witness, primaries_at_once
from connect_kv.testing.processes import until

_AFTER_SECONDS = 6.0
"""That are looked at after a case is over: an old primary may come back."""


@dataclass(slots=True)
class Stack:
    """A store, and Patroni on it."""

    store: Store
    nodes: list[Node]
    gates: dict[str, list[Gate]]
    """By node, where it reaches the store through some."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a case: how long writes stood still, and whether the primary moved."""

    seconds: float
    """From the fault to the first transaction acknowledged by another node; where none is to take over, the
    longest time without an acknowledged one."""
    moved: bool
    at_once: int
    """Moments with two primaries."""
    lost: int
    """Acknowledged transactions that are gone."""
    written: int


Fault = Callable[[Stack, Node], Awaitable[Callable[[], Awaitable[None]]]]
"""Does it to the primary, and gives what heals it."""


async def kill_postgres(stack: Stack, primary: Node) -> Callable[[], Awaitable[None]]:
    """PostgreSQL of the primary dies; its Patroni lives and gives the lock away."""
    primary.kill_postgres()

    async def heal() -> None:
        pass

    return heal


async def kill_node(stack: Stack, primary: Node) -> Callable[[], Awaitable[None]]:
    """Patroni and PostgreSQL of the primary die at once; the lock ends with its lease."""
    await primary.kill()
    return primary.start


async def kill_store(stack: Stack, primary: Node) -> Callable[[], Awaitable[None]]:
    """The member that leads the store dies: PostgreSQL must not notice."""
    index = await stack.store.leader()
    await stack.store.kill(index)

    async def heal() -> None:
        await stack.store.revive(index)

    return heal


async def switchover(stack: Stack, primary: Node) -> Callable[[], Awaitable[None]]:
    """An operator wants another primary."""
    role = (
        "--primary" if "--primary" in await run(program("patronictl"), "switchover", "--help") else "--master"
    )
    await run(
        *unprivileged(), program("patronictl"), "-c", str(primary.config), "switchover", SCOPE, role,
        primary.name, "--force",
    )  # fmt: skip

    async def heal() -> None:
        pass

    return heal


async def partition(stack: Stack, primary: Node) -> Callable[[], Awaitable[None]]:
    """The primary's node reaches no member of the store, and everybody else still reaches the primary."""
    gates = stack.gates[primary.name]
    for gate in gates:
        gate.shut()

    async def heal() -> None:
        for gate in gates:
            gate.open()

    return heal


CASES: Mapping[str, Fault] = {
    "kill-postgres": kill_postgres,
    "kill-node": kill_node,
    "kill-store": kill_store,
    "switchover": switchover,
    "partition": partition,
}
STAYS = {"kill-store"}
"""After which nobody may take over."""


async def play(name: str, stack: Stack) -> Outcome:
    """One case, from a healthy state to a healthy state."""
    await all_well(stack.nodes)
    primary = await leader_of(stack.nodes)
    witness = Witness(stack.nodes, postgres_programs())
    await witness.start()
    record = witness.record
    try:
        await until(_some_written(record.written), 20, "a transaction before the fault")
        began = time.monotonic()
        heal = await CASES[name](stack, primary)
        if name in STAYS:
            await asyncio.sleep(2 * TTL / 4)
        else:
            await until(_taken_over(record.written, primary.name, began), 4 * TTL, "another primary")
        await asyncio.sleep(_AFTER_SECONDS)
        await heal()
        await all_well(stack.nodes)
        after = await leader_of(stack.nodes)
        await asyncio.sleep(_AFTER_SECONDS / 2)
    finally:
        await witness.stop()
    try:
        lost = await witness.lost(after)
    finally:
        await witness.stop()
    times = [began] + [one.at for one in record.written if one.at > began]
    if name in STAYS:
        seconds = max(later - earlier for earlier, later in itertools.pairwise(times))
    else:
        seconds = (
            next(one.at for one in record.written if one.at > began and one.node != primary.name) - began
        )
    return Outcome(
        seconds=seconds,
        moved=after.name != primary.name,
        at_once=len(primaries_at_once(record.seen)),
        lost=len(lost),
        written=len(record.written),
    )


def _some_written(written: Sequence[object]) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return len(written) > 20

    return look


def _taken_over(written: Sequence[object], old: str, began: float) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return any(one.node != old and one.at > began for one in written)  # type: ignore[attr-defined]

    return look


def log_files(directory: Path) -> str:
    """Where to look when something went wrong."""
    return ", ".join(str(path) for path in sorted(directory.glob("*.log")))
