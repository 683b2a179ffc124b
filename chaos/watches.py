"""Watches on each node and on all: every change once, in order, whole, with its flags, whatever happens."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from connect_kv import errors
from connect_kv.client import client as door
from connect_kv.rpc.kv_pb2 import Event

CATCH_UP_SECONDS = 30.0


class WatchedEvent(NamedTuple):
    """One event, as a client got it."""

    revision: int
    key: bytes
    deleted: bool
    value: bytes
    created: int
    version: int
    previous: tuple[int, bytes] | None
    """Revision and value before."""


class ChaosWatcher:
    """One watch for the whole of a run."""

    def __init__(self, name: str, client: door.Client, prefix: str, *, previous: bool) -> None:
        self.name = name
        self.prefix = prefix
        self.previous = previous
        self.start = 0
        self.seen: list[WatchedEvent] = []
        self.failures: list[str] = []
        self._client = client

    async def run(self) -> None:
        """Watch and write down what is seen, until cancelled."""
        async with self._client:
            while True:
                try:
                    await self._watch()
                except errors.Unavailable:
                    await asyncio.sleep(0.2)
                except errors.ConnectKvError as error:
                    self.failures.append(f"watch {self.name}: ended with {type(error).__name__}: {error}")
                    return

    async def _watch(self) -> None:
        after = self.seen[-1].revision + 1 if self.seen else self.start
        watch = self._client.watch(self.prefix, prefix=True, start_revision=after, prev_kv=self.previous)
        async with watch:
            self.start = self.start or watch.next_revision
            async for event in watch:
                self.seen.append(seen(event))


def seen(event: Event) -> WatchedEvent:
    """What of it is compared."""
    kv, before = event.kv, event.prev_kv
    previous = (before.mod_revision, _short(before.value)) if event.HasField("prev_kv") else None
    return WatchedEvent(
        kv.mod_revision, kv.key, event.type == Event.DELETE, _short(kv.value),
        kv.create_revision, kv.version, previous,
    )  # fmt: skip


def _short(value: bytes) -> bytes:
    """Large values by their hash: a run keeps every event."""
    return value if len(value) <= 64 else hashlib.sha256(value).digest()


async def whole_history(client: door.Client, end: int) -> list[WatchedEvent]:
    """Every change up to revision `end`, which holds one event, read by one watch when all is over."""
    found: list[WatchedEvent] = []
    async with asyncio.timeout(60), client.watch("", prefix=True, start_revision=1, prev_kv=True) as watch:
        while not found or found[-1].revision < end:
            found.append(seen(await anext(watch)))
    return found


def check_chain(history: Sequence[WatchedEvent]) -> list[str]:
    """Revisions rise, and each event of a key follows from the one before."""
    problems = []
    last: dict[bytes, WatchedEvent] = {}
    for number, one in enumerate(history):
        if number and one.revision < history[number - 1].revision:
            problems.append(f"history: revision {one.revision} after {history[number - 1].revision}")
        before = last.get(one.key)
        if before is not None and before.deleted:
            before = None
        if before is not None and one.previous != (before.revision, before.value):
            problems.append(f"history: {one} does not follow {before}")
        if not one.deleted:
            version, created = (before.version + 1, before.created) if before else (1, one.revision)
            if (one.version, one.created) != (version, created):
                problems.append(f"history: {one} does not follow {before}")
        last[one.key] = one
    return problems[:5]


def check_watcher(watcher: ChaosWatcher, history: Sequence[WatchedEvent]) -> list[str]:
    """It saw exactly its part of the history."""
    got, expected = so_far(watcher, history), expected_of(watcher, history)
    if got == expected:
        return watcher.failures
    for number, (one, right) in enumerate(zip(got, expected, strict=False)):
        if one != right:
            return [*watcher.failures, f"watch {watcher.name}: event {number} is {one}, not {right}"]
    return [*watcher.failures, f"watch {watcher.name}: {len(got)} events, not {len(expected)}"]


def so_far(watcher: ChaosWatcher, history: Sequence[WatchedEvent]) -> list[WatchedEvent]:
    """What it saw within the time of the history."""
    return [one for one in watcher.seen if one.revision <= history[-1].revision]


def expected_of(watcher: ChaosWatcher, history: Sequence[WatchedEvent]) -> list[WatchedEvent]:
    """What it must have seen."""
    prefix = watcher.prefix.encode()
    return [
        one if watcher.previous else one._replace(previous=None)
        for one in history
        if one.revision >= watcher.start and one.key.startswith(prefix)
    ]


async def caught_up(watchers: Sequence[ChaosWatcher], history: Sequence[WatchedEvent]) -> None:
    """Wait until each has as many events as it must have, or for CATCH_UP_SECONDS."""
    loop = asyncio.get_running_loop()
    end = loop.time() + CATCH_UP_SECONDS
    counts = {watcher.name: len(expected_of(watcher, history)) for watcher in watchers}
    while loop.time() < end and any(len(one.seen) < counts[one.name] for one in watchers):  # noqa: ASYNC110
        await asyncio.sleep(0.2)
