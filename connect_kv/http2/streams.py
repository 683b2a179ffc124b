"""Messages of one stream: cut out of DATA frames as they come, waiting for windows as they go."""

from __future__ import annotations

import zlib
from collections import deque
from typing import Final

from connect_kv.http2.frames import LARGEST_FRAME, PREFIX
from connect_kv.http2.metadata import INTERNAL, RESOURCE_EXHAUSTED, UNIMPLEMENTED, StatusError

_WINDOW_BITS: Final = {b"gzip": 31, b"deflate": 15}
ACCEPTED_ENCODINGS: Final = b"identity,deflate,gzip"


class Parts:
    """What only longer calls need: messages in several frames, more than one, answers beyond a window."""

    __slots__ = (
        "begun",
        "held",
        "inbox",
        "needed",
        "received",
        "trailers",
        "unread",
        "waiting",
        "window",
    )

    def __init__(self, window: int) -> None:
        self.window = window
        """Bytes the peer takes on this stream."""
        self.received = bytearray()
        """The beginning of a message."""
        self.needed = 5
        """Bytes of `received` with which something can be done."""
        self.inbox: deque[tuple[int, bytes]] | None = None
        """Whole messages that nobody has taken yet, with their flag of compression. Queues are there while
        something is in them: most streams say nothing, most of the time."""
        self.held = 0
        """Bytes that came and were not taken by a handler: what this stream costs in memory."""
        self.unread = 0
        """Bytes that came and were not given back to the peer's window."""
        self.waiting: deque[bytes | memoryview] | None = None
        """Pieces of messages that windows or socket have no room for."""
        self.trailers: bytes | None = None
        """What follows them and ends the stream: a block of literal fields, or nothing but the usual end."""
        self.begun = False
        """Whether this side's first block of fields has left."""

    def feed(self, data: bytes, most: int) -> None:
        """Add what came. `most`: bytes of a message. Raises StatusError for a message that is not taken."""
        received = self.received
        received += data
        size = len(received)
        if size < self.needed:
            return
        at = 0
        while True:
            if size - at < 5:
                self.needed = 5
                break
            compressed, length = PREFIX.unpack_from(received, at)
            if compressed > 1 or length > most:
                raise _unusable(compressed, length, most)
            if size - at - 5 < length:
                self.needed = 5 + length
                break
            message = bytes(memoryview(received)[at + 5 : at + 5 + length])
            if self.inbox is None:
                self.inbox = deque()
            self.inbox.append((compressed, message))
            at += 5 + length
        del received[:at]

    def take(self) -> tuple[int, bytes]:
        """The first of the inbox, in which there is one."""
        assert self.inbox is not None
        first = self.inbox.popleft()
        if not self.inbox:
            self.inbox = None
        return first

    def give_back(self) -> int:
        """Bytes that the peer may send again, once they are worth a frame: what handlers took, and the
        beginning of a message that somebody waits for, which may be larger than the window.
        """
        kept = self.held if self.inbox else self.held - len(self.received)
        return self.unread - kept

    def enqueue(self, message: bytes) -> None:
        """Add a message to what waits to leave, without copying a large one."""
        prefix = PREFIX.pack(0, len(message))
        if self.waiting is None:
            self.waiting = deque()
        if len(message) < LARGEST_FRAME:
            self.waiting.append(prefix + message)
        else:
            first = LARGEST_FRAME - len(prefix)
            self.waiting.append(prefix + message[:first])
            self.waiting.append(memoryview(message)[first:])


def _unusable(compressed: int, length: int, most: int) -> StatusError:
    if compressed > 1:
        return StatusError(INTERNAL, f"grpc: received unexpected payload format {compressed}")
    return StatusError(RESOURCE_EXHAUSTED, f"grpc: received message larger than max ({length} vs. {most})")


def decompress(message: bytes, encoding: bytes, most: int) -> bytes:
    """The message before it was compressed, never more than `most` bytes. Raises StatusError."""
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:
        if encoding in (b"", b"identity"):
            raise StatusError(INTERNAL, "grpc: compressed flag set with identity or empty encoding")
        name = encoding.decode("latin-1")
        raise StatusError(UNIMPLEMENTED, f'grpc: Decompressor is not installed for grpc-encoding "{name}"')
    machine = zlib.decompressobj(bits)
    try:
        plain = machine.decompress(message, most + 1)
    except zlib.error as error:
        raise StatusError(INTERNAL, f"grpc: failed to decompress the received message: {error}") from None
    if len(plain) > most:
        raise StatusError(
            RESOURCE_EXHAUSTED,
            f"grpc: received message after decompression larger than max ({len(plain)} vs. {most})",
        )
    if not machine.eof or machine.unused_data:
        raise StatusError(INTERNAL, "grpc: failed to decompress the received message: it is cut off")
    return plain
