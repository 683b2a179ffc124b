"""Samples: how busy a member was lately, in steps, in memory.

Read from counters that are kept anyway; a bounded number of steps, so that an hour costs some 50 KiB.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from connect_kv.interfaces import Clock
from connect_kv.rpc.dashboard_pb2 import HistoryResponse

STEP_SECONDS = 10.0
STEPS = 360
"""An hour."""
UNKNOWN = -1.0
"""The value of a step in which there was nothing to measure."""
_QUANTILES = (("", 0.5), (" (99 %)", 0.99))
_LATE = 3
"""Steps after which a sample is one of a process that did not run meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where samples come from, by the name of what is measured."""

    rates: Mapping[str, Callable[[], float]]
    """Numbers that only grow."""
    gauges: Mapping[str, tuple[str, Callable[[], float]]]
    """Unit, and what is so now."""
    durations: Mapping[str, Callable[[], Sequence[tuple[float, float]]]]
    """Histograms: upper bounds in seconds, the last infinite, and how many were not longer."""


class Samples:
    """The last steps of one member. `run` is a task."""

    def __init__(self, clock: Clock, sources: Sources) -> None:
        self._clock = clock
        self._sources = sources
        self._steps: deque[tuple[int, list[float]]] = deque(maxlen=STEPS)
        self._names: list[tuple[str, str]] = [
            *((name, "1/s") for name in sources.rates),
            *((name, unit) for name, (unit, _) in sources.gauges.items()),
            *((f"{name}{suffix}", "ms") for name in sources.durations for suffix, _ in _QUANTILES),
        ]
        self._at = clock.now()
        self._counts = self._read_counts()
        self._buckets = self._read_buckets()

    async def run(self) -> None:
        """Take a sample every step, until cancelled."""
        while True:
            await self._clock.sleep(STEP_SECONDS)
            self.take()

    def take(self) -> None:
        """End a step now."""
        now = self._clock.now()
        counts, buckets, seconds = self._read_counts(), self._read_buckets(), now - self._at
        if 0 < seconds < _LATE * STEP_SECONDS:
            values = [(new - old) / seconds for new, old in zip(counts, self._counts, strict=True)]
            values += [read() for _, read in self._sources.gauges.values()]
            for new_buckets, old_buckets in zip(buckets, self._buckets, strict=True):
                values += _quantiles(new_buckets, old_buckets)
            self._steps.append((self._clock.wall(), [round(value, 3) for value in values]))
        self._at, self._counts, self._buckets = now, counts, buckets

    def after(self, wall: int) -> HistoryResponse:
        """The steps that ended later than that."""
        steps = [step for step in self._steps if step[0] > wall]
        return HistoryResponse(
            step_seconds=STEP_SECONDS,
            ends=[end for end, _ in steps],
            series=[
                HistoryResponse.Series(name=name, unit=unit, values=[values[at] for _, values in steps])
                for at, (name, unit) in enumerate(self._names)
            ],
        )

    def _read_counts(self) -> list[float]:
        return [float(read()) for read in self._sources.rates.values()]

    def _read_buckets(self) -> list[Sequence[tuple[float, float]]]:
        return [read() for read in self._sources.durations.values()]


def _quantiles(new: Sequence[tuple[float, float]], old: Sequence[tuple[float, float]]) -> Iterable[float]:
    """Milliseconds, of what was measured between two readings of a histogram."""
    counts = [(bound, count - before) for (bound, count), (_, before) in zip(new, old, strict=True)]
    return [_quantile(counts, part) for _, part in _QUANTILES]


def _quantile(counts: Sequence[tuple[float, float]], part: float) -> float:
    """Within its bucket as if all were spread evenly; of the last bucket, its lower bound."""
    total = counts[-1][1] if counts else 0.0
    if total <= 0:
        return UNKNOWN
    wanted, lower, below = part * total, 0.0, 0.0
    for bound, count in counts:
        if count >= wanted:
            if bound == inf:
                return lower * 1000
            return (lower + (bound - lower) * (wanted - below) / max(count - below, 1e-9)) * 1000
        lower, below = bound, count
    return lower * 1000
