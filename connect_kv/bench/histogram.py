"""Latencies in buckets that grow with them: every percentile is right to 1.6 %, in a few kilobytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

_BITS = 6
_SUB = 1 << _BITS
"""Buckets for each doubling, as in an HDR histogram with two digits."""


class Histogram:
    """Counts of microseconds. Histograms of several runs may be merged."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.total = 0.0
        """Seconds, of all values."""
        self.longest = 0.0
        """Seconds."""

    def add(self, seconds: float) -> None:
        """Count a measured value, in seconds."""
        microseconds = int(seconds * 1e6)
        shift = microseconds.bit_length() - _BITS - 1
        bucket = microseconds if shift < 0 else (shift << (_BITS + 1)) + (microseconds >> shift)
        self._counts[bucket] += 1
        self.total += seconds
        if seconds > self.longest:
            self.longest = seconds

    def merge(self, others: Iterable[Histogram]) -> None:
        """Count every value of those histograms here too."""
        for other in others:
            self._counts.update(other._counts)
            self.total += other.total
            self.longest = max(self.longest, other.longest)

    @property
    def count(self) -> int:
        """How many values there are."""
        return self._counts.total()

    @property
    def mean(self) -> float:
        """Seconds; 0 of none."""
        return self.total / self.count if self._counts else 0.0

    def percentile(self, percent: float) -> float:
        """Seconds that so many of all values do not exceed; 0 of none."""
        wanted = max(1, -(-self.count * percent // 100))
        seen = 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= wanted:
                return min(_upper(bucket) / 1e6, self.longest)
        return 0.0


def _upper(bucket: int) -> int:
    """The largest value that falls into it."""
    shift, low = bucket >> (_BITS + 1), bucket & ((_SUB << 1) - 1)
    return ((low + 1) << shift) - 1
