"""What the leader knows of one other member, and how much it may send it (§5.3).

PROBE: where the logs agree is not known; one append at a time, then wait for its answer or for the
next heartbeat's. REPLICATE: appends follow each other without waiting, within a window. SNAPSHOT:
a snapshot is on its way, nothing else is sent.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from connect_kv.raft.config import RaftConfig


class ProgressState(Enum):
    """How a member is fed."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


@dataclass(slots=True)
class Progress:
    """One member, as its leader sees it. Made anew at the start of each leadership."""

    next_index: int
    """The next entry to send."""
    match_index: int = 0
    """Up to here the member's log is known to equal the leader's, on disk."""
    state: ProgressState = ProgressState.PROBE
    paused: bool = False
    """A probe is under way."""
    recent_active: bool = True
    """It answered something since the last check-quorum (thesis 6.2). A new member gets one grace."""
    acknowledged_round: int = 0
    """The last heartbeat round it answered (thesis 6.4)."""
    told_commit: int = 0
    """The commit index last sent to it."""
    awaited_commit: int = 0
    """Up to here somebody waits for it to hear of the commit: it is told at once, not by the next append."""
    lost_state_at: int | None = None
    """It lost its state, though not its log, which ends there: it waits for a snapshot."""
    loading: bool = False
    """The driver is reading older entries for it."""
    heard_tick: int = 0
    """When an append was last acknowledged, or one left while none was under way."""
    _inflight: deque[tuple[int, int]] = field(default_factory=deque)
    """(last index, bytes) of each append under way."""
    _inflight_bytes: int = 0

    @property
    def inflight(self) -> int:
        """Appends under way."""
        return len(self._inflight)

    def may_send(self, config: RaftConfig, pending_bytes: int) -> bool:
        """Whether an append with entries may leave now.

        While one is under way the next waits until it is worth a message of its own: many tiny
        appends cost more than they gain.
        """
        if self.state is ProgressState.REPLICATE:
            if not self._inflight:
                return True
            return (
                pending_bytes >= config.small_append_bytes
                and len(self._inflight) < config.max_inflight_appends
                and self._inflight_bytes < config.max_inflight_bytes
            )
        return self.state is ProgressState.PROBE and not self.paused

    def unknown_below(self, last_index: int) -> bool:
        """Whether a probe is needed although no entry is left to send with it."""
        return self.state is ProgressState.PROBE and self.match_index < last_index and not self.paused

    def has_all(self, last_index: int) -> bool:
        """Whether nothing is left to send to it, nor to tell it: most of the time."""
        return (
            self.next_index > last_index
            and self.told_commit >= self.awaited_commit
            and self.state is ProgressState.REPLICATE
            and self.lost_state_at is None
        )

    def sent(self, last_index: int, size: int, tick: int) -> None:
        """An append up to `last_index` left."""
        if self.state is ProgressState.REPLICATE:
            if not self._inflight:
                self.heard_tick = tick
            self._inflight.append((last_index, size))
            self._inflight_bytes += size
            self.next_index = last_index + 1
        else:
            self.paused = True

    def acknowledged(self, match_index: int, tick: int) -> None:
        """Everything up to `match_index` is on the member's disk. Never goes back."""
        if match_index > self.match_index:
            self.match_index = match_index
        # Forwards only: with appends under way `next_index` is ahead of what is acknowledged, and stays
        # there.
        self.next_index = max(self.next_index, self.match_index + 1)
        self.heard_tick = tick
        while self._inflight and self._inflight[0][0] <= match_index:
            self._inflight_bytes -= self._inflight.popleft()[1]

    def become_probe(self, next_index: int, *, paused: bool = False) -> None:
        """Find out anew where the logs agree; never below what is known to match."""
        # Never below it: a late rejection must not have entries sent again that may be compacted here by now,
        # which would cost the member a snapshot it does not need.
        self._become(ProgressState.PROBE, max(next_index, self.match_index + 1))
        self.paused = paused

    def become_replicate(self) -> None:
        """The logs agree up to `match_index`."""
        self._become(ProgressState.REPLICATE, self.match_index + 1)

    def become_snapshot(self) -> None:
        """Wait for a snapshot to be installed."""
        lost_state_at = self.lost_state_at
        self._become(ProgressState.SNAPSHOT, self.next_index)
        self.lost_state_at = lost_state_at

    def _become(self, state: ProgressState, next_index: int) -> None:
        self.state, self.next_index = state, next_index
        self.paused = self.loading = False
        self.told_commit = 0
        self.lost_state_at = None
        self._inflight.clear()
        self._inflight_bytes = 0
