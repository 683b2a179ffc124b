"""One end of an HTTP/2 connection that carries gRPC: what clients and servers have in common.

No socket, no loop, no clock: `now` is passed in.

`Connection.receive` takes what the socket gave; frames to send gather in `out`, and the connection in
`Turn.dirty`, until its owner writes them with one write. `receive` never raises for what a peer sends: that
ends the stream or the connection, with a reason.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Final, Generic, TypeVar

from connect_kv.http2 import frames
from connect_kv.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_HEAD,
    HEADERS,
    LARGEST_FRAME,
    LARGEST_WINDOW,
    PADDED,
    PREFIX,
    SETTING,
    U32,
    WINDOW_UPDATE,
    H2Error,
)
from connect_kv.http2.heads import Heads, Timed
from connect_kv.http2.hpack import TABLE_SIZE, Field, FieldDecoder, FieldError, TooLong
from connect_kv.http2.lifetime import Due, Lifetime
from connect_kv.http2.limits import Allowance, Limits
from connect_kv.http2.metadata import RESOURCE_EXHAUSTED, StatusError
from connect_kv.http2.sending import S, Sending, Turn
from connect_kv.http2.streams import Parts

_CONTROL: Final = (2000, 200.0, 8.0)
"""Frames that carry nothing: at once, a second, and for each message. Go sends one PING and one SETTINGS or
two for small and large answers alike."""
_STREAMS_A_TOKEN: Final = 64
"""Open calls whose windows one such frame may change for a token."""
_STRAYS: Final = 1000
_KEEPALIVE: Final = b"\0\0alive\0"


H = TypeVar("H", bound=Timed)


class Connection(Sending[S], Generic[S, H]):
    """Use it as a ServerConnection or a ClientConnection."""

    _PREFACE = b""
    """What the peer sends before its first frame."""
    _WHOLE = 0
    """The flags of a DATA frame that carries a whole unary message."""

    def __init__(self, turn: Turn, limits: Limits, now: float) -> None:
        super().__init__(turn, Lifetime(limits, now))
        self.limits = limits
        self.now = now
        """The time of what is under way."""
        self.streams: dict[int, S] = {}
        """Open calls."""
        self.closing = False
        """Nothing more is received: write what waits, then close."""
        self._timed: dict[int, S] = {}
        """Open calls with a deadline."""
        self.soonest = math.inf
        """No deadline is before that."""
        self._heads: Heads[H] = Heads(FieldDecoder(limits.header_list), self._interpret)
        self._last = 0
        """The highest stream that a call was begun on."""
        self._preface = self._PREFACE
        self._rest = b""
        self._unread = 0
        self._strays = 0
        """Resets of calls that were over."""
        self._block: list[bytes] = []
        self._block_of = 0
        self._block_flags = 0
        self._control = Allowance(*_CONTROL, now)

    # What the two sides do differently.

    @abstractmethod
    def _interpret(self, fields: list[Field], size: int) -> H:
        """What a list of fields means."""

    @abstractmethod
    def _open(self, number: int, head: H, ended: bool) -> None:
        """Fields have come."""

    @abstractmethod
    def _hand_over(self, stream: S, message: bytes) -> None:
        """The one message of a unary call has come, and was all of it (`_WHOLE`)."""

    @abstractmethod
    def _arrived(self, stream: S, parts: Parts) -> None:
        """Part of a message has come, or the end of the stream."""

    @abstractmethod
    def _refuse(self, stream: S, why: StatusError) -> None:
        """What came on a stream cannot be taken."""

    @abstractmethod
    def _reset(self, stream: S, code: int) -> None:
        """The peer has given a stream up; it is forgotten already."""

    @abstractmethod
    def _overdue(self, stream: S) -> None:
        """The deadline of a call has passed: end its stream."""

    def _told_to_leave(self, last: int, code: int, reason: str) -> None:
        """GOAWAY has come."""

    def _settings_changed(self) -> None:
        """SETTINGS have come."""

    def _ping_answered(self, payload: bytes) -> None:
        """An answer to a PING has come."""

    # Bytes that came.

    def receive(self, data: bytes, now: float) -> None:
        """Take what the socket gave at `now`."""
        self.now = self.life.heard = now
        if self.closing:
            return
        if self.streams:
            self.life.unused = now
        try:
            self._receive(data)
        except H2Error as error:
            self.end(error.code, str(error))
        except FieldError as error:
            self.end(frames.COMPRESSION_ERROR, str(error))
        except TooLong:
            self.end(frames.ENHANCE_YOUR_CALM, "too many header fields")

    def _receive(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        if not self.life.greeted:
            at = self._greet(data)
            if at < 0:
                self._rest = data
                return
        streams, heads, whole = self.streams, self._heads, self._WHOLE
        unpack, prefix = FRAME_HEAD.unpack_from, PREFIX.unpack_from
        begun, received, most = at, 0, min(LARGEST_FRAME, self.limits.message + 5)
        while end - at >= 9:
            word, flags, number = unpack(data, at)
            size, kind = word >> 8, word & 0xFF
            start = at + 9
            if size > LARGEST_FRAME:
                raise H2Error(frames.FRAME_SIZE_ERROR, "a frame is too large")
            if start + size > end:
                break
            at = start + size
            if number > LARGEST_WINDOW:
                number &= LARGEST_WINDOW  # the bit above it means nothing
            if self._block_of:
                self._continuation(kind, flags, number, data[start:at])
            elif kind == DATA:
                received += size
                stream = streams.get(number)
                if (
                    stream is not None
                    and flags == whole
                    and 4 < size <= most
                    and stream.parts is None
                    and not stream.ended
                    and prefix(data, start) == (0, size - 5)
                ):
                    self._hand_over(stream, data[start + 5 : at])
                else:
                    self._data(stream, number, flags, data[start:at])
            elif kind == HEADERS and flags & ~END_STREAM == END_HEADERS and number & 1:
                block = data[start:at]
                self._open(
                    number, heads.same.get(block) or heads.find(block), flags & END_STREAM == END_STREAM
                )
            elif kind == WINDOW_UPDATE and size == 4:
                self._window_update(number, U32.unpack_from(data, start)[0] & LARGEST_WINDOW)
            else:
                self._other(kind, flags, number, data[start:at])
        if at == end:
            self._rest, self.life.partial = b"", math.inf
        elif at > begun or not self._rest:
            self._rest, self.life.partial = data[at:], self.now
        else:
            self._rest = data[at:]
        if received:
            self._give_back(received)

    def _greet(self, data: bytes) -> int:
        """Where the frames begin, of which the first must be SETTINGS; -1 if that cannot be said yet."""
        preface = self._preface
        if not (data.startswith(preface) or preface.startswith(data)):
            raise H2Error(frames.PROTOCOL_ERROR, "this port speaks HTTP/2")
        at = len(preface)
        if len(data) < at + 9:
            return -1
        if data[at + 3] != frames.SETTINGS or data[at + 4] & ACK:
            raise H2Error(frames.PROTOCOL_ERROR, "a connection begins with SETTINGS")
        self._preface = b""
        return at

    def _give_back(self, received: int) -> None:
        """The connection's window is given back at once: what is held is bounded by streams and by
        `Limits.held`. Otherwise parts of many large messages would wait for each other for ever.
        """
        self._unread += received
        if self._unread > self.limits.connection_window:
            raise H2Error(frames.FLOW_CONTROL_ERROR, "more data than the connection's window allows")
        if self._unread > self.limits.connection_window // 4:
            self._emit(frames.window_update(0, self._unread))
            self._unread = 0

    def _data(self, stream: S | None, number: int, flags: int, data: bytes) -> None:
        size = len(data)
        if not size and not flags & END_STREAM:
            self._spend()
        if stream is None:
            self._must_be_begun(number)
            return  # it was reset, or answered, meanwhile
        if stream.ended:
            raise H2Error(frames.STREAM_CLOSED, "data after the end of a stream")
        if flags & PADDED:
            if not data or data[0] >= size:
                raise H2Error(frames.PROTOCOL_ERROR, "more padding than frame")
            data = data[1 : size - data[0]]
        parts = self._parts(stream)
        parts.unread += size
        if parts.unread > self.limits.stream_window:
            raise H2Error(frames.FLOW_CONTROL_ERROR, "more data than the stream's window allows")
        stream.ended = bool(flags & END_STREAM)
        if data:
            self.useful += 1
            self.hold(parts, len(data))
            try:
                parts.feed(data, self.limits.message)
            except StatusError as error:
                self._refuse(stream, error)
                return
            if self.turn.held > self.limits.held:
                self._refuse(stream, StatusError(RESOURCE_EXHAUSTED, "too much is being received already"))
                return
        self._arrived(stream, parts)

    def hold(self, parts: Parts, size: int) -> None:
        """Count bytes that a stream costs; negative ones are free again, unless the whole stream was."""
        size = max(size, -parts.held)
        parts.held += size
        self.turn.held += size

    def consumed(self, stream: S) -> None:
        """What a stream sent was taken, or more of it is needed: more may come."""
        parts = stream.parts
        if parts is None or stream.ended or self.streams.get(stream.number) is not stream:
            return
        more = parts.give_back()
        if more >= self.limits.stream_window // 4:
            self._emit(frames.window_update(stream.number, more))
            parts.unread -= more

    def _other(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        match kind:
            case frames.HEADERS:
                self._headers(flags, number, payload)
            case frames.SETTINGS:
                self._settings(flags, number, payload)
            case frames.RST_STREAM:
                _must(size == 4, frames.FRAME_SIZE_ERROR, "a RST_STREAM has four octets")
                self._must_be_begun(number)
                stream = self.streams.get(number)
                if stream is not None:
                    self.forget(stream)
                    self._reset(stream, U32.unpack(payload)[0])
                else:
                    # One for each call is honest: many have the same deadline, on which both sides act.
                    self._strays += 1
                    too_many = self._strays > self.useful + _STRAYS
                    _must(not too_many, frames.ENHANCE_YOUR_CALM, "too many resets of nothing")
            case frames.PING:
                _must(size == 8, frames.FRAME_SIZE_ERROR, "a PING has eight octets")
                _must(not number, frames.PROTOCOL_ERROR, "a PING is on stream 0")
                if flags & ACK:
                    self._ping_answered(payload)
                else:
                    self._emit(frames.frame(frames.PING, ACK, 0, payload))
                self._spend()
            case frames.GOAWAY:
                _must(size >= 8, frames.FRAME_SIZE_ERROR, "a GOAWAY has at least eight octets")
                _must(not number, frames.PROTOCOL_ERROR, "a GOAWAY is on stream 0")
                self._spend()
                last, code = U32.unpack_from(payload)[0], U32.unpack_from(payload, 4)[0]
                self._told_to_leave(last & LARGEST_WINDOW, code, payload[8:1032].decode("utf-8", "replace"))
            case frames.PRIORITY:
                _must(size == 5, frames.FRAME_SIZE_ERROR, "a PRIORITY has five octets")
                _must(number != 0, frames.PROTOCOL_ERROR, "a PRIORITY is on a stream")
                self._spend()
            case frames.WINDOW_UPDATE:
                raise H2Error(frames.FRAME_SIZE_ERROR, "a WINDOW_UPDATE has four octets")
            case frames.PUSH_PROMISE | frames.CONTINUATION:
                raise H2Error(frames.PROTOCOL_ERROR, "PUSH_PROMISE, or a CONTINUATION of nothing")
            case _:
                self._spend()  # of an extension: it means nothing here

    def _headers(self, flags: int, number: int, payload: bytes) -> None:
        """With padding, a priority, or only the beginning of a block."""
        at, size = 0, len(payload)
        if flags & PADDED:
            at, size = 1, size - (payload[0] if payload else 0)
        if flags & frames.WITH_PRIORITY:
            at += 5
        _must(at <= len(payload), frames.FRAME_SIZE_ERROR, "a HEADERS frame is too short")
        _must(at <= size, frames.PROTOCOL_ERROR, "more padding than frame")
        _must(number & 1 == 1, frames.PROTOCOL_ERROR, "not a stream of the client's")
        self._block, self._block_of, self._block_flags = [payload[at:size]], number, flags
        if flags & END_HEADERS:
            self._end_of_block()

    def _continuation(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        _must(
            kind == CONTINUATION and number == self._block_of,
            frames.PROTOCOL_ERROR,
            "a block of header fields was interrupted",
        )
        self._block.append(payload)
        _must(
            len(self._block) <= self.limits.continuations
            and sum(map(len, self._block)) <= self.limits.header_block,
            frames.ENHANCE_YOUR_CALM,
            "too long a block of header fields",
        )
        if flags & END_HEADERS:
            self._end_of_block()

    def _end_of_block(self) -> None:
        number, block = self._block_of, b"".join(self._block)
        self._block, self._block_of = [], 0
        head = self._heads.same.get(block) or self._heads.find(block)
        self._open(number, head, bool(self._block_flags & END_STREAM))

    def _settings(self, flags: int, number: int, payload: bytes) -> None:
        _must(not number, frames.PROTOCOL_ERROR, "SETTINGS are on stream 0")
        _must(
            len(payload) % SETTING.size == 0 and not (flags & ACK and payload),
            frames.FRAME_SIZE_ERROR,
            "SETTINGS of a wrong size",
        )
        if flags & ACK:
            self._spend()
            return
        if self.life.greeted:
            self._spend()
        self.life.greeted = True
        for name, value in SETTING.iter_unpack(payload):
            self._setting(name, value)
        self._emit(frames.frame(frames.SETTINGS, ACK, 0, b""))
        self._settings_changed()

    def _setting(self, name: int, value: int) -> None:
        match name:
            case frames.HEADER_TABLE_SIZE:
                if value < TABLE_SIZE:
                    self._encoder.forget()
            case frames.ENABLE_PUSH:
                _must(value <= 1, frames.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
            case frames.INITIAL_WINDOW_SIZE:
                _must(value <= LARGEST_WINDOW, frames.FLOW_CONTROL_ERROR, "too large a window")
                self._widen(value - self._stream_window)
                self._stream_window = value
            case frames.MAX_FRAME_SIZE:
                allowed = LARGEST_FRAME <= value <= frames.LARGEST_FRAME_ALLOWED
                _must(allowed, frames.PROTOCOL_ERROR, "a wrong size of frames")
            case frames.MAX_CONCURRENT_STREAMS:
                self._streams_allowed(value)

    def _widen(self, more: int) -> None:
        """Add to the windows of all open streams; it may be less than nothing."""
        self._spend(1 + len(self.streams) / _STREAMS_A_TOKEN)
        for stream in list(self.streams.values()):
            parts = stream.parts
            if parts is not None:
                parts.window += more
                _must(parts.window <= LARGEST_WINDOW, frames.FLOW_CONTROL_ERROR, "too large a window")
                if parts.waiting:
                    self._go_on(stream, parts)

    def _streams_allowed(self, count: int) -> None:
        """Of calls that this side begins: none, for a server, and no error if a client says so."""

    def _window_update(self, number: int, more: int) -> None:
        if not number:
            self._window += more
            _must(more > 0, frames.PROTOCOL_ERROR, "a WINDOW_UPDATE of nothing")
            _must(self._window <= LARGEST_WINDOW, frames.FLOW_CONTROL_ERROR, "too large a window")
            if self._blocked:
                self._unblock()
            return
        stream = self.streams.get(number)
        if stream is None:
            self._must_be_begun(number)
            return
        if stream.parts is None:  # half of all frames of a C core client: no reason to leave the short path
            stream.extra += more
            window = self._stream_window + stream.extra
        else:
            stream.parts.window += more
            window = stream.parts.window
        if not more or window > LARGEST_WINDOW:
            code = frames.FLOW_CONTROL_ERROR if more else frames.PROTOCOL_ERROR
            self._emit(frames.reset(number, code))
            self.forget(stream)
            self._reset(stream, code)
        elif stream.parts is not None and stream.parts.waiting:
            self._go_on(stream, stream.parts)

    def _must_be_begun(self, number: int) -> None:
        if number > self._last or not number & 1:
            raise H2Error(frames.PROTOCOL_ERROR, "a frame on a stream that was never opened")

    def _spend(self, tokens: float = 1) -> None:
        if not self._control.take(self.now, self.useful, tokens):
            raise H2Error(frames.ENHANCE_YOUR_CALM, "too many frames that carry nothing")

    # Beginnings and ends.

    def _expect(self, stream: S, deadline: float) -> None:
        """The call is over at `deadline`."""
        stream.deadline = deadline
        self._timed[stream.number] = stream
        if deadline < self.soonest:
            self.soonest = deadline

    def forget(self, stream: S) -> None:
        """That call is over; whoever works for it is told."""
        number = stream.number
        if self.streams.get(number) is not stream:
            return
        del self.streams[number]
        self._blocked.pop(number, None)
        self._timed.pop(number, None)
        if not self.streams:
            self.life.unused = self.now
        parts = stream.parts
        if parts is not None:
            self.hold(parts, -parts.held)
            self._drop(parts)
        if stream.notify is not None:
            stream.notify()

    def next_time(self) -> float:
        """When `tick` has something to do, if nothing happens before."""
        return min(self.soonest, self.life.next_time())

    def tick(self, now: float) -> None:
        """Do what is due at `now`."""
        self.now = now
        if now >= self.soonest:
            for stream in [one for one in self._timed.values() if one.deadline <= now]:
                self._overdue(stream)
            self.soonest = min((one.deadline for one in self._timed.values()), default=math.inf)
        if self.closing:
            return
        match self.life.due(now):
            case Due.NOTHING:
                pass
            case Due.PING:
                self._emit(frames.frame(frames.PING, 0, 0, _KEEPALIVE))
            case Due.IDLE:
                self._idle()
            case overdue:
                self.end(frames.NO_ERROR, overdue.value)

    def _idle(self) -> None:
        """There was no call for long."""
        if self.streams:
            self.life.unused = self.now
        else:
            self.end(frames.NO_ERROR, Due.IDLE.value)

    def end(self, code: int, reason: str) -> None:
        """Say why, and close: all calls are over."""
        if not self.closing:
            self._emit(frames.goaway(self._last_taken(), code, reason))
            self.closing = True
            self.lost(reason)

    def _last_taken(self) -> int:
        """The highest stream of the peer's that was looked at."""
        return self._last

    def lost(self, reason: str) -> None:
        """There is no connection any more: all calls are over."""
        self.closing = True
        for stream in list(self.streams.values()):
            self.forget(stream)


def _must(held: bool, code: int, reason: str) -> None:
    if not held:
        raise H2Error(code, reason)
