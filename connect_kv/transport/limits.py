"""What the peer transport allows itself, and how it sets up gRPC."""

from __future__ import annotations

from dataclasses import dataclass

SERVICE = "connect_kv.v1.Raft"

Options = list[tuple[str, int]]


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


def server_options(limits: TransportLimits) -> Options:
    """For the listening side."""
    return [
        # Otherwise a second process binds the same port without an error and takes half the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", _receive_limit(limits)),
        # Peers ask for signs of life more often than gRPC tolerates by default.
        ("grpc.http2.min_ping_interval_without_data_ms", 100),
        ("grpc.http2.max_ping_strikes", 0),
        *_keepalive(limits),
    ]


def channel_options(limits: TransportLimits) -> Options:
    """For a connection to one peer."""
    return [
        ("grpc.max_receive_message_length", _receive_limit(limits)),
        ("grpc.initial_reconnect_backoff_ms", _milliseconds(limits.reconnect_first)),
        ("grpc.max_reconnect_backoff_ms", _milliseconds(limits.reconnect_most)),
        # Despite its name, how long one attempt to connect may take; 20 s unless told.
        ("grpc.min_reconnect_backoff_ms", _milliseconds(limits.reconnect_most)),
        # A restarted container has another address under the same name; 30 s unless told.
        ("grpc.dns_min_time_between_resolutions_ms", _milliseconds(limits.reconnect_most)),
        # Channels to one address share a connection unless told: a snapshot must not be in the way
        # of heartbeats.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        *_keepalive(limits),
    ]


def _receive_limit(limits: TransportLimits) -> int:
    return limits.max_frame_bytes + 4096  # the frame around a snapshot chunk


def _keepalive(limits: TransportLimits) -> Options:
    return [
        ("grpc.keepalive_time_ms", _milliseconds(limits.keepalive)),
        ("grpc.keepalive_timeout_ms", _milliseconds(limits.keepalive)),
        # Without this a missing answer is noticed after a minute, whatever the line above says (measured).
        ("grpc.http2.ping_timeout_ms", _milliseconds(limits.keepalive)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
