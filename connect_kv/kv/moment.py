"""Moment: the two times of an entry. The date may be wrong and jump; what has passed is measured."""

from __future__ import annotations

from typing import NamedTuple

from connect_kv.storage import codec

STORED_LOG_TIME = bytes((codec.META,)) + b"log-time"
STORED_ELAPSED = bytes((codec.META,)) + b"elapsed"
"""Where a state has them: the date; and `elapsed` with `since`, absent while nothing was measured."""

_SCATTER = 0x9E3779B97F4A7C15
_ALL = (1 << 64) - 1
_POSITIVE = (1 << 63) - 1


class Moment(NamedTuple):
    """When an entry is applied, the same on every member. Part of the replicated state.

    Durations are differences of `now`, never of `log_time`: a wall clock that steps by an hour would end
    what was to last 59 minutes (docs/decisions/measured-time.md).
    """

    log_time: int = 0
    """The date: the leader's wall clock, nanoseconds since 1970; never goes back."""
    elapsed: int = 0
    """What leaders have measured to have passed, nanoseconds; only differences mean anything. 0: no entry
    has had it yet."""
    since: int = 0
    """Where `elapsed` began: times before it are dates."""

    @property
    def now(self) -> int:
        """For durations. Before the first entry with `elapsed`, dates serve, as on older members."""
        return self.elapsed or self.log_time

    def after(self, log_time: int, elapsed: int) -> Moment:
        """The moment of the next entry, with these stamps."""
        if not elapsed:
            return Moment(max(self.log_time, log_time), self.elapsed, self.since)
        since = self.since if self.elapsed else self.log_time
        # Where none was measured before, it goes on from the date: what is stored keeps its unit.
        return Moment(max(self.log_time, log_time), max(self.now, elapsed), since)

    def scattered(self, number: int) -> int:
        """A positive number of 63 bits for each number: clients do not guess it, nor does another cluster
        choose it that has come to the same index.
        """
        seed = (number * _SCATTER + self.log_time) & _ALL
        seed = ((seed ^ seed >> 30) * 0xBF58476D1CE4E5B9) & _ALL
        seed = ((seed ^ seed >> 27) * 0x94D049BB133111EB) & _ALL
        return (seed ^ seed >> 31) & _POSITIVE
