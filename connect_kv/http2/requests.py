"""Requests of HTTP that are no calls of gRPC, on connections that carry both.

A request is a `Call` whose pieces of body come and leave as they are, without gRPC's prefix, and whose answer
begins with fields of its own. Windows, fairness and limits are those of all streams.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from connect_kv.http2 import frames
from connect_kv.http2.calls import Call, Head
from connect_kv.http2.frames import DATA, END_STREAM, FRAME_HEAD, LARGEST_FRAME
from connect_kv.http2.hpack import Field, literal
from connect_kv.http2.metadata import StatusError
from connect_kv.http2.server import ServerConnection, is_grpc, is_request
from connect_kv.http2.streams import Parts

_TOO_MANY_FIELDS: Final = literal(b":status", b"431")
_CONTINUE: Final = literal(b":status", b"100")


class BodyParts(Parts):
    """Pieces of a body, as the client cut them."""

    __slots__ = ("refused", "wanted")

    def __init__(self, window: int) -> None:
        super().__init__(window)
        self.wanted = False
        """Somebody waits for all of it, which may be more than the window: what came is no reason to wait."""
        self.refused = False
        """There was no room for it."""

    def feed(self, data: bytes, most: int) -> None:
        """Add what came; how much is too much the handler says."""
        if self.inbox is None:
            self.inbox = deque()
        self.inbox.append((0, data))

    def give_back(self) -> int:
        """Bytes that the client may send again."""
        return self.unread if self.wanted else self.unread - self.held

    def enqueue(self, message: bytes) -> None:
        """Add a piece to what waits to leave."""
        if self.waiting is None:
            self.waiting = deque()
        self.waiting.append(message)


class RequestConnection(ServerConnection):
    """One client, of gRPC, of HTTP, or of both."""

    def _interpret(self, fields: list[Field], size: int) -> Head:
        said = dict(fields)
        if is_grpc(said.get(b"content-type", b"")):
            return super()._interpret(fields, size)
        head = Head(None, fields)
        if not is_request(fields):
            head.refusal = b""
        elif size > self.limits.header_list:
            head.refusal = _TOO_MANY_FIELDS
        else:
            head.route = self.turn.requests
        return head

    def _begin(self, call: Call, head: Head, ended: bool) -> None:
        if head.route is not None and head.route is self.turn.requests:
            call.parts = BodyParts(self._stream_window)
        super()._begin(call, head, ended)

    def _refuse(self, stream: Call, why: StatusError) -> None:
        parts = stream.parts
        if not isinstance(parts, BodyParts):
            super()._refuse(stream, why)
            return
        self._forget_request(parts)
        parts.refused = True
        if stream.notify is not None:
            stream.notify()

    # For whoever answers requests.

    def pieces(self, call: Call) -> list[bytes]:
        """What has come of the body since. It is held, and counted, until `taken`."""
        inbox = None if call.parts is None else call.parts.inbox
        if inbox is None:
            return []
        found = [piece for _, piece in inbox]
        inbox.clear()
        return found

    def taken(self, call: Call, size: int) -> None:
        """So many bytes of the body are held no more: others may come."""
        assert call.parts is not None
        self.hold(call.parts, -size)
        self.consumed(call)

    def go_on(self, call: Call) -> None:
        """Tell a client that asks whether to send its body to do so."""
        self._emit(frames.headers(call.number, self._encoder.encode((), _CONTINUE), 0))

    def begin_answer(self, call: Call, block: bytes) -> None:
        """`block`: the fields of the answer, literal ones."""
        if not call.gone():
            self._parts(call).begun = True
            self._emit(frames.headers(call.number, self._encoder.encode((), block), 0))

    def send_body(self, call: Call, data: bytes) -> None:
        """A piece of the answer; it waits where the client's windows have no room. A client for which too
        much waits already loses the answer.
        """
        if call.gone() or not data:
            return
        parts, size = self._parts(call), len(data)
        if self._crowded():
            self.abandon(call, frames.ENHANCE_YOUR_CALM)
        elif (
            parts.waiting is None
            and not self._full()
            and size <= min(self._window, parts.window, LARGEST_FRAME)
        ):
            self._emit(FRAME_HEAD.pack(size << 8, 0, call.number))
            self.out.append(data)
            self._window -= size
            parts.window -= size
            self._unsent += size
            self.useful += 1
        else:
            parts.enqueue(data)
            self._wait(size)
            self._write(call, parts)

    def end_answer(self, call: Call) -> None:
        """No more pieces. Nobody is told of what becomes of it."""
        call.notify = None
        if call.gone():
            return
        parts = self._parts(call)
        self._forget_request(parts)
        parts.trailers = b""
        self._write(call, parts)

    def backlog(self, call: Call) -> bool:
        """Whether what was sent before still waits for the client to take it."""
        return call.parts is not None and bool(call.parts.waiting)

    def abandon(self, call: Call, code: int) -> None:
        """An answer without an end: the client must not take it for a whole one."""
        if not call.gone():
            self._emit(frames.reset(call.number, code))
            self.forget(call)

    def _write_end(self, stream: Call, parts: Parts) -> None:
        if not isinstance(parts, BodyParts):
            super()._write_end(stream, parts)
            return
        self._emit(frames.frame(DATA, END_STREAM, stream.number, b""))
        self._close_stream(stream)
