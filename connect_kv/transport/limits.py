"""What the peer transport allows itself, and what that means for HTTP/2."""

from __future__ import annotations

from dataclasses import dataclass

from connect_kv.http2.limits import Limits

SERVICE = "connect_kv.v1.Raft"

_CONNECTIONS = 1024
"""Of members: one of each, and one for a snapshot, a question or a call that is under way."""
_STREAMS = 1024
"""Of each: two, its letters, and a call or two."""
_STREAM_WINDOW = 4 << 20
"""Bytes of a stream on their way: what a distant member takes in a tenth of a second, at 40 MB/s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportLimits:
    """Sizes in bytes, times in seconds. Alike on all members, or the smallest receiver decides."""

    max_batch_bytes: int = 1 << 20
    """Messages that wait are joined into one frame up to this; also the largest snapshot chunk."""
    max_entry_bytes: int = 34 << 20
    """The largest single entry: an append is at most one batch and one entry. More than any request may
    have (`config.ServerConfig.max_request_bytes`): a member that takes less than another has sent would
    never get past that entry."""
    queue_messages: int = 4096
    """Messages that may wait on one stream."""
    queue_bytes: int = 16 << 20
    """Bytes that may wait on one stream, beyond the first message."""
    reconnect_first: float = 0.1
    """Pause after the first failed attempt; doubled up to `reconnect_most`."""
    reconnect_most: float = 1.0
    """Also how long one attempt to connect may take, until the other side has spoken."""
    refused_pause: float = 1.0
    """Pause after a peer did not welcome us; at least a second, since only an operator changes that."""
    unary_timeout: float = 1.0
    """How long a vote request may be under way: less than an election timeout, then it is useless."""
    keepalive: float = 0.9
    """A peer is asked for a sign of life this often, and given as long to answer: together less than
    two election timeouts."""
    snapshot_retained_bytes: int = 32 << 20
    """What a sender keeps of a snapshot stream to resume it: more than a connection may hold."""
    snapshot_resume: float = 10.0
    """How long a receiver keeps a broken snapshot stream for its sender to resume."""
    snapshot_attempts: int = 5
    """Connections a sender tries without getting any further."""

    @classmethod
    def for_election(cls, seconds: float) -> TransportLimits:
        """Times that fit the election timeout. Below a second they stay: a busy machine is not a dead one."""
        patience = max(seconds, 1.0)
        return cls(unary_timeout=patience, keepalive=0.9 * patience)

    @property
    def max_frame_bytes(self) -> int:
        """Larger frames are neither sent nor received."""
        return self.max_batch_bytes + self.max_entry_bytes


def http2_limits(limits: TransportLimits) -> Limits:
    """For connections from members; to them, with a bound on how long it may take to make one."""
    return Limits(
        connections=_CONNECTIONS,
        streams=_STREAMS,
        message=limits.max_frame_bytes + 4096,  # the frame around a snapshot chunk
        stream_window=_STREAM_WINDOW,
        keepalive=limits.keepalive,
        keepalive_timeout=limits.keepalive,
    )
