"""How much one client may use of this process over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from connect_kv.etcd_errors import Code

Limited = Callable[[str, str, Code, str], None]
"""Told the client's address, which method it called or nothing of a connection, the code and the reason."""


def nobody_is_told(address: str, call: str, code: Code, reason: str) -> None:
    """Where nothing is written down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Of one server. Times are seconds, sizes bytes."""

    connections: int = 16_384
    """At a time; one more is told 503."""
    head: int = 128 << 10
    """The first line and all header fields; a token may take 64 KiB of it. Beyond it 431.
    Trailers have the same."""
    body: int = 16 << 20
    """Of one request. JSON of a message just over the limit of messages fits in; beyond it 413."""
    held: int = 256 << 20
    """Bodies of all connections that are not yet taken; who adds to it then is told 429."""
    pipelined: int = 16
    """Requests of one connection that are read before the first of them is answered."""
    head_seconds: float = 30.0
    """From the first byte of a request to the last of its head."""
    body_seconds: float = 60.0
    """Between two pieces of a body, while somebody waits for it."""
    unread_seconds: float = 300.0
    """How long a client may take nothing of what is sent to it."""
    idle_seconds: float = 600.0
    """Without a request, then the connection is closed."""
    linger_seconds: float = 1.0
    """For the client to read an answer before whose request was read to its end."""
