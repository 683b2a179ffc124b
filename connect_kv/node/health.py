"""A disk that does not answer, and one that fills up (DESIGN: a sick disk moves leadership)."""

from __future__ import annotations

from collections.abc import Callable

from connect_kv.interfaces import Clock, Worker

LOW_WATER_BYTES = 512 << 20
"""Less free space than this is low on any disk."""
LOW_WATER_DIVISOR = 20
"""And less than this fraction of the whole."""


class DiskHealth:
    """Sick while the oldest unfinished write of the log is older than `limit` seconds."""

    def __init__(self, *, clock: Clock, oldest: Callable[[], float | None], limit: float) -> None:
        self._clock = clock
        self._oldest = oldest
        self._limit = limit
        self.sick = False

    def check(self) -> bool:
        """Look again; returns whether that changed."""
        oldest = self._oldest()
        sick = oldest is not None and self._clock.now() - oldest > self._limit
        changed = sick != self.sick
        self.sick = sick
        return changed


def is_low(free: int, total: int) -> bool:
    """Whether so few bytes are free that writes should be refused while deletes still can be stored."""
    return free < max(LOW_WATER_BYTES, total // LOW_WATER_DIVISOR)


async def watch_space(
    *,
    clock: Clock,
    worker: Worker,
    free_bytes: Callable[[], tuple[int, int]],
    every: float,
    report: Callable[[bool, int], None],
) -> None:
    """Call ``report(low, free)`` again and again, for ever.

    `free_bytes` runs on `worker`: asking a sick disk may block.
    """
    while True:
        free, total = await worker.run(free_bytes)
        report(is_low(free, total), free)
        await clock.sleep(every)
