"""Work on the loop gives it back every two milliseconds, whatever the work is made of."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from connect_kv.interfaces import Clock

LOOP_SECONDS = 0.002
"""How long work holds the loop before others get a turn."""
LOOK_AT_CLOCK = 8
"""Pieces of a few microseconds between two looks at the clock."""


class LoopBudget:
    """Begins now. Look often whether a rest is due, and never by what a client can choose: it would choose
    numbers at which nobody looks.
    """

    __slots__ = ("_clock", "_since")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = clock.now()

    @property
    def due(self) -> bool:
        """Whether the loop has been held for long enough."""
        return self._clock.now() - self._since > LOOP_SECONDS

    async def rest(self) -> None:
        """Let others run."""
        await asyncio.sleep(0)
        self._since = self._clock.now()

    async def through(self, pieces: Iterable[object]) -> None:
        """Do the work that is done by iterating, with rests where they are due."""
        for _ in pieces:
            if self.due:
                await self.rest()
