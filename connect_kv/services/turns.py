"""Work of many small pieces on the loop: a while of it in each turn, whatever comes at once."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator

HOLD_SECONDS = 0.002
"""In one turn; then others get theirs."""
LOOK_AT_CLOCK = 8
"""Pieces of a few microseconds between two looks."""


class Turns:
    """Does what it is given, in order. Where little comes, all of it at once."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """`now`: seconds on a clock that measures how long the loop is held."""
        self._now = now
        self._waiting: deque[Iterator[object]] = deque()
        self._until = 0.0
        self._in_turn = False
        """What is given belongs to a turn that has begun."""

    def do(self, pieces: Iterator[object]) -> None:
        """Iterate over these to their end. A piece must not raise, nor give more work."""
        self._waiting.append(pieces)
        if not self._in_turn:
            self._turn()
        elif len(self._waiting) == 1:
            self._go_on()

    def _turn(self) -> None:
        self._in_turn = bool(self._waiting)
        if self._in_turn:
            # The next one begins behind all that is to run in this.
            asyncio.get_running_loop().call_soon(self._turn)
            self._until = self._now() + HOLD_SECONDS
            self._go_on()

    def _go_on(self) -> None:
        left = LOOK_AT_CLOCK
        while self._waiting:
            for _ in self._waiting[0]:
                left -= 1
                if not left:
                    if self._now() > self._until:
                        return
                    left = LOOK_AT_CLOCK
            self._waiting.popleft()
