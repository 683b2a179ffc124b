"""What is seen of PostgreSQL while it is hurt, and what must not be seen."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chaos.patroni.nodes import Node
from chaos.patroni.sql import Gone, Session

_LOOK_SECONDS = 0.05
_WRITE_SECONDS = 0.02
_PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A node said what it is, at some moment between the two."""

    asked: float
    told: float
    primary: bool
    """False also when it did not answer."""


@dataclass(frozen=True, slots=True)
class Written:
    """A row whose transaction was acknowledged."""

    row: int
    at: float
    node: str


@dataclass(slots=True)
class Record:
    """Everything."""

    seen: dict[str, list[Seen]] = field(default_factory=dict)
    written: list[Written] = field(default_factory=list)


def primaries_at_once(seen: Mapping[str, Sequence[Seen]]) -> list[tuple[str, str, float]]:
    """Pairs of nodes that were primary at the same moment, for certain, and when.

    A node is primary from the end of one look that found it so to the beginning of the next, if that
    found it so too: nothing lies between that would have made it something else and back within 50 ms.
    """
    spans = [
        (one.told, other.asked, name)
        for name, looks in seen.items()
        for one, other in itertools.pairwise(looks)
        if one.primary and other.primary
    ]
    spans.sort()
    found = []
    for (start, end, name), (begin, _, other) in itertools.pairwise(spans):
        if name != other and start < end and begin < end:
            found.append((name, other, begin))
    return found


class Witness:
    """Asks every node what it is, and writes to whoever takes it, until it is stopped."""

    def __init__(self, nodes: Sequence[Node], programs: Path) -> None:
        self.record = Record({node.name: [] for node in nodes})
        self._nodes = nodes
        self._programs = programs
        self._tasks: list[asyncio.Task[None]] = []
        self._sessions: list[Session] = []

    async def start(self) -> None:
        """There must be a primary."""
        writer = await self._made_table()
        self._tasks = [asyncio.create_task(self._look(node)) for node in self._nodes]
        self._tasks.append(asyncio.create_task(self._write(writer)))

    async def stop(self) -> None:
        """What was seen stays."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for session in self._sessions:
            await session.close()

    async def lost(self, node: Node) -> list[int]:
        """Rows that were acknowledged and are not there, on that node."""
        session = self._session(node)
        stored = set(map(int, (await session.ask("select row from demo", 20)).split()))
        return sorted({one.row for one in self.record.written} - stored)

    def _session(self, node: Node) -> Session:
        session = Session(self._programs, node.port)
        self._sessions.append(session)
        return session

    async def _made_table(self) -> dict[str, Session]:
        sessions = {node.name: self._session(node) for node in self._nodes}
        made = False
        for session in sessions.values():
            try:
                await session.ask("create table if not exists demo (row bigint primary key)", 10)
                made = made or (await session.ask("select count(*) >= 0 from demo", 10)) == "t"
            except Gone:
                continue
        assert made
        return sessions

    async def _look(self, node: Node) -> None:
        session, seen = self._session(node), self.record.seen[node.name]
        while True:
            asked = time.monotonic()
            try:
                primary = await session.ask("select pg_is_in_recovery()", _PATIENCE) == "f"
            except Gone:
                primary = False
            seen.append(Seen(asked, time.monotonic(), primary))
            await asyncio.sleep(_LOOK_SECONDS)

    async def _write(self, sessions: Mapping[str, Session]) -> None:
        names = list(sessions)
        row, current = time.time_ns() // 1000, 0
        while True:
            row += 1
            name = names[current]
            try:
                taken = await sessions[name].ask(f"insert into demo values ({row}) returning row", _PATIENCE)
            except Gone:
                taken = ""
            if taken == str(row):
                self.record.written.append(Written(row, time.monotonic(), name))
            else:
                current = (current + 1) % len(names)
            await asyncio.sleep(_WRITE_SECONDS)
