"""Frames of HTTP/2 as numbers and bytes (RFC 9113, sections 4, 6 and 7)."""

from __future__ import annotations

from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first."""

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9

END_STREAM: Final = 1
ACK: Final = 1
END_HEADERS: Final = 4
PADDED: Final = 8
WITH_PRIORITY: Final = 32

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = 5, 6, 7, 8
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 9, 11

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 1, 2, 3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 4, 5, 6

LARGEST_FRAME: Final = 16_384
"""Bytes of payload that this side takes and sends: the protocol's default."""
LARGEST_FRAME_ALLOWED: Final = 0xFFFFFF
DEFAULT_WINDOW: Final = 65_535
LARGEST_WINDOW: Final = 0x7FFF_FFFF
LAST_STREAM: Final = 0x7FFF_FFFF
FRAME_HEAD: Final = Struct(">IBI")
"""Length and type (together 32 bits), flags, stream: nine bytes."""
U32: Final = Struct(">I")
SETTING: Final = Struct(">HI")
PREFIX: Final = Struct(">BI")
"""Of a gRPC message: whether it is compressed, and its length."""


class H2Error(Exception):
    """The peer broke the protocol, so the connection must end: an error code of section 7 and the reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    """One frame of stream `number`."""
    return FRAME_HEAD.pack(len(payload) << 8 | kind, flags, number) + payload


def reset(number: int, code: int) -> bytes:
    """RST_STREAM."""
    return frame(RST_STREAM, 0, number, U32.pack(code))


def window_update(number: int, more: int) -> bytes:
    """WINDOW_UPDATE of a stream, or of the connection (0)."""
    return frame(WINDOW_UPDATE, 0, number, U32.pack(more))


def settings(values: dict[int, int]) -> bytes:
    """SETTINGS."""
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(name, value) for name, value in values.items()))


def goaway(last: int, code: int, reason: str) -> bytes:
    """GOAWAY: streams above `last` were not and will not be looked at."""
    return frame(GOAWAY, 0, 0, U32.pack(last) + U32.pack(code) + reason.encode()[:1024])


def headers(number: int, block: bytes, flags: int) -> bytes:
    """HEADERS, and as many CONTINUATIONs as the block needs."""
    if len(block) <= LARGEST_FRAME:
        return frame(HEADERS, flags | END_HEADERS, number, block)
    pieces = [block[at : at + LARGEST_FRAME] for at in range(0, len(block), LARGEST_FRAME)]
    rest = [frame(CONTINUATION, 0, number, piece) for piece in pieces[1:-1]]
    last = frame(CONTINUATION, END_HEADERS, number, pieces[-1])
    return b"".join((frame(HEADERS, flags, number, pieces[0]), *rest, last))


def message_frame(number: int, message: bytes, flags: int) -> bytes:
    """A gRPC message that fits one DATA frame."""
    size = len(message) + 5
    return FRAME_HEAD.pack(size << 8, flags, number) + PREFIX.pack(0, size - 5) + message
