"""Watches, and what they must have seen: every change once, in order, whole, wherever they ran."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from connect_kv import errors
from connect_kv.rpc.kv_pb2 import Event
from connect_kv.testing.simulation.invariants import Violation
from connect_kv.testing.simulation.reference import ReferenceEvent, ReferenceState
from connect_kv.testing.simulation.world import World


class ObservedEvent(NamedTuple):
    """One event, as a client got it."""

    deleted: bool
    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int
    previous: tuple[bytes, int] | None
    """Value and revision before; only if asked for."""


@dataclass
class Segment:
    """What one watch saw from its start on. A watch that was compacted away starts another."""

    start: int
    events: list[ObservedEvent] = field(default_factory=list)
    complete_to: int = 0
    """Below this revision the client believes to have seen everything."""


@dataclass
class WatchRecorder:
    """One watch of a range, for as long as the world runs."""

    world: World
    name: str
    prefix: bytes
    puts: bool = True
    deletes: bool = True
    prev_kv: bool = False
    from_start: bool = False
    segments: list[Segment] = field(default_factory=list)
    since_compaction: int = 0

    async def run(self) -> None:
        """Watch, for ever."""
        start = 1 if self.from_start else 0
        async with self.world.client(self.name, session=False, timeout=30) as client:
            while True:
                watch = client.watch(
                    self.prefix, prefix=True, start_revision=start,
                    prev_kv=self.prev_kv, puts=self.puts, deletes=self.deletes,
                )  # fmt: skip
                try:
                    async with watch:
                        segment = Segment(watch.next_revision)
                        self.segments.append(segment)
                        async for event in watch:
                            segment.events.append(seen(event, self.prev_kv))
                            segment.complete_to = event.kv.mod_revision
                except errors.Compacted as compacted:
                    start = max(compacted.revision, self._next(), start) + 1
                except errors.Unavailable:
                    start = self._next() or start
                    await asyncio.sleep(0.1)

    def check(self, reference: ReferenceState, *, finished: bool) -> None:
        """Raise a Violation unless it saw what it must; all of it up to now if the world has come to rest."""
        for number, segment in enumerate(self.segments):
            last = number == len(self.segments) - 1
            expected = self.expected(reference, segment, last_one=last and finished)
            if not _alike(segment.events, expected, reference.compacted):
                raise Violation(self._difference(segment, expected))

    def behind(self, reference: ReferenceState) -> bool:
        """Whether there are events that it has not seen yet."""
        if not self.segments:
            return False
        return len(self.segments[-1].events) < len(self.expected(reference, self.segments[-1], last_one=True))

    def expected(self, reference: ReferenceState, segment: Segment, *, last_one: bool) -> list[ObservedEvent]:
        """What the committed commands say it must have seen."""
        end = reference.revision if last_one else segment.complete_to
        found = [
            self._as_seen(change)
            for change in reference.changes
            if segment.start <= change.revision <= end
            and change.key.startswith(self.prefix)
            and (self.puts if change.after is not None else self.deletes)
        ]
        return found if last_one else found[: max(len(segment.events), 0)]

    def _next(self) -> int:
        return self.segments[-1].complete_to + 1 if self.segments and self.segments[-1].events else 0

    def _as_seen(self, change: ReferenceEvent) -> ObservedEvent:
        before = change.before if self.prev_kv else None
        previous = None if before is None else (before.value, before.mod_revision)
        if change.after is None:
            return ObservedEvent(True, change.key, b"", 0, change.revision, 0, 0, previous)
        value, create, mod, version, lease = change.after
        return ObservedEvent(False, change.key, value, create, mod, version, lease, previous)

    def _difference(self, segment: Segment, expected: Sequence[ObservedEvent]) -> str:
        for number, (seen, right) in enumerate(zip(segment.events, expected, strict=False)):
            if seen != right and seen != right._replace(previous=None):
                return f"watch {self.name} from {segment.start}: event {number} is {seen}, not {right}"
        return (
            f"watch {self.name} from {segment.start}: {len(segment.events)} events, not {len(expected)}; "
            f"the next is {[*expected[len(segment.events) :], None][0]}"
        )


def _alike(seen: Sequence[ObservedEvent], right: Sequence[ObservedEvent], compacted: int) -> bool:
    """What was before a compacted revision cannot be told any more, and need not be."""
    return len(seen) == len(right) and all(
        one == other or (other.mod_revision <= compacted and one == other._replace(previous=None))
        for one, other in zip(seen, right, strict=True)
    )


def seen(event: Event, prev_kv: bool) -> ObservedEvent:
    """What a client makes of an event."""
    kv = event.kv
    previous = None
    if prev_kv and event.HasField("prev_kv"):
        previous = (event.prev_kv.value, event.prev_kv.mod_revision)
    return ObservedEvent(
        event.type == Event.DELETE, kv.key, kv.value,
        kv.create_revision, kv.mod_revision, kv.version, kv.lease, previous,
    )  # fmt: skip


def watchers(world: World) -> list[WatchRecorder]:
    """One for each thing a watch can be asked for."""
    return [
        WatchRecorder(world, "w-all", b"", prev_kv=True),
        WatchRecorder(world, "w-start", b"r", from_start=True),
        WatchRecorder(world, "w-puts", b"t", deletes=False),
        WatchRecorder(world, "w-deletes", b"", puts=False, prev_kv=True),
        WatchRecorder(world, "w-one", b"r0"),
    ]
