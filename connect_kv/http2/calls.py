"""Calls as a server's handlers see them, and what gathers of them during a turn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from connect_kv.http2 import metadata
from connect_kv.http2.hpack import Field
from connect_kv.http2.metadata import Metadata, StatusError
from connect_kv.http2.sending import Stream, Turn

if TYPE_CHECKING:
    from connect_kv.http2.server import ServerConnection


class Route:
    """One method. Its unary calls gather in `calls`; a stream is given to `begin`."""

    __slots__ = ("begin", "calls", "path", "refuse", "waits")

    def __init__(self, path: bytes, begin: Callable[[Call], None] | None = None) -> None:
        self.path = path
        self.begin = begin
        self.calls: list[Call] = []
        self.refuse: Callable[[Call], None] | None = None
        """Answers a call for which there is no room; None: there always is."""
        self.waits = False
        """Its unary calls may wait for others, for ever: they are not counted as unanswered."""

    @property
    def is_long(self) -> bool:
        """Whether a call of it may stand for long."""
        return self.waits or self.begin is not None


class ServerTurn(Turn):
    """What came during a turn, on all connections."""

    __slots__ = ("any_gone", "limited", "more", "ready", "requests", "routes", "services")

    def __init__(self, routes: dict[bytes, Route], requests: Route | None = None) -> None:
        """`requests`: for those that are no calls of gRPC; None: they are refused."""
        super().__init__()
        self.routes = routes
        self.requests = requests
        self.services = {path[1:].rpartition(b"/")[0] for path in routes}
        self.ready: list[Route] = []
        """Routes that have calls to be handed over."""
        self.any_gone = False
        self.more: Callable[[Call], Metadata] = _nothing_more
        """What this side adds to the metadata of calls with the same fields."""
        self.limited: Limited = _nobody_is_told
        """Told of what is refused before a handler sees it, because it is too much."""

    def take(self) -> list[tuple[Route, list[Call]]]:
        """The calls to be handed over now. One that was reset in the same read is not among them: the
        clients of a slow server give up many at once, and some are sent dead.
        """
        ready = self.ready[:]
        self.ready.clear()
        taken = []
        for route in ready:
            calls, route.calls = route.calls, []
            if self.any_gone:
                calls = [call for call in calls if not call.gone()]
            if calls:
                taken.append((route, calls))
        self.any_gone = False
        return taken


Limited = Callable[[str, bytes, int, str], None]
"""Told the client's address, the method's path, empty for a whole connection, a status code, the reason."""


def _nobody_is_told(address: str, path: bytes, code: int, reason: str) -> None:
    pass


class Kept:
    """What was found out about a call, for the next ones with the same fields on that connection."""

    __slots__ = ("metadata", "value")

    def __init__(self) -> None:
        self.metadata: Metadata | None = None
        self.value: object | None = None
        """Whatever handlers want to find again."""


@dataclass(slots=True)
class Head:
    """What a block of header fields says: shared by all calls that sent the same block."""

    route: Route | None
    fields: list[Field]
    timeout: float | None = None
    """Seconds that the client gives the call."""
    encoding: bytes = b""
    """How messages that say so are compressed."""
    refusal: StatusError | bytes | None = None
    """Why such a call is not served: a status, a whole block of an answer without one, or, empty, a malformed
    one."""
    plain: bool = False
    """A unary call that needs no attention before its message has come."""
    kept: Kept = field(default_factory=Kept)

    def with_timeout(self, value: bytes) -> Head | None:
        """The same call with another ``grpc-timeout``."""
        timeout = metadata.parse_timeout(value)
        if timeout is None or self.timeout is None:
            return None
        return Head(self.route, self.fields, timeout, self.encoding, self.refusal, kept=self.kept)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end."""

    address: str = ""
    certificate: bytes | None = None
    """In DER, of a client that TLS has verified."""
    name: str = ""
    """What this side knows it by."""
    refusal: StatusError | None = None
    """Why no call of this client is served."""


def _nothing_more(call: Call) -> Metadata:
    return ()


class Call(Stream):
    """One call of a client. Answer each unary one once, with `reply` or `fail`, also one that is `gone`."""

    __slots__ = ("connection", "head")

    connection: ServerConnection

    def __init__(self, connection: ServerConnection, number: int, head: Head) -> None:
        # Stream's own, written out: this is made for every call.
        self.number = number
        self.message = b""
        self.ended = False
        self.deadline = math.inf
        self.extra = 0
        self.parts = None
        self.notify = None
        self.connection = connection
        self.head = head

    @property
    def peer(self) -> Peer:
        """Who calls."""
        return self.connection.peer

    @property
    def metadata(self) -> Metadata:
        """The metadata of the call, in order, then what this side adds."""
        kept = self.head.kept
        if kept.metadata is None:
            more = self.connection.turn.more(self)
            kept.metadata = (*metadata.decode_metadata(self.head.fields), *more)
        return kept.metadata

    @property
    def kept(self) -> object | None:
        """A place for what a handler finds out about the metadata: all calls of this connection whose header
        fields are alike, but for their time, share it. It starts empty.
        """
        return self.head.kept.value

    @kept.setter
    def kept(self, value: object | None) -> None:
        self.head.kept.value = value

    def gone(self) -> bool:
        """Whether nobody waits for the answer any more: given up, past its deadline, or answered."""
        return self.connection.streams.get(self.number) is not self

    def reply(self, message: bytes) -> None:
        """Answer a unary call, if somebody still waits."""
        self.connection.reply(self, message)

    def fail(self, code: int, text: str, trailing: Metadata = ()) -> None:
        """End the call with a status, after what was sent before."""
        self.connection.fail(self, code, text, trailing)
