"""What a server gives to the router, and what the router says of a call that failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from connect_kv.services.status import Status
from connect_kv.trailers import shortened

Metadata = Sequence[tuple[str, str | bytes]]
"""Header fields that came with a call: lower-case names; bytes where the name ends in ``-bin``."""


RECEIVE_MARGIN = 512 * 1024
"""Bytes taken above the request limit, so that what is somewhat too large is refused with a text of ours."""


class RpcFailed(Exception):
    """The call ends with this status; counted and logged already."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.text)
        self.status = replace(status, text=shortened(status.text))
        """With a text that arrives: not all that may be said fits into metadata."""


class Wire(Protocol):
    """One stream as a server gives it: encoded messages, in order."""

    @property
    def metadata(self) -> Metadata:
        """What came with the call."""

    async def read(self) -> bytes | None:
        """The next message; None once the client has half-closed."""

    async def write(self, message: bytes) -> None:
        """Send one. Waits while the client takes nothing."""


class UnaryCall(Protocol):
    """One unary call as a server gives it, with the others that came in the same turn of the loop.

    It is answered exactly once, with `reply` or `fail`, then or later; also one that is `gone`.
    """

    kept: object | None
    """The router's own: what it knows of all calls whose header block is this one, on this connection. A
    server keeps one such slot for each block it remembers; None at first."""

    @property
    def message(self) -> bytes:
        """The encoded request."""

    @property
    def metadata(self) -> Metadata:
        """What came with the call."""

    def gone(self) -> bool:
        """Whether nobody waits for the answer any more: given up, past its deadline, or answered."""

    def reply(self, message: bytes) -> None:
        """Answer it, if somebody still waits."""

    def fail(self, code: int, text: str, trailing: Metadata = ()) -> None:
        """End it with a status, if somebody still waits."""
