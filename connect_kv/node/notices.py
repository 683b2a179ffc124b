"""Telling followers what is committed when no append does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from connect_kv.interfaces import Clock
from connect_kv.raft.core import RaftCore

PAUSE_SECONDS = 0.002
"""How long the next append may take that tells it as well: one caller that writes again as soon as it was
answered does so within this time. What waits for it meanwhile at followers are watchers and serializable
reads; a follower's own callers are waited for by name, and a linearizable read's round tells it too."""


class CommitNotices:
    """A message to each follower for each lone write costs all members more than it is worth."""

    def __init__(self, core: RaftCore, clock: Clock, wake: Callable[[], None]) -> None:
        """`wake` has what the core says next carried out."""
        self._core = core
        self._clock = clock
        self._wake = wake
        self._index = 0
        self._due = asyncio.Event()

    def committed(self, index: int) -> None:
        """Followers are to hear of it within two pauses."""
        self._index = index
        self._due.set()

    async def run(self) -> None:
        """After each pause, tell what was committed before it and not told since, for ever."""
        while True:
            await self._due.wait()
            self._due.clear()
            index = self._index
            await self._clock.sleep(PAUSE_SECONDS)
            if self._core.await_commit(index):
                self._wake()
