"""Callers that wait for each answer, or a rate that waits for nobody."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from time import perf_counter

from connect_kv.bench.histogram import Histogram
from connect_kv.bench.workloads import Operation

Show = Callable[[int], None]
"""Told now and then how many operations are done, or begun."""


def step_of(total: int) -> int:
    """Operations between two words of progress: a hundredth of all, at most 1,000."""
    return max(1, min(1000, total // 100))


@dataclass(slots=True)
class LoadResult:
    """What a load came to."""

    latencies: Histogram = field(default_factory=Histogram)
    """Of what succeeded; at a fixed rate from when each was due, so that waiting counts (no
    coordinated omission)."""
    errors: Counter[str] = field(default_factory=Counter)
    """What failed, by class and text."""
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Successes in a second."""
        return self.latencies.count / self.seconds if self.seconds else 0.0

    def failed(self, error: Exception) -> None:
        """Count what did not succeed."""
        self.errors[f"{type(error).__name__}: {_text(error)}"] += 1


class LoadProgress:
    """Counts what is done, and says so at every step."""

    def __init__(self, total: int, show: Show) -> None:
        self._done = self._due = 0
        self._step = step_of(total)
        self._show = show

    def add(self, done: int) -> None:
        """Count `done` more operations, and show how many there are at each step."""
        self._done += done
        if self._done >= self._due:
            self._due = self._done + self._step
            self._show(self._done)


async def closed_loop(
    operation: Operation, *, callers: int, total: int, progress: Show = lambda done: None
) -> LoadResult:
    """`total` operations by `callers` that each wait for the answer before they go on."""
    outcome = LoadResult()
    numbers = iter(range(total))
    step = step_of(total)
    started = perf_counter()
    await asyncio.gather(*(_caller(operation, numbers, outcome, progress, step) for _ in range(callers)))
    outcome.seconds = perf_counter() - started
    return outcome


async def _caller(
    operation: Operation, numbers: Iterator[int], outcome: LoadResult, progress: Show, step: int
) -> None:
    for number in numbers:  # at 150,000 of them a second each coroutine in between would be seen
        since = perf_counter()
        try:
            await operation(number)
        except Exception as error:
            outcome.failed(error)
        else:
            outcome.latencies.add(perf_counter() - since)
        if not number % step:
            progress(number)


async def open_loop(
    operation: Operation, *, rate: float, total: int, progress: Show = lambda done: None
) -> LoadResult:
    """`total` operations, each begun when it is due at `rate` a second, whatever became of the others."""
    outcome = LoadResult()
    started = perf_counter()
    async with asyncio.TaskGroup() as tasks:
        begun = 0
        while begun < total:
            due = min(total, int((perf_counter() - started) * rate) + 1)
            for number in range(begun, due):
                tasks.create_task(_since(started + number / rate, operation(number), outcome))
            begun = due
            progress(begun)
            await asyncio.sleep(0.001)
    outcome.seconds = perf_counter() - started
    return outcome


async def _since(due: float, call: Awaitable[object], outcome: LoadResult) -> None:
    try:
        await call
    except Exception as error:
        outcome.failed(error)
    else:
        outcome.latencies.add(perf_counter() - due)


def _text(error: Exception) -> str:
    details = getattr(error, "details", None)
    return str(details() if callable(details) else error)
