"""What leaves one end of a connection: messages wait for windows and socket, and share them fairly."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from struct import Struct
from typing import Any, Final, Generic, TypeVar

from connect_kv.http2.frames import DEFAULT_WINDOW, FRAME_HEAD, LARGEST_FRAME
from connect_kv.http2.hpack import FieldEncoder
from connect_kv.http2.lifetime import Lifetime
from connect_kv.http2.streams import Parts

_MESSAGE: Final = Struct(">IBIBI")
"""The heads of a frame and of the message that is all of it."""
_MOST_UNSENT: Final = 256 << 10
"""Bytes of streams that leave with one write."""


class Stream:
    """One call, as far as both sides have it in common."""

    __slots__ = ("deadline", "ended", "extra", "message", "notify", "number", "parts")

    def __init__(self, number: int) -> None:
        self.number = number
        self.message = b""
        """The one message of a unary call that the peer sent."""
        self.ended = False
        """The peer has sent everything."""
        self.deadline = math.inf
        self.extra = 0
        """What the peer added to this stream's window while there was no need for `parts`."""
        self.parts: Parts | None = None
        self.notify: Callable[[], None] | None = None
        """Told when something has changed for it, or it is over."""


class Turn:
    """What all connections of one owner share between two turns of its loop."""

    __slots__ = ("dirty", "held", "waiting", "wake")

    def __init__(self) -> None:
        self.dirty: list[Sending[Any]] = []
        """Those that have something to write."""
        self.wake: Callable[[], None] | None = None
        """Called when one more has."""
        self.held = 0
        """Bytes received in calls of more than a frame, that nobody has taken."""
        self.waiting = 0
        """Bytes of messages that wait for peers to take them."""

    def mark(self, one: Sending[Any]) -> None:
        """It has something to write."""
        self.dirty.append(one)
        if self.wake is not None:
            self.wake()


S = TypeVar("S", bound=Stream)


class Sending(ABC, Generic[S]):
    """Frames gather in `out`, and this object in `Turn.dirty`, until its owner writes them with one write."""

    def __init__(self, turn: Turn, life: Lifetime) -> None:
        self.turn = turn
        self.life = life
        self.out: list[bytes | memoryview] = []
        self.owner: Any = None
        """For whoever writes `out`: what is in `Turn.dirty` leads to its socket."""
        self.paused = False
        """The socket takes nothing."""
        self.useful = 0
        """Messages, or parts of them, that came or left."""
        self.waiting = 0
        """Bytes of messages that wait for windows or socket."""
        self._window = DEFAULT_WINDOW
        """Bytes of data the peer takes on this connection,"""
        self._stream_window = DEFAULT_WINDOW
        """and on each new stream."""
        self._unsent = 0
        """Bytes of streams in `out`."""
        self._blocked: OrderedDict[int, S] = OrderedDict()
        """Streams that have a window of their own, and wait for the connection's or the socket."""
        self._encoder = FieldEncoder()

    @abstractmethod
    def _write_end(self, stream: S, parts: Parts) -> None:
        """All messages of the stream were sent: what ends it follows."""

    def _parts(self, stream: S) -> Parts:
        if stream.parts is None:
            stream.parts = Parts(self._stream_window + stream.extra)
        return stream.parts

    def _emit(self, data: bytes) -> None:
        if not self.out:
            self.turn.mark(self)
        self.out.append(data)

    def send(self, stream: S, message: bytes) -> None:
        """One message of an open stream; it waits where the peer's windows have no room."""
        parts, size = self._parts(stream), len(message) + 5
        if (
            parts.waiting is None
            and size <= min(self._window, parts.window, LARGEST_FRAME)
            and not self._full()
        ):
            self._emit(_MESSAGE.pack(size << 8, 0, stream.number, 0, size - 5))
            self.out.append(message)
            self._window -= size
            parts.window -= size
            self._unsent += size
            self.useful += 1
            return
        parts.enqueue(message)
        self._wait(size)
        self._write(stream, parts)

    def _wait(self, size: int) -> None:
        self.waiting += size
        self.turn.waiting += size

    def _write(self, stream: S, parts: Parts) -> None:
        """As much of what waits as the windows and the socket take."""
        number, waiting = stream.number, parts.waiting
        while waiting:
            if parts.window <= 0:
                return  # until the peer widens it
            if self._full():
                self._blocked[number] = stream
                return
            room = min(self._window, parts.window, LARGEST_FRAME)
            piece = waiting[0]
            if len(piece) <= room:
                waiting.popleft()
            else:
                whole = memoryview(piece)
                piece, waiting[0] = whole[:room], whole[room:]
            size = len(piece)
            self._emit(FRAME_HEAD.pack(size << 8, 0, number))
            self.out.append(piece)
            self._window -= size
            parts.window -= size
            self._unsent += size
            self._wait(-size)
            self.useful += 1
        parts.waiting = None
        if parts.trailers is not None:
            self._write_end(stream, parts)

    def _full(self) -> bool:
        """Whether no stream may send for now."""
        return self._window <= 0 or self.paused or self._unsent > _MOST_UNSENT

    def _go_on(self, stream: S, parts: Parts) -> None:
        """There may be room for what waits."""
        self._write(stream, parts)
        if stream.notify is not None:
            stream.notify()

    def written(self) -> None:
        """What was in `out` was given to the socket. A stream may go on now: otherwise one that always has
        something to say would keep everybody else waiting until its window is full.
        """
        if self._unsent:
            self._unsent = 0
            if self._blocked and not self.paused:
                self._unblock()

    def pause(self, now: float) -> None:
        """The socket takes no more: streams wait."""
        self.paused = True
        self.life.unwritable = now

    def resume(self) -> None:
        """The socket takes more again."""
        self.paused = False
        self.life.unwritable = math.inf
        self._unblock()

    def _unblock(self) -> None:
        """Streams that wait go on, in their order. Those that wait for their own window are not among them:
        there may be thousands, and a frame that widens another window must not cost a look at each.
        """
        while self._blocked and not self._full():
            _, stream = self._blocked.popitem(last=False)
            if stream.parts is not None:
                self._go_on(stream, stream.parts)

    def _drop(self, parts: Parts) -> None:
        """What waits to be sent is not wanted any more."""
        if parts.waiting is not None:
            self._wait(-sum(map(len, parts.waiting)))
            parts.waiting = None
