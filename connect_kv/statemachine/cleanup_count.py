"""How long it takes to clean up after compactions: plain numbers, for whoever shows them."""

from __future__ import annotations

from bisect import bisect_left

STEP_SECONDS = tuple(0.001 * 2**step for step in range(13))
"""Upper bounds of what single steps are counted by; during one, nothing is applied."""
WHOLE_SECONDS = tuple(0.1 * 2**step for step in range(14))
"""The same of whole cleanups."""


class Spread:
    """Durations, by the bound they stayed below."""

    __slots__ = ("bounds", "counts", "seconds")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """The last are longer than all bounds."""
        self.seconds = 0.0
        """Of all together."""

    def add(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds


class CleanupCount:
    """All cleanups since this process started."""

    __slots__ = ("ended_at", "steps", "wholes")

    def __init__(self) -> None:
        self.steps = Spread(STEP_SECONDS)
        self.wholes = Spread(WHOLE_SECONDS)
        self.ended_at = 0.0
        """When the last one ended, seconds since 1970; 0: none has."""
