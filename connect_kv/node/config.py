"""Timing and limits of one node."""

from __future__ import annotations

from dataclasses import dataclass, fields

from connect_kv.node.membership import OLDEST_PROTOCOL, PROTOCOL
from connect_kv.raft.config import RaftConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """Checked when made; raises ValueError naming the field."""

    raft: RaftConfig
    tick_seconds: float = 0.05
    """Length of a tick: with 20 election ticks, an election timeout of one to two seconds."""
    protocol: int = PROTOCOL
    """The version of the traffic between members that this node speaks."""
    oldest_protocol: int = OLDEST_PROTOCOL
    """The oldest it understands."""
    highest_command: int = 0
    """Largest command number this node can apply."""
    machines: bytes = b""
    """What this node says of the machines of users that it hosts."""
    max_request_bytes: int = 2 << 20
    """A larger proposal is refused."""
    max_batch_bytes: int = 1 << 20
    """Proposals are joined into one entry up to this size; a single larger one stands alone."""
    max_batch_commands: int = 4096
    """And up to so many commands."""
    small_entry: int = 64
    """An entry of fewer commands than this gathers while the one before it is on its way,"""
    small_entry_bytes: int = 16 << 10
    """if it has also fewer bytes than this,"""
    gather_seconds: float = 0.005
    """up to so long."""
    max_waiting_bytes: int = 64 << 20
    """Proposals waiting beyond this are refused as Overloaded."""
    max_waiting_commands: int = 100_000
    """Proposals that would make more commands wait are refused as Overloaded."""
    forward_small_bytes: int = 64 << 10
    """While the leader has not answered the last batch, a follower's next one gathers up to this."""
    forward_unanswered_bytes: int = 16 << 20
    """Beyond this, a follower sends nothing more before the leader answers."""
    forward_seconds: float = 10.0
    """A forwarded proposal without any answer for so long is reported as OutcomeUnknown."""
    retained_results: int = 4096
    """Entries whose results are kept while a forwarded proposal is unanswered."""
    apply_slice_bytes: int = 512 << 10
    """Entry bytes applied as one storage batch; one entry more may be larger."""
    durable_seconds: float = 5.0
    """The state is forced to disk this often, if anything was applied."""
    durable_bytes: int = 32 << 20
    """Or after so many bytes of entries."""
    keep_entries: int = 10_000
    """Entries kept in the log for slow followers when it is compacted."""
    keep_bytes: int = 64 << 20
    """But not more bytes than this."""
    snapshot_keep_bytes: int = 128 << 20
    """Bytes of log kept above a snapshot while it is being sent."""
    space_seconds: float = 5.0
    """Free disk space is looked at this often."""
    watchdog_seconds: float = 0.02
    """How often the loop is checked for stalls; 0 never."""
    stall_seconds: float = 0.005
    """A loop held longer than this is counted as stalled."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name in ("raft", "highest_command", "machines", "watchdog_seconds"):
                continue
            if getattr(self, field.name) <= 0:
                raise ValueError(f"{field.name}: must be positive")

    @property
    def election_seconds(self) -> float:
        """One election timeout, the shortest a follower waits before it campaigns."""
        return self.raft.election_ticks * self.tick_seconds
