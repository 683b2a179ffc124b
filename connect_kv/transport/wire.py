"""What the transport needs of gRPC: connections to other members, and a port that serves theirs.

`transport.http2_wire` does it with our own HTTP/2. The tests have another by the gRPC library, which is what
members of earlier versions speak: each is the other's witness.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from connect_kv.http2.metadata import StatusError
from connect_kv.transport.limits import TransportLimits

CALL_FAILURES = (StatusError, OSError)
"""How a call fails that another member was asked for, by the status it gave or with the connection."""


class FrameStream(Protocol):
    """A call with messages in both directions, as either side sees it."""

    async def read(self) -> bytes | None:
        """The next message; None after the last. Raises StatusError."""

    async def write(self, message: bytes, /) -> None:
        """Send a message, once the other side takes what was sent before. Raises StatusError."""

    def watch(self, watcher: Callable[[], None] | None, /) -> None:
        """Have it called when `poll` or `backlog` may have another answer, in the turn that brings it."""

    def poll(self) -> bytes | None:
        """The next message if one has come whole. Raises StatusError."""

    @property
    def over(self) -> bool:
        """Whether no message follows those that `poll` has given."""

    @property
    def backlog(self) -> bool:
        """Whether what was sent before still waits for the other side to take it."""

    def push(self, message: bytes, /) -> None:
        """Send a message at once; best without a `backlog`."""


class OutgoingStream(FrameStream, Protocol):
    """The side of who opened it."""

    def end(self) -> None:
        """No message of ours follows."""

    def cancel(self) -> None:
        """Give the stream up."""


class PeerChannel(Protocol):
    """One connection to one member."""

    @property
    def leaving(self) -> str:
        """Why new calls fail here, or nothing."""

    async def unary(self, path: str, message: bytes, timeout: float = ..., /) -> bytes:
        """One request, one answer, within so many seconds. Raises StatusError."""

    def stream(self, path: str, /) -> OutgoingStream:
        """Begin a call with messages in both directions."""

    async def close(self) -> None:
        """Give up all calls and close."""


@dataclass(frozen=True, slots=True)
class PeerCaller:
    """Who has connected here."""

    address: str
    certificate: bytes | None
    """What TLS has verified, PEM or DER."""


Answer = Callable[[bytes, PeerCaller], Awaitable[bytes]]
"""Of a unary call. May raise StatusError."""
Serve = Callable[[FrameStream, PeerCaller], Awaitable[None]]
"""Serves a stream until it returns. May raise StatusError; cancelled when the caller has gone."""


class PeerWire(Protocol):
    """Both sides, in the clear or over TLS."""

    @property
    def limits(self) -> TransportLimits:
        """Sizes and times."""

    async def open(self, address: str) -> PeerChannel:
        """Connect to the member at ``host:port``. Raises OSError or StatusError."""

    async def listen(self, address: str, unary: Mapping[str, Answer], streams: Mapping[str, Serve]) -> int:
        """Serve these methods, by their paths; returns the port. Raises OSError."""

    async def stop(self) -> None:
        """End what is being served, and listen no more."""
