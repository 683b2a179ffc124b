"""Who shares the turns of the loop: what comes new does not wait for all that came before it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from connect_kv.services.turns import HOLD_SECONDS, LOOK_AT_CLOCK, Turns
from tests.services.conftest import until


class Work:
    """Pieces that take time on a clock of their own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.done: list[str] = []
        self.longest_turn = 0.0
        self.turns = Turns(lambda: self.now)

    def of(self, name: str, pieces: int, seconds: float) -> Iterator[bool]:
        for number in range(pieces):
            self.now += seconds
            self.done.append(f"{name}{number}")
            yield seconds >= HOLD_SECONDS


async def test_little_is_done_at_once_and_in_order() -> None:
    work = Work()
    for name in "abc":
        work.turns.do(work.of(name, 3, 0.00001))
    assert work.done == [f"{name}{number}" for name in "abc" for number in range(3)]


async def test_what_is_new_comes_before_the_rest_of_what_is_long_and_that_goes_on() -> None:
    work = Work()
    for name in "abc":
        work.turns.do(work.of(name, 200, 0.004))  # gets of a megabyte
    await asyncio.sleep(0)
    before = len(work.done)
    work.turns.do(work.of("put", 1, 0.0001))
    await until(lambda: "put0" in work.done)
    assert work.done.index("put0") - before <= 6
    for number in range(50):  # though something new comes with every turn
        work.turns.do(work.of(f"new{number}-", 1, 0.004))
        await asyncio.sleep(0)
    old = [one for one in work.done if one[0] in "abc"]
    assert len(old) > 20
    await until(lambda: len(work.done) == 3 * 200 + 1 + 50)


async def test_the_clock_is_looked_at_after_a_long_piece_and_after_some_short_ones() -> None:
    work = Work()
    work.turns.do(work.of("long", 5, 2 * HOLD_SECONDS))
    assert work.done == ["long0"]
    short = Work()
    short.turns.do(short.of("short", 100, HOLD_SECONDS / 4))
    assert len(short.done) == LOOK_AT_CLOCK
