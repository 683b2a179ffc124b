"""Timing and size limits of one core."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftConfig:
    """Checked when made; raises ValueError naming the field."""

    node_id: int
    election_ticks: int = 20
    """A follower campaigns after a random number of ticks in ``[election_ticks, 2 * election_ticks)``."""
    first_election_ticks: int | None = None
    """Until it has known a leader or voted, a new process asks for votes after a random number of ticks
    in ``[first_election_ticks, first_election_ticks + election_ticks)``: if a leader lives, the others
    know it, and refuse (thesis 9.6). None: as later."""
    heartbeat_ticks: int = 2
    """A leader sends heartbeats this often; at most a third of `election_ticks`."""
    max_append_bytes: int = 1 << 20
    """Entry bytes of one append; one entry more may be larger."""
    max_inflight_appends: int = 64
    """Appends under way to one follower, when they are full."""
    max_inflight_bytes: int = 8 << 20
    """Bytes under way to one follower."""
    small_append_bytes: int = 64 << 10
    """While one append is under way, a further one waits until at least this many bytes are pending
    (DESIGN: adaptive batching)."""
    max_uncommitted_bytes: int = 64 << 20
    """Proposals beyond this are refused until some are committed."""
    window_entries: int = 16384
    """Log entries kept in memory; those not yet persisted or committed are kept in any case."""
    window_bytes: int = 64 << 20
    """Bytes of log kept in memory, likewise."""

    def __post_init__(self) -> None:
        if self.node_id <= 0:
            raise ValueError("node_id: a positive number is needed")
        if not 0 < self.heartbeat_ticks * 3 <= self.election_ticks:
            raise ValueError("heartbeat_ticks: must be in [1, election_ticks / 3]")
        if self.first_election_ticks is not None and self.first_election_ticks <= 0:
            raise ValueError("first_election_ticks: must be positive")
        for field in (
            "max_append_bytes", "max_inflight_appends", "max_inflight_bytes", "small_append_bytes",
            "max_uncommitted_bytes", "window_entries", "window_bytes",
        ):  # fmt: skip
            if getattr(self, field) <= 0:
                raise ValueError(f"{field}: must be positive")
