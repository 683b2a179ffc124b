"""Who leads, since when nobody does, and to whom leadership could go."""

from __future__ import annotations

from connect_kv.interfaces import Clock
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
