"""Who leads, and what makes a leader unfit: a disk that does not answer or is full, a loop that is held."""

from __future__ import annotations

from collections.abc import Callable

from connect_kv.interfaces import Clock, Worker
from connect_kv.node.context import NodeMetrics
from connect_kv.raft.core import RaftCore
from connect_kv.raft.types import Role


class Leadership:
    """Follows what the core believes, one look after each turn."""

    def __init__(self, core: RaftCore, clock: Clock) -> None:
        self._core = core
        self._clock = clock
        self._seen: tuple[int, int | None] = (core.term, core.leader_id)
        self._leaderless: float | None = clock.now()

    @property
    def leads(self) -> bool:
        """Whether this node is the leader."""
        return self._core.role is Role.LEADER

    def changed(self) -> bool:
        """Look again; whether another leader, or the same in another term, is known now."""
        now = (self._core.term, self._core.leader_id)
        if now == self._seen:
            return False
        # A new term without a leader yet is no change for who waits for one.
        if now[1] is not None:
            self._leaderless = None
        elif self._leaderless is None:
            self._leaderless = self._clock.now()
        self._seen = now
        return True

    def leaderless_for(self) -> float:
        """Seconds for which no leader has been known; 0 if one is."""
        return 0.0 if self._leaderless is None else self._clock.now() - self._leaderless

    def successor(self) -> int | None:
        """The voter with the most of the log that answers; None if there is none."""
        status = self._core.status()
        voters = status.membership.voters
        candidates = [
            (follower.match_index, follower.node_id)
            for follower in status.followers
            if follower.recent_active and follower.node_id in voters and follower.node_id != status.node_id
        ]
        return max(candidates)[1] if candidates else None


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


async def watch_loop(clock: Clock, metrics: NodeMetrics, *, every: float, limit: float) -> None:
    """Sleep, and report each wake-up that comes more than `limit` seconds late, for ever."""
    while True:
        due = clock.now() + every
        await clock.sleep(every)
        late = clock.now() - due
        if late > limit:
            metrics.loop_stalled(late)
