"""A peer of our own connections that can send anything, and reads what they say."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

import hpack

from connect_kv.http2.calls import Call, Route, ServerTurn
from connect_kv.http2.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_HEAD,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    settings,
)
from connect_kv.http2.limits import Limits
from connect_kv.http2.server import ServerConnection

UNARY, STREAM = b"/t.T/Unary", b"/t.T/Stream"
REQUEST = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", UNARY.decode()),
    (":authority", "localhost"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
)


def request(*more: tuple[str, str], path: bytes = UNARY) -> list[tuple[str, str]]:
    """The fields of a call."""
    return [(name, path.decode()) if name == ":path" else (name, value) for name, value in REQUEST] + list(
        more
    )


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def number(self) -> int:
        """The 32 bits that it says, or says first."""
        return int(struct.unpack(">I", self.payload[:4])[0])

    @property
    def code(self) -> int:
        """Of a GOAWAY or RST_STREAM."""
        return int(
            struct.unpack(">I", self.payload[-4:] if self.kind == RST_STREAM else self.payload[4:8])[0]
        )


def parse(data: bytes) -> list[Frame]:
    """Whole frames."""
    found, at = [], 0
    while at < len(data):
        word, flags, stream = FRAME_HEAD.unpack_from(data, at)
        found.append(Frame(word & 0xFF, flags, stream, data[at + 9 : at + 9 + (word >> 8)]))
        at += 9 + (word >> 8)
    assert at == len(data)
    return found


def message(data: bytes, compressed: int = 0) -> bytes:
    return struct.pack(">BI", compressed, len(data)) + data


class RawClient:
    """One client of a `ServerConnection`. Batches are gathered in `handed_over`; streams in `begun`."""

    def __init__(self, limits: Limits | None = None, *, greet: bool = True, answer: bool = False) -> None:
        self.begun: list[Call] = []
        self.handed_over: list[Call] = []
        self._answer = answer
        routes = {UNARY: Route(UNARY), STREAM: Route(STREAM, self.begun.append)}
        self.turn = ServerTurn(routes)
        self.now = 100.0
        self.core = ServerConnection(self.turn, limits or Limits(), self.now)
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.next = 1
        self.first = self.got()
        if greet:
            self.send(PREFACE + settings({}))
            assert self.got() == [Frame(SETTINGS, ACK, 0, b"")]

    def send(self, data: bytes) -> None:
        """Bytes come, and a turn of the loop passes."""
        self.core.receive(data, self.now)
        for _, calls in self.turn.take():
            self.handed_over += calls
            for call in calls if self._answer else []:
                call.reply(call.message)

    def frame(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        self.send(frame(kind, flags, stream, payload))

    def got(self) -> list[Frame]:
        """What the server has to say."""
        data = b"".join(self.core.out)
        self.core.out.clear()
        self.turn.dirty.clear()
        return parse(data)

    def open(
        self, *more: tuple[str, str], path: bytes = UNARY, end: bool = False, padded: bool = False
    ) -> int:
        """Begin a call with its header fields."""
        number, self.next = self.next, self.next + 2
        flags = END_HEADERS | (END_STREAM if end else 0)
        self.frame(HEADERS, flags, number, self.block(*more, path=path))
        return number

    def block(self, *more: tuple[str, str], path: bytes = UNARY) -> bytes:
        # Their Huffman encoder takes seconds for long values.
        coded = all(len(value) < 1000 for _, value in more)
        return bytes(self.encoder.encode(request(*more, path=path), huffman=coded))

    def data(self, number: int, data: bytes, end: bool = True) -> None:
        self.frame(DATA, END_STREAM if end else 0, number, data)

    def call(self, body: bytes = b"", *more: tuple[str, str]) -> int:
        """A whole unary call, in one read."""
        number, self.next = self.next, self.next + 2
        self.send(
            frame(HEADERS, END_HEADERS, number, self.block(*more))
            + frame(DATA, END_STREAM, number, message(body))
        )
        return number

    def window(self, number: int, more: int) -> None:
        self.frame(WINDOW_UPDATE, 0, number, struct.pack(">I", more))

    def reset(self, number: int, code: int = 8) -> None:
        self.frame(RST_STREAM, 0, number, struct.pack(">I", code))

    def ping(self, payload: bytes = b"12345678") -> None:
        self.frame(PING, 0, 0, payload)

    def fields(self, one: Frame) -> dict[str, str]:
        """Of a HEADERS frame; in order, as the table wants it."""
        assert one.kind == HEADERS
        return {str(name): str(value) for name, value in self.decoder.decode(one.payload)}

    def status(self, frames: list[Frame] | None = None) -> tuple[int, str]:
        """The one status among these frames."""
        told = [self.fields(one) for one in (self.got() if frames is None else frames) if one.kind == HEADERS]
        (found,) = [one for one in told if "grpc-status" in one]
        return int(found["grpc-status"]), found.get("grpc-message", "")

    def ended(self) -> tuple[int, str] | None:
        """How the server has ended the connection, if it has."""
        goodbyes = [one for one in self.got() if one.kind == GOAWAY]
        if not self.core.closing:
            assert not goodbyes
            return None
        return goodbyes[-1].code, goodbyes[-1].payload[8:].decode()

    def tick(self, now: float) -> None:
        self.now = now
        self.core.tick(now)


Feed = Callable[[RawClient, bytes], None]


def at_once(client: RawClient, data: bytes) -> None:
    client.send(data)


def octet_by_octet(client: RawClient, data: bytes) -> None:
    for at in range(len(data)):
        client.send(data[at : at + 1])
