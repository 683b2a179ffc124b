"""What a core shows of itself: for operators, metrics and tests. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from connect_kv.raft.progress import ProgressState
from connect_kv.raft.types import Membership, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowerStatus:
    """One member, as the leader sees it."""

    node_id: int
    state: ProgressState
    match_index: int
    next_index: int
    recent_active: bool
    """It answered since the last check-quorum."""
    inflight: int
    """Appends under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftStatus:
    """One core at one moment."""

    node_id: int
    role: Role
    term: int
    vote: int | None
    leader_id: int | None
    first_index: int
    last_index: int
    persisted_index: int
    commit_index: int
    applied_index: int
    membership: Membership
    membership_index: int
    """Where it was appended; a change is under way while this exceeds `commit_index`."""
    followers: tuple[FollowerStatus, ...] = ()
    """Sorted by id; empty unless this node leads."""
    transfer_to: int | None = None
    """Who leadership is being handed to."""
    needs_snapshot: bool = False
