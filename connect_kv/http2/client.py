"""The client's side of one HTTP/2 connection that carries gRPC. No socket, no clock."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from connect_kv.http2 import frames, metadata
from connect_kv.http2.connection import Connection
from connect_kv.http2.frames import END_STREAM, LARGEST_FRAME, PREFACE
from connect_kv.http2.hpack import Field, literal
from connect_kv.http2.limits import Limits
from connect_kv.http2.metadata import (
    CANCELLED,
    DEADLINE_EXCEEDED,
    INTERNAL,
    LAST_CODE,
    OK,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    UNIMPLEMENTED,
    UNKNOWN,
    Metadata,
    StatusError,
)
from connect_kv.http2.sending import Stream, Turn
from connect_kv.http2.streams import Parts, decompress

_REGULAR: Final = ((b"te", b"trailers"), (b"content-type", b"application/grpc"))
_HTTP_STATUS: Final = {
    b"400": INTERNAL,
    b"401": 16,
    b"403": 7,
    b"404": UNIMPLEMENTED,
    b"429": UNAVAILABLE,
    b"502": UNAVAILABLE,
    b"503": UNAVAILABLE,
    b"504": UNAVAILABLE,
}
"""What an answer without ``grpc-status`` means: gRPC's own table."""
_RESET_STATUS: Final = {
    frames.REFUSED_STREAM: UNAVAILABLE,
    frames.CANCEL: CANCELLED,
    frames.ENHANCE_YOUR_CALM: RESOURCE_EXHAUSTED,
}


@dataclass(slots=True)
class Answer:
    """What a block of header fields of a server says."""

    fields: list[Field]
    http: bytes = b""
    encoding: bytes = b""
    outcome: StatusError | None = None
    """The status it names, unless that is OK."""
    final: bool = False
    """Whether it names one."""
    interim: bool = False
    """An answer of HTTP that others follow (1xx)."""

    def with_timeout(self, value: bytes) -> Answer | None:
        """Answers have none."""
        return None


class ClientCall(Stream):
    """One call. It is over once `done`; `outcome` then says how it failed, if it did."""

    __slots__ = ("answer", "connection", "done", "outcome", "path", "sent", "unary")

    def __init__(self, connection: ClientConnection, path: bytes, unary: bool) -> None:
        super().__init__(0)
        self.connection = connection
        self.path = path
        self.unary = unary
        """Whether its one answer is in `message`: others are read with `ClientConnection.take`."""
        self.answer: Answer | None = None
        """The server's first fields."""
        self.done = False
        self.outcome: StatusError | None = None
        self.sent: Callable[[], None] | None = None
        """What begins the call, while it waits for the server to allow another."""


class ClientConnection(Connection[ClientCall, Answer]):
    """One server. `notify` of a call is told when something has changed for it."""

    _WHOLE = 0

    def __init__(self, turn: Turn, limits: Limits, now: float, authority: str, scheme: str = "http") -> None:
        super().__init__(turn, limits, now)
        self._pseudo: list[Field] = [
            (b":method", b"POST"),
            (b":scheme", scheme.encode()),
            (b":authority", authority.encode()),
        ]
        self._allowed = 0
        """Calls at a time: none until the server's first settings say how many."""
        self._greeted = False
        self._queued: deque[ClientCall] = deque()
        self.leaving = ""
        """Why no new call can be made here: the server goes away, or is gone. Make another connection."""
        self._emit(PREFACE)
        announced = {
            frames.ENABLE_PUSH: 0,
            frames.INITIAL_WINDOW_SIZE: limits.stream_window,
            frames.MAX_HEADER_LIST_SIZE: limits.header_list,
        }
        self._emit(frames.settings(announced))
        if limits.connection_window > frames.DEFAULT_WINDOW:
            self._emit(frames.window_update(0, limits.connection_window - frames.DEFAULT_WINDOW))

    # Calls that begin.

    def unary(
        self,
        path: bytes,
        message: bytes,
        notify: Callable[[], None],
        deadline: float = math.inf,
        given: Metadata = (),
    ) -> ClientCall:
        """Make a call with one request and one answer. `deadline`: on the clock of `now`."""
        call = ClientCall(self, path, unary=True)
        self._begin(call, notify, deadline, given, message)
        return call

    def stream(
        self, path: bytes, notify: Callable[[], None], deadline: float = math.inf, given: Metadata = ()
    ) -> ClientCall:
        """Begin a call of any number of requests and answers: `send`, `half_close`, `take`."""
        call = ClientCall(self, path, unary=False)
        self._begin(call, notify, deadline, given, None)
        return call

    def _begin(
        self,
        call: ClientCall,
        notify: Callable[[], None],
        deadline: float,
        given: Metadata,
        message: bytes | None,
    ) -> None:
        call.deadline = deadline
        literals = b"".join(literal(*field) for field in metadata.encode_metadata(given))
        parts = Parts(0)  # its window is known when the call begins
        call.notify = notify
        call.parts = parts
        if self.leaving or self.closing:
            why = self.leaving or "the connection was lost"
            self._finish(call, StatusError(UNAVAILABLE, why, unprocessed=True))
            return
        call.sent = lambda: self._start(call, literals, message)
        if self._queued or len(self.streams) >= self._allowed:
            self._queued.append(call)
            if deadline < self.soonest:
                self.soonest = deadline
        else:
            call.sent()

    def _start(self, call: ClientCall, literals: bytes, message: bytes | None) -> None:
        """The call's first frames leave."""
        call.sent = None
        parts = call.parts
        assert parts is not None
        if self._last >= frames.LAST_STREAM - 2:
            self.leaving = "all stream ids of the connection are used"
            self._finish(call, StatusError(UNAVAILABLE, self.leaving, unprocessed=True))
            return
        self._last = call.number = self._last + 2 if self._last else 1
        self.streams[call.number] = call
        parts.window = self._stream_window
        if call.deadline != math.inf:
            literals += literal(b"grpc-timeout", metadata.format_timeout(max(0.0, call.deadline - self.now)))
            self._expect(call, call.deadline)
        block = self._encoder.encode((*self._pseudo, (b":path", call.path), *_REGULAR), literals)
        self._emit(frames.headers(call.number, block, 0))
        if message is None:
            self._write(call, parts)
            return
        size = len(message) + 5
        if size <= LARGEST_FRAME and size <= self._window and size <= self._stream_window and not self.paused:
            self._window -= size
            self.out.append(frames.message_frame(call.number, message, END_STREAM))
            parts.trailers = b""
            parts.begun = True
        else:
            parts.trailers = b""
            self.send(call, message)

    def half_close(self, call: ClientCall) -> None:
        """No request follows."""
        parts = call.parts
        if not call.done and parts is not None and parts.trailers is None:
            parts.trailers = b""
            if call.sent is None:
                self._write(call, parts)

    def send(self, stream: ClientCall, message: bytes) -> None:
        """One request of a stream; it waits for room in the server's windows, or for the call to begin."""
        parts = stream.parts
        assert parts is not None
        if stream.sent is not None:
            parts.enqueue(message)
            self._wait(len(message) + 5)
        elif not stream.done:
            super().send(stream, message)

    def cancel(self, call: ClientCall, outcome: StatusError | None = None) -> None:
        """Give the call up. The server may have carried it out, or do so yet."""
        if call.done:
            return
        if call.sent is None:
            self._emit(frames.reset(call.number, frames.CANCEL))
            self.forget(call)
        else:
            self._queued.remove(call)
        self._finish(call, outcome or StatusError(CANCELLED, "the call was cancelled"))

    def _write_end(self, stream: ClientCall, parts: Parts) -> None:
        if not parts.begun:
            parts.begun = True  # here: this side has ended
            self._emit(frames.frame(frames.DATA, END_STREAM, stream.number, b""))

    # Answers that come.

    def _interpret(self, fields: list[Field], size: int) -> Answer:
        answer = Answer(fields)
        if size > self.limits.header_list:
            answer.final = True
            text = f"received metadata size exceeds hard limit ({size} vs. {self.limits.header_list})"
            answer.outcome = StatusError(RESOURCE_EXHAUSTED, text)
            return answer
        said = dict(fields)
        answer.http = said.get(b":status", b"")
        answer.interim = answer.http[:1] == b"1"
        answer.encoding = said.get(b"grpc-encoding", b"")
        status = said.get(b"grpc-status")
        if status is not None:
            answer.final = True
            code = int(status) if status.isdigit() and int(status) <= LAST_CODE else UNKNOWN
            if code != OK:
                text = metadata.percent_decode(said.get(b"grpc-message", b""))
                answer.outcome = StatusError(code, text, metadata.decode_metadata(fields))
        elif answer.http not in (b"", b"200") and not answer.interim:
            answer.outcome = StatusError(
                _HTTP_STATUS.get(answer.http, UNKNOWN),
                f"the server answers HTTP {answer.http.decode('latin-1')}",
            )
        return answer

    def _open(self, number: int, head: Answer, ended: bool) -> None:
        self._must_be_begun(number)
        call = self.streams.get(number)
        if call is None or head.interim:
            return
        if call.ended or (call.answer is not None and not ended):
            raise frames.H2Error(frames.PROTOCOL_ERROR, "header fields amid an answer")
        if call.answer is None:
            call.answer = head
            if not ended:
                if head.outcome is not None and not head.final:
                    self._give_up(call, head.outcome, frames.CANCEL)
                return
        call.ended = True
        if head.outcome is not None:
            self._close(call, head.outcome)
        elif not head.final:
            self._close(call, StatusError(INTERNAL, "the answer ends without a status"))
        else:
            self._succeed(call)

    def _succeed(self, call: ClientCall) -> None:
        """The server says OK; a unary call must have its message."""
        parts = call.parts
        assert parts is not None
        why = None
        if parts.received:
            why = StatusError(INTERNAL, "the last message is cut off")
        elif call.unary:
            try:
                count = len(parts.inbox or ())
                if count != 1:
                    raise StatusError(INTERNAL, f"the answer of a unary call has {count} messages")
                call.message = self._plain(call, parts)
            except StatusError as error:
                why = error
        self._close(call, why)

    def _plain(self, call: ClientCall, parts: Parts) -> bytes:
        compressed, message = parts.take()
        self.hold(parts, -len(message) - 5)
        if compressed:
            encoding = call.answer.encoding if call.answer is not None else b""
            message = decompress(message, encoding, self.limits.message)
        return message

    def _hand_over(self, stream: ClientCall, message: bytes) -> None:
        raise AssertionError("every call of a client has parts")

    def _arrived(self, stream: ClientCall, parts: Parts) -> None:
        if stream.answer is None:
            raise frames.H2Error(frames.PROTOCOL_ERROR, "data before header fields")
        if stream.ended:
            self._close(stream, StatusError(INTERNAL, "the answer ends without trailers"))
        elif stream.unary:
            self.consumed(stream)
        elif stream.notify is not None:
            stream.notify()

    def take(self, call: ClientCall) -> bytes | None:
        """The next answer of a stream that has come whole; None if there is none. Raises StatusError."""
        parts = call.parts
        assert parts is not None
        if not parts.inbox:
            self.consumed(call)
            return None
        message = self._plain(call, parts)
        self.consumed(call)
        return message

    # Ends.

    def _close(self, call: ClientCall, outcome: StatusError | None) -> None:
        """The server has ended the call; what this side did not send yet is not wanted."""
        parts = call.parts
        assert parts is not None
        if not parts.begun:
            self._emit(frames.reset(call.number, frames.NO_ERROR))
        self.forget(call)
        self._finish(call, outcome)

    def _give_up(self, call: ClientCall, why: StatusError, code: int) -> None:
        self._emit(frames.reset(call.number, code))
        self.forget(call)
        self._finish(call, why)

    def _finish(self, call: ClientCall, outcome: StatusError | None) -> None:
        call.done, call.outcome = True, outcome
        if call.notify is not None:
            call.notify()
        while self._queued and len(self.streams) < self._allowed and not self.leaving:
            queued = self._queued.popleft()
            if queued.sent is not None:
                queued.sent()

    def forget(self, stream: ClientCall) -> None:
        """It is not open any more. Messages that came stay to be read."""
        notify, stream.notify = stream.notify, None  # told by `_finish`, which knows how it ended
        super().forget(stream)
        stream.notify = notify

    def _refuse(self, stream: ClientCall, why: StatusError) -> None:
        self._give_up(stream, why, frames.CANCEL)

    def _reset(self, stream: ClientCall, code: int) -> None:
        refused = code == frames.REFUSED_STREAM
        text = f"the server has reset the call (HTTP/2 error {code})"
        self._finish(stream, StatusError(_RESET_STATUS.get(code, INTERNAL), text, unprocessed=refused))

    def _overdue(self, stream: ClientCall) -> None:
        self.cancel(stream, StatusError(DEADLINE_EXCEEDED, "Deadline Exceeded"))

    def tick(self, now: float) -> None:
        """Do what is due at `now`."""
        self.now = now
        if now >= self.soonest:
            for call in [one for one in self._queued if one.deadline <= now]:
                self._overdue(call)
        super().tick(now)
        self.soonest = min(self.soonest, min((one.deadline for one in self._queued), default=math.inf))

    def _streams_allowed(self, count: int) -> None:
        self._allowed, self._greeted = count, True

    def _settings_changed(self) -> None:
        if not self._greeted:
            self._greeted = True
            self._allowed = self._allowed or frames.LAST_STREAM
        while self._queued and len(self.streams) < self._allowed:
            sent = self._queued.popleft().sent
            if sent is not None:
                sent()

    def _told_to_leave(self, last: int, code: int, reason: str) -> None:
        self.leaving = self.leaving or f"the server goes away: {reason or 'GOAWAY'}"
        why = StatusError(UNAVAILABLE, self.leaving, unprocessed=True)
        for call in [one for one in self.streams.values() if one.number > last]:
            self.forget(call)
            self._finish(call, why)
        self._fail_queued(why)

    def _fail_queued(self, why: StatusError) -> None:
        while self._queued:
            self._finish(self._queued.popleft(), why)

    @property
    def done(self) -> bool:
        """Whether the server has gone away and no call is open: it may be closed."""
        return bool(self.leaving) and not self.streams

    def _last_taken(self) -> int:
        return 0

    def lost(self, reason: str) -> None:
        """There is no connection any more: what its calls did is not known."""
        self.leaving = self.leaving or reason
        calls = list(self.streams.values())
        super().lost(reason)
        for call in calls:
            self._finish(call, StatusError(UNAVAILABLE, reason))
        self._fail_queued(StatusError(UNAVAILABLE, reason, unprocessed=True))
