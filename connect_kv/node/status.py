"""What a node shows of itself."""

from __future__ import annotations

from dataclasses import dataclass

from connect_kv.interfaces import Identity
from connect_kv.node.outage import Outage
from connect_kv.raft.status import RaftStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """One node at one moment."""

    identity: Identity
    raft: RaftStatus
    last_applied: int
    durable_index: int
    """Up to where the state is known to be on disk."""
    confirmed: bool
    """Whether a majority has noted this data directory, so that this node votes."""
    disk_sick: bool
    """Whether the log's disk does not answer."""
    waiting_commands: int
    """Commands that wait to be proposed or passed on."""
    common_highest_command: int
    """Largest command number that every member can apply; 0 while one has not been heard."""
    outage: Outage | None
    """Why nothing can be committed, as far as this member knows."""
