"""How much one peer may use of this process before it is asked to calm down."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one server or client. Times are seconds, sizes bytes."""

    connections: int = 16_384
    """At a time; one more is told to go away."""
    arrivals: int = 1024
    """Connections of them that are not known yet, in a handshake or before their SETTINGS: one more, and the
    oldest is closed."""
    streams: int = 16_384
    """Open calls of one connection: announced on connect and never changed, because C core does not follow
    a change. Beyond it REFUSED_STREAM, which C core never repeats: a last resort."""
    served: int = 8_192
    """Unary calls of all connections; beyond it the newest are refused at once, where a method may be."""
    unanswered: int = 16_384
    """Unary calls of all connections; beyond it nothing is read until a quarter was answered."""
    message: int = 2 << 20
    """Of one message received, decompressed; a larger one is RESOURCE_EXHAUSTED."""
    held: int = 256 << 20
    """Received on all connections and not yet taken by a handler, in calls that are more than one frame;
    who adds to it then is refused with RESOURCE_EXHAUSTED."""
    waiting: int = 64 << 20
    """Of answers on one connection, that the client does not take. A sixteenth where all connections
    together exceed `held`, less where they exceed it more, and none at twice that."""
    header_list: int = 80 << 10
    """Of the metadata of one call, as SETTINGS_MAX_HEADER_LIST_SIZE counts: a token may take 64 KiB of it."""
    header_block: int = 128 << 10
    """The same as it is encoded; beyond it the connection ends."""
    continuations: int = 32
    """Frames that carry one block of header fields."""
    stream_window: int = 1 << 20
    """A stream of requests that its handler has not read."""
    connection_window: int = 16 << 20
    """Under way on one connection."""
    handshake: float = 10.0
    """From the connection to the peer's first SETTINGS, and for TLS before that."""
    partial: float = 60.0
    """For the rest of a frame that has begun."""
    unread: float = 300.0
    """How long a peer may take nothing of what is sent to it."""
    idle: float | None = None
    """Without a call, then the connection is closed politely. None: for ever, as etcd."""
    keepalive: float = 7200.0
    """Of silence, then the peer is asked for a sign of life. gRPC's own default, as etcd's."""
    keepalive_timeout: float = 20.0
    """For the sign of life that `keepalive` asks for."""
    drain: float = 1.0
    """For the answer to the PING between the two GOAWAYs."""


class Allowance:
    """A bucket of tokens: some at once, some with time, some with each thing of use that the peer did."""

    __slots__ = ("_at", "_each", "_left", "_most", "_rate", "_useful")

    def __init__(self, most: float, rate: float, each: float, now: float) -> None:
        """`most` at a time; `rate` come back a second, `each` with every useful thing."""
        self._most, self._rate, self._each = most, rate, each
        self._left, self._at, self._useful = most, now, 0

    def take(self, now: float, useful: int, tokens: float = 1) -> bool:
        """Whether there are so many for this. `useful`: how many useful things there have been, ever."""
        back = (now - self._at) * self._rate + (useful - self._useful) * self._each
        self._at, self._useful = now, useful
        self._left = min(self._most, self._left + back) - tokens
        return self._left >= 0
