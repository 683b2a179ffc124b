"""The server's side of one HTTP/2 connection that carries gRPC: bytes in, calls and bytes out.

What all requests of a load have in common is done once: a block of header fields is found by its bytes
(`heads`), and an answer is two constant blocks around a message. Whole calls gather in `ServerTurn.ready`
over all connections; whoever owns them hands a method's calls over together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from struct import Struct
from typing import Final

from connect_kv.http2 import frames, metadata
from connect_kv.http2.calls import Call, Head, Peer, ServerTurn
from connect_kv.http2.connection import Connection
from connect_kv.http2.frames import END_HEADERS, END_STREAM, LARGEST_FRAME, PREFACE
from connect_kv.http2.hpack import Field, literal
from connect_kv.http2.limits import Allowance, Limits
from connect_kv.http2.metadata import (
    DEADLINE_EXCEEDED,
    INTERNAL,
    LAST_CODE,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    UNIMPLEMENTED,
    UNKNOWN,
    Metadata,
    StatusError,
)
from connect_kv.http2.streams import ACCEPTED_ENCODINGS, Parts, decompress

_RESPONSE: Final = ((b":status", b"200"), (b"content-type", b"application/grpc"))
_OK: Final = ((b"grpc-status", b"0"),)
_REPLY: Final = Struct(">IBI2sIBIBI")
_REPLY_END: Final = Struct(">IBIB")
_KNOWN_RESPONSE: Final = b"\x88\xbf"
_KNOWN_OK: Final = 0xBE
"""What `_RESPONSE` and `_OK` are once the client's table holds what is not in the static one."""
_UNSUPPORTED_MEDIA: Final = literal(b":status", b"415")
_ACCEPTED: Final = literal(b"grpc-accept-encoding", ACCEPTED_ENCODINGS)
_RESETS: Final = (100.0, 1.0)
"""Of calls that wait for their answer: a second, and for each message. At once: as many as may be open."""
_DRAINING: Final = b"draining"
_REQUIRED: Final = frozenset((b":method", b":scheme", b":path"))
_POSSIBLE: Final = _REQUIRED | {b":authority"}


class ServerConnection(Connection[Call, Head]):
    """One client. Its first frames are in `out` from the beginning: clients wait for them."""

    _PREFACE = PREFACE
    _WHOLE = END_STREAM
    turn: ServerTurn

    def __init__(self, turn: ServerTurn, limits: Limits, now: float, peer: Peer | None = None) -> None:
        super().__init__(turn, limits, now)
        self.peer = peer or Peer()
        """Set it before the first bytes come."""
        self.long_calls = 0
        """Open calls that are streams, or wait for others."""
        self._largest_reply = 0
        """Bytes of an answer that may take the short path."""
        self._resets = Allowance(limits.streams, *_RESETS, now)
        self._draining = False
        self._drain_at = math.inf
        self._final = -1
        """The last stream that was named as such: no more are begun."""
        announced = {
            frames.MAX_CONCURRENT_STREAMS: limits.streams,
            frames.INITIAL_WINDOW_SIZE: limits.stream_window,
            frames.MAX_HEADER_LIST_SIZE: limits.header_list,
        }
        self._emit(frames.settings(announced))
        if limits.connection_window > frames.DEFAULT_WINDOW:
            self._emit(frames.window_update(0, limits.connection_window - frames.DEFAULT_WINDOW))

    # Calls that come.

    def _interpret(self, fields: list[Field], size: int) -> Head:
        if size > self.limits.header_list:
            text = f"received metadata size exceeds hard limit ({size} vs. {self.limits.header_list})"
            return Head(None, [], refusal=StatusError(RESOURCE_EXHAUSTED, text))
        if not is_request(fields):
            return Head(None, [], refusal=b"")
        said = dict(fields)
        timeout = said.get(b"grpc-timeout")
        head = Head(None, [one for one in fields if one[0] != b"grpc-timeout"])
        head.encoding = said.get(b"grpc-encoding", b"")
        if self.peer.refusal is not None:
            head.refusal = self.peer.refusal
        elif not is_grpc(said.get(b"content-type", b"")):
            head.refusal = _UNSUPPORTED_MEDIA
        elif timeout is not None and (seconds := metadata.parse_timeout(timeout)) is None:
            head.refusal = StatusError(INTERNAL, f"malformed grpc-timeout: {timeout.decode('latin-1')!r}")
        elif said[b":method"] != b"POST":
            head.refusal = StatusError(INTERNAL, "a call of gRPC is a POST")
        else:
            head.timeout = seconds if timeout is not None else None
            self._find_route(head, said[b":path"])
        return head

    def _find_route(self, head: Head, path: bytes) -> None:
        head.route = self.turn.routes.get(path)
        if head.route is not None:
            head.plain = not head.route.is_long and head.timeout is None
            return
        service, slash, method = path[1:].decode("latin-1").rpartition("/")
        if not slash or path[:1] != b"/":
            text = f'malformed method name: "{path.decode("latin-1")}"'
        elif service.encode("latin-1") in self.turn.services:
            text = f"unknown method {method} for service {service}"
        else:
            text = f"unknown service {service}"
        head.refusal = StatusError(UNIMPLEMENTED, text)

    def _open(self, number: int, head: Head, ended: bool) -> None:
        if number <= self._last:
            self._open_again(number, ended)
            return
        self._last = number
        streams = self.streams
        if self._final >= 0 or len(streams) >= self.limits.streams:
            if self._final < 0:  # else the client knows, and repeats it elsewhere
                self._emit(frames.reset(number, frames.REFUSED_STREAM))
            return
        call = streams[number] = Call(self, number, head)
        if ended or not head.plain:
            self._begin(call, head, ended)

    def _open_again(self, number: int, ended: bool) -> None:
        """Trailers of a client, which gRPC's clients do not send."""
        call = self.streams.get(number)
        if call is None or call.ended:
            # Either it is over, and this may have been under way then, or the client breaks the protocol.
            if call is not None or not ended:
                raise frames.H2Error(frames.STREAM_CLOSED, "header fields on a stream that has ended")
            return
        if not ended:
            raise frames.H2Error(frames.PROTOCOL_ERROR, "trailers that do not end a stream")
        self._data(call, number, END_STREAM, b"")

    def _begin(self, call: Call, head: Head, ended: bool) -> None:
        """All but the usual call."""
        call.ended = ended
        refusal = head.refusal
        if isinstance(refusal, StatusError):
            self._refuse(call, refusal)
        elif refusal is not None:
            self._refuse_request(call, refusal)
        else:
            assert head.route is not None
            if head.timeout is not None:
                self._expect(call, self.now + head.timeout)
            if head.route.is_long:
                self.long_calls += 1
                self._parts(call)
            if head.route.begin is not None:
                head.route.begin(call)
            elif ended:
                self.fail(call, INTERNAL, "a unary call has one message")

    def _refuse_request(self, call: Call, block: bytes) -> None:
        """What is no call of gRPC: a request without the right form, or of other contents."""
        if block:
            self._emit(frames.headers(call.number, self._encoder.encode((), block), END_STREAM))
            self.useful += 1
        if not block or not call.ended:
            code = frames.NO_ERROR if block else frames.PROTOCOL_ERROR
            self._emit(frames.reset(call.number, code))
            self._spend()
        self.forget(call)

    def _hand_over(self, stream: Call, message: bytes) -> None:
        stream.message = message
        stream.ended = True
        route = stream.head.route
        assert route is not None
        if not route.calls:
            self.turn.ready.append(route)
        route.calls.append(stream)

    def _arrived(self, stream: Call, parts: Parts) -> None:
        route = stream.head.route
        assert route is not None
        if parts.trailers is not None:  # it has its answer, which waits for a window
            self._forget_request(parts)
        elif route.begin is not None:
            if stream.notify is not None:
                stream.notify()
        elif (parts.inbox and len(parts.inbox) > 1) or (stream.ended and (not parts.inbox or parts.received)):
            self.fail(stream, INTERNAL, "a unary call has one message")
        elif not stream.ended:
            self.consumed(stream)
        else:
            try:
                self._hand_over(stream, self._plain(stream, parts))
            except StatusError as error:
                self._refuse(stream, error)

    def _plain(self, call: Call, parts: Parts) -> bytes:
        compressed, message = parts.take()
        if compressed:
            message = decompress(message, call.head.encoding, self.limits.message)
            self.hold(parts, len(message))
            if self.turn.held > self.limits.held:
                raise StatusError(RESOURCE_EXHAUSTED, "too much is being received already")
        return message

    def take(self, call: Call) -> bytes | None:
        """The next message of a stream that has come whole; None if there is none. Raises StatusError."""
        parts = self._parts(call)
        if not parts.inbox:
            self.consumed(call)
            return None
        compressed, message = parts.take()
        self.hold(parts, -len(message) - 5)
        self.consumed(call)
        return decompress(message, call.head.encoding, self.limits.message) if compressed else message

    def _refuse(self, stream: Call, why: StatusError) -> None:
        if why.code == RESOURCE_EXHAUSTED:
            route = stream.head.route
            path = b"" if route is None else route.path
            self.turn.limited(self.peer.address, path, why.code, why.text)
        self.fail(stream, why.code, why.text)

    def _reset(self, stream: Call, code: int) -> None:
        self.turn.any_gone = True
        timeout = stream.head.timeout
        if timeout is not None and self.now >= stream.deadline - min(1.0, timeout / 4):
            return  # both sides act on it: hundreds of calls with the same one are no attack
        if stream.parts is not None and stream.parts.begun:
            return  # it has had an answer
        if not self._resets.take(self.now, self.useful):
            raise frames.H2Error(frames.ENHANCE_YOUR_CALM, "too many resets")

    def _overdue(self, stream: Call) -> None:
        self.turn.any_gone = True
        if stream.parts is not None:  # what waits for a window must not hold the end back
            self._drop(stream.parts)
            stream.parts.trailers = None
        self.fail(stream, DEADLINE_EXCEEDED, "context deadline exceeded")

    def forget(self, stream: Call) -> None:
        """That call is over; whoever works for it is told."""
        if not stream.gone() and stream.head.route is not None and stream.head.route.is_long:
            self.long_calls -= 1
        super().forget(stream)

    def lost(self, reason: str) -> None:
        """There is no connection any more."""
        self.turn.any_gone = True
        super().lost(reason)

    # Answers.

    def _settings_changed(self) -> None:
        # Whether the client's table holds the fields of every answer, so that they are one octet each.
        known = self._encoder.learned == len(_RESPONSE) + len(_OK) - 1
        self._largest_reply = min(self._stream_window, LARGEST_FRAME) if known else 0

    def reply(self, call: Call, message: bytes) -> None:
        """Answer a unary call, if somebody still waits for it."""
        number, size = call.number, len(message) + 5
        if size > self._window or size > self._largest_reply or call.parts is not None:
            if not call.gone():
                self.send(call, message)
                self.finish(call)
            return
        if self.streams.pop(number, None) is not call:
            return
        if not self.streams:
            self.life.unused = self.now
        if self._timed:
            self._timed.pop(number, None)
        self._window -= size
        self.useful += 1
        out = self.out
        if not out:
            self.turn.mark(self)
        out.append(
            _REPLY.pack(0x201, END_HEADERS, number, _KNOWN_RESPONSE, size << 8, 0, number, 0, size - 5)
        )
        out.append(message)
        out.append(_REPLY_END.pack(0x101, END_HEADERS | END_STREAM, number, _KNOWN_OK))

    def finish(self, call: Call) -> None:
        """The call has succeeded, after the messages that were sent."""
        parts = self._parts(call)
        if call.gone() or parts.trailers is not None:
            return
        if not parts.begun:
            self._begin_answer(call, parts)
        self._forget_request(parts)
        parts.trailers = b""
        self._write(call, parts)

    def fail(self, call: Call, code: int, text: str, trailing: Metadata = ()) -> None:
        """End a call with a status, after what was sent before."""
        parts = call.parts
        if call.gone() or (parts is not None and parts.trailers is not None):
            return
        try:
            block = metadata.status_block(code if 0 < code <= LAST_CODE else UNKNOWN, text, trailing)
        except ValueError as error:
            block = metadata.status_block(INTERNAL, str(error))
        if call.head.encoding and code == UNIMPLEMENTED:
            block += _ACCEPTED
        if parts is None:
            self._end_call(call, self._encoder.encode(_RESPONSE, block))
            return
        self._forget_request(parts)
        parts.trailers = block
        self._write(call, parts)

    def send(self, stream: Call, message: bytes) -> None:
        """One message of a stream; it waits where the client's windows have no room. A client for which too
        much waits already loses the call.
        """
        parts = self._parts(stream)
        if self._crowded():
            # What it did is done; UNAVAILABLE leaves that open.
            self.fail(stream, UNAVAILABLE, f"{self.waiting} bytes of answers wait for this client already")
            return
        if not parts.begun:
            self._begin_answer(stream, parts)
        super().send(stream, message)

    def _crowded(self) -> bool:
        """Whether too much waits for this client to take another message.

        Where all connections together exceed their room, a sixteenth of the usual is too much; the more they
        exceed it the less, and at twice the room all of it. Who takes what is sent is served even then.
        """
        limits = self.limits
        over = self.turn.waiting - limits.held
        if over <= 0:
            return self.waiting > limits.waiting
        return self.waiting > max(0.0, limits.waiting / 16 * (1 - over / limits.held))

    def _forget_request(self, parts: Parts) -> None:
        parts.inbox = None
        parts.received.clear()
        self.hold(parts, -parts.held)

    def _begin_answer(self, call: Call, parts: Parts) -> None:
        parts.begun = True
        self._emit(frames.headers(call.number, self._encoder.encode(_RESPONSE), 0))

    def notify(self, call: Call, callback: Callable[[], None] | None) -> None:
        """Have `callback` called whenever something comes for the call, may be sent, or the call is gone."""
        call.notify = callback

    def _write_end(self, stream: Call, parts: Parts) -> None:
        if parts.trailers:
            block = self._encoder.encode(() if parts.begun else _RESPONSE, parts.trailers)
        else:
            block = self._encoder.encode(_OK)
            self._settings_changed()
        self._end_call(stream, block)

    def _end_call(self, stream: Call, block: bytes) -> None:
        self._emit(frames.headers(stream.number, block, END_STREAM))
        self._close_stream(stream)

    def _close_stream(self, stream: Call) -> None:
        """This side has ended it."""
        if not stream.ended:
            # The client need not send the rest. grpc-js would keep its side open for ever.
            self._emit(frames.reset(stream.number, frames.NO_ERROR))
        self.useful += 1
        self.forget(stream)

    # Leaving.

    def drain(self) -> None:
        """Take no new calls, in two steps: a client that is told stops; then those that were under way have
        come.
        """
        if self.closing or self._draining:
            return
        self._draining = True
        if not self.life.greeted:
            self.end(frames.NO_ERROR, "the server stops")
            return
        self._emit(frames.goaway(frames.LAST_STREAM, frames.NO_ERROR, "the server stops"))
        self._emit(frames.frame(frames.PING, 0, 0, _DRAINING))
        self._drain_at = self.now + self.limits.drain

    def _ping_answered(self, payload: bytes) -> None:
        if payload == _DRAINING and self._draining:
            self._leave()

    def _leave(self) -> None:
        if self._final < 0:
            self._final, self._drain_at = self._last, math.inf
            self._emit(frames.goaway(self._last, frames.NO_ERROR, "the server stops"))

    @property
    def done(self) -> bool:
        """Whether it was drained and every call has its answer: it may be closed."""
        return self._final >= 0 and not self.streams

    def _last_taken(self) -> int:
        return self._last if self._final < 0 else self._final

    def next_time(self) -> float:
        """When `tick` has something to do, if nothing happens before."""
        return min(super().next_time(), self._drain_at)

    def tick(self, now: float) -> None:
        """Do what is due at `now`."""
        super().tick(now)
        if now >= self._drain_at and not self.closing:
            self._leave()

    def _idle(self) -> None:
        if self.streams:
            self.life.unused = self.now
        else:
            self.life.unused = math.inf
            self.drain()


def is_request(fields: list[Field]) -> bool:
    """Whether a block of fields is a request as RFC 9113, 8.2 and 8.3.1, wants it."""
    pseudo = {name for name, _ in fields if name[:1] == b":"}
    return metadata.well_formed(fields) and _REQUIRED <= pseudo <= _POSSIBLE


def is_grpc(content_type: bytes) -> bool:
    """Whether a request is a call of gRPC, by the type of what it carries."""
    return content_type == b"application/grpc" or content_type.startswith(
        (b"application/grpc+", b"application/grpc;")
    )
