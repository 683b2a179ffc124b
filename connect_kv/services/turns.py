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
    """Does what it is given. Where little comes, all of it at once, in order.

    Where more comes than fits into a turn, what is left of it waits behind, and what comes new has every
    other turn: an answer to a put is not held up by thousands of gets of a megabyte that came before it, and
    these go on, too.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """`now`: seconds on a clock that measures how long the loop is held."""
        self._now = now
        self._new: deque[Iterator[object]] = deque()
        self._begun: deque[Iterator[object]] = deque()
        """Those that did not fit into a turn."""
        self._new_first = True
        self._until = 0.0
        self._in_turn = self._over = False
        """What is given belongs to a turn that has begun; whose time is over."""

    def do(self, pieces: Iterator[object]) -> None:
        """Iterate over these to their end. A piece must not raise, nor give more work. One that yields True
        may have taken long: the clock is looked at.
        """
        self._new.append(pieces)
        if not self._in_turn:
            self._turn()
        elif not self._over:
            self._go_on()

    def _turn(self) -> None:
        self._in_turn = bool(self._new or self._begun)
        if self._in_turn:
            # The next one begins behind all that is to run in this.
            asyncio.get_running_loop().call_soon(self._turn)
            self._until = self._now() + HOLD_SECONDS
            self._over, self._new_first = False, not self._new_first or not self._begun
            self._go_on()

    def _go_on(self) -> None:
        while not self._over:
            first, second = (self._new, self._begun) if self._new_first else (self._begun, self._new)
            waiting = first or second
            if not waiting:
                return
            self._some_of(waiting)

    def _some_of(self, waiting: deque[Iterator[object]]) -> None:
        """The first of them, to its end or to that of the turn."""
        left = LOOK_AT_CLOCK
        for long in waiting[0]:
            left -= 1
            if not left or long:
                if self._now() > self._until:
                    self._over = True
                    if waiting is self._new:
                        self._begun.append(waiting.popleft())
                    return
                left = LOOK_AT_CLOCK
        waiting.popleft()
