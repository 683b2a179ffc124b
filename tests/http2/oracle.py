"""The same bytes for our server's side of a connection and for the package h2.

Both must make the same calls, frames and errors of them. A connection is made from a seed: mostly frames that
a client might send, now and then one that is wrong. Where both differ on purpose `INTENDED` has the reason.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from connect_kv.http2.calls import Call, Route, ServerTurn
from connect_kv.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    frame,
    settings,
)
from connect_kv.http2.hpack import FieldEncoder, literal
from connect_kv.http2.limits import Limits
from connect_kv.http2.server import ServerConnection
from tests.http2.wire import Frame, parse

WINDOW = 65_535
CONNECTION_WINDOW = 1 << 24
PATH = b"/t.T/Stream"
FIELDS = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", PATH),
    (b":authority", b"localhost"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
]
U32 = struct.Struct(">I").pack


@dataclass
class Told:
    """What one of the two made of a connection."""

    requests: dict[int, list[tuple[bytes, bytes]]] = field(default_factory=dict)
    data: dict[int, bytes] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    reset: set[int] = field(default_factory=set)
    error: int | None = None
    answers: list[tuple[int, ...]] = field(default_factory=list)


class Ours:
    def __init__(self) -> None:
        self.begun: dict[int, Call] = {}
        turn = ServerTurn({PATH: Route(PATH, self._begin)})
        limits = Limits(stream_window=WINDOW, connection_window=CONNECTION_WINDOW, held=1 << 40)
        self.core = ServerConnection(turn, limits, 0.0)
        self.core.out.clear()
        self.told = Told()

    def _begin(self, call: Call) -> None:
        self.begun[call.number] = call
        self.told.requests[call.number] = call.head.fields

    def receive(self, data: bytes) -> Told:
        self.core.receive(data, 0.0)
        told = self.told
        for number, call in self.begun.items():
            parts = call.parts
            assert parts is not None
            if call.gone():
                told.reset.add(number)
            elif call.ended:
                told.ended.add(number)
            if not call.gone():
                told.data[number] = b"".join(
                    struct.pack(">BI", flag, len(one)) + one for flag, one in parts.inbox or ()
                ) + bytes(parts.received)
        for one in parse(b"".join(self.core.out)):
            self._note(one)
        self.core.out.clear()
        return told

    def _note(self, one: Frame) -> None:
        if one.kind == GOAWAY:
            self.told.error = one.code
        elif one.kind == RST_STREAM:
            self.told.answers.append((RST_STREAM, one.stream, one.code))
        elif one.kind in (PING, SETTINGS):
            self.told.answers.append((one.kind, one.flags, len(one.payload)))


class Theirs:
    def __init__(self) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self.connection = h2.connection.H2Connection(config)
        self.connection.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 16_384,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 1 << 16,
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
            },
        )
        self.connection.initiate_connection()
        self.connection.increment_flow_control_window(CONNECTION_WINDOW - WINDOW)
        self.connection.data_to_send()
        self.told = Told()
        self.goodbye = False

    def receive(self, data: bytes) -> Told:
        told = self.told
        if told.error is not None:
            return told
        try:
            for event in self.connection.receive_data(data):
                self._note(event)
        except h2.exceptions.ProtocolError as error:
            told.error = int(error.error_code)
        for one in parse(self.connection.data_to_send()):
            if one.kind == RST_STREAM:
                told.answers.append((RST_STREAM, one.stream, one.code))
                told.reset.add(one.stream)
            elif one.kind in (PING, SETTINGS):
                told.answers.append((one.kind, one.flags, len(one.payload)))
        return told

    def _note(self, event: h2.events.Event) -> None:
        told = self.told
        match event:
            case h2.events.RequestReceived():
                told.requests[event.stream_id] = [(bytes(n), bytes(v)) for n, v in event.headers]
                told.data[event.stream_id] = b""
            case h2.events.DataReceived():
                told.data[event.stream_id] += event.data
            case h2.events.StreamEnded():
                told.ended.add(event.stream_id)
            case h2.events.StreamReset():
                told.reset.add(event.stream_id)
            case h2.events.ConnectionTerminated():
                self.goodbye = True


class Client:
    """Makes the bytes of one connection."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._encoder = FieldEncoder()
        self._next = 1
        self._unsent: dict[int, bytes] = {}
        """Of open streams: the rest of a message."""
        self.open: list[int] = []
        self.ended: list[int] = []
        self.given_up: list[int] = []

    def frames(self) -> list[tuple[str, bytes]]:
        """Names of what is done, and the bytes."""
        found = [("greet", PREFACE + settings(self._some_settings()))]
        actions = (
            ["open"] * 5 + ["data"] * 8 + ["control"] * 4 + ["end"] * 2 + ["reset", "trailers", "window"]
        )
        for _ in range(self.rng.randrange(1, 25)):
            action = "wrong" if self.rng.random() < 0.04 else self.rng.choice(actions)
            made: bytes | tuple[str, bytes] = getattr(self, f"_{action}")()
            found.append(made if isinstance(made, tuple) else (action, made))
        return found

    def _some_settings(self) -> dict[int, int]:
        choices = {
            1: [0, 100, 4096, 70_000],
            2: [0, 1],
            3: [0, 100],
            4: [0, 1, 65_535, 1 << 20],
            5: [16_384, 1 << 20],
            6: [100, 1 << 20],
            99: [7],
        }
        names = self.rng.sample(sorted(choices), self.rng.randrange(4))
        return {name: self.rng.choice(choices[name]) for name in names}

    def _headers(self, number: int, block: bytes, flags: int) -> bytes:
        """One block, in any of the ways it may be sent."""
        rng = self.rng
        pieces = [block]
        if rng.random() < 0.2:
            cuts = sorted(rng.randrange(len(block) + 1) for _ in range(rng.randrange(1, 4)))
            pieces = [block[a:b] for a, b in zip([0, *cuts], [*cuts, len(block)], strict=True)]
        first = pieces[0]
        if rng.random() < 0.2:
            flags |= WITH_PRIORITY
            first = struct.pack(">IB", rng.choice([0, number + 100, 1 << 31]), rng.randrange(256)) + first
        if first and rng.random() < 0.2:  # h2 wants more than padding in a frame
            flags |= PADDED
            padding = rng.randrange(20)
            first = bytes((padding,)) + first + b"\0" * padding
        last = len(pieces) - 1
        data = frame(HEADERS, flags | (0 if last else END_HEADERS), number, first)
        for at, piece in enumerate(pieces[1:], 1):
            data += frame(CONTINUATION, END_HEADERS if at == last else 0, number, piece)
        return data

    def _open(self) -> bytes:
        rng = self.rng
        number = self._next + 2 * (rng.randrange(3) if rng.random() < 0.1 else 0)
        self._next = number + 2
        more = [(b"x-%d" % rng.randrange(5), b"v" * rng.randrange(40)) for _ in range(rng.randrange(4))]
        extra = literal(b"grpc-trace-bin", rng.randbytes(3).hex().encode()) if rng.random() < 0.3 else b""
        block = self._encoder.encode([*FIELDS, *more], extra)
        ends = rng.random() < 0.1
        (self.ended if ends else self.open).append(number)
        return self._headers(number, block, END_STREAM if ends else 0)

    def _some_open(self) -> int | None:
        return self.rng.choice(self.open) if self.open else None

    def _data(self, flags: int = 0) -> bytes:
        rng, number = self.rng, self._some_open()
        if number is None:
            return self._open()
        unsent = self._unsent.get(number, b"")
        if not unsent:
            size = rng.choice([0, 1, 10, 100, 100, 5000, 30_000])
            unsent = struct.pack(">BI", 0, size) + rng.randbytes(1) * size
        size = min(rng.choice([0, 1, 5, 100, 10_000, 16_000]), len(unsent))
        piece, self._unsent[number] = unsent[:size], unsent[size:]
        if flags:
            self.open.remove(number)
            self.ended.append(number)
        if rng.random() < 0.2:
            padding = rng.randrange(30)
            return frame(DATA, PADDED | flags, number, bytes((padding,)) + piece + b"\0" * padding)
        return frame(DATA, flags, number, piece)

    def _end(self) -> bytes:
        return self._data(END_STREAM)

    def _reset(self) -> bytes:
        number = self._some_open()
        if number is None:
            return self._open()
        self.open.remove(number)
        self.given_up.append(number)
        return frame(RST_STREAM, 0, number, U32(self.rng.choice([0, 8, 8, 2, 99])))

    def _trailers(self) -> bytes:
        number = self._some_open()
        if number is None:
            return self._open()
        self.open.remove(number)
        self.ended.append(number)
        return self._headers(number, self._encoder.encode([(b"x-last", b"1")]), END_STREAM)

    def _window(self) -> bytes:
        number = self.rng.choice([0, *self.open, *self.ended])
        return frame(WINDOW_UPDATE, 0, number, U32(self.rng.choice([1, 100, 1 << 20])))

    def _control(self) -> bytes:
        rng = self.rng
        return rng.choice(
            [
                frame(PING, 0, 0, rng.randbytes(8)),
                settings(self._some_settings()),
                frame(SETTINGS, ACK, 0, b""),
                frame(PRIORITY, 0, 2 * rng.randrange(50) + 1, struct.pack(">IB", 0, rng.randrange(256))),
                frame(
                    rng.randrange(12, 256),
                    rng.randrange(256),
                    rng.randrange(20),
                    rng.randbytes(rng.randrange(30)),
                ),
            ]
        )

    def _wrong(self) -> tuple[str, bytes]:
        """One thing that no client does."""
        rng = self.rng
        idle = self._next + 2 * rng.randrange(1, 5)
        some = rng.choice([*self.open, *self.ended, idle])
        over = rng.choice(self.given_up) if self.given_up else idle
        ended = rng.choice(self.ended) if self.ended else idle
        name, data = rng.choice(
            [
                (
                    "size",
                    frame(rng.choice([PING, RST_STREAM, PRIORITY, WINDOW_UPDATE]), 0, some, rng.randbytes(3)),
                ),
                ("size", frame(PING, 0, 0, rng.randbytes(rng.choice([0, 7, 9])))),
                ("size", frame(SETTINGS, 0, 0, rng.randbytes(rng.choice([1, 5, 7])))),
                ("size", frame(SETTINGS, ACK, 0, rng.randbytes(6))),
                ("stream", frame(PING, 0, some, rng.randbytes(8))),
                ("stream", frame(SETTINGS, 0, some, b"")),
                ("stream", frame(DATA, 0, rng.choice([0, 2, idle]), b"x")),
                ("stream", frame(RST_STREAM, 0, rng.choice([0, idle]), U32(8))),
                ("idle window", frame(WINDOW_UPDATE, 0, idle, U32(8))),
                ("setting", settings({rng.choice([2]): 2})),
                ("setting", settings({4: 1 << 31})),
                ("setting", settings({5: rng.choice([0, 16_383, 1 << 24])})),
                ("window", frame(WINDOW_UPDATE, 0, 0, U32(rng.choice([0, 0x7FFFFFFF])))),
                ("stream window", frame(WINDOW_UPDATE, 0, some, U32(rng.choice([0, 0x7FFFFFFF])))),
                ("large", b"\x00\x40\x01" + bytes((rng.randrange(10), 0)) + U32(some) + b"\0" * 16_385),
                ("push", frame(PUSH_PROMISE, END_HEADERS, some, U32(2) + b"\x82")),
                ("continuation", frame(CONTINUATION, END_HEADERS, some, b"\x82")),
                ("interrupted", frame(HEADERS, 0, idle, b"\x82") + frame(PING, 0, 0, b"12345678")),
                (
                    "block",
                    self._headers(
                        idle,
                        rng.choice([b"\x80", b"\xff\xff\xff\xff\xff\xff", b"\x3f\xff\x7f", b"\x40\x85ab"]),
                        0,
                    ),
                ),
                ("even", self._headers(2 * rng.randrange(20), b"\x82\x84\x86\x41\x01x", END_STREAM)),
                ("padding", frame(DATA, PADDED, self._some_open() or idle, rng.choice([b"", b"\x05abc"]))),
                ("ended", frame(DATA, rng.choice([0, END_STREAM]), ended, b"x")),
                ("ended", frame(HEADERS, END_HEADERS | END_STREAM, ended, b"\x82")),
                ("again", frame(HEADERS, END_HEADERS, self._some_open() or idle, b"\x88")),
                ("over", frame(rng.choice([DATA, RST_STREAM, WINDOW_UPDATE]), 0, over, U32(1))),
                (
                    "malformed",
                    frame(HEADERS, END_HEADERS, idle, rng.choice([b"\x83\x86", b"\x00\x01X\x01y", b"\x88"])),
                ),
                ("goodbye", frame(GOAWAY, 0, 0, U32(0) + U32(rng.randrange(14)))),
                ("random", rng.randbytes(rng.randrange(1, 60))),
                ("flood", frame(DATA, 0, self._some_open() or idle, b"\0" * 16_000) * 6),
            ]
        )
        return f"wrong {name}", data


def damaged(rng: random.Random) -> list[bytes]:
    """A connection whose bytes had some accidents, in pieces of any size."""
    data = bytearray(b"".join(data for _, data in Client(rng).frames()))
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(PREFACE), len(data) + 1)
        match rng.randrange(5):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at : at + rng.randrange(1, 16)]
            case 2:
                data[at:at] = rng.randbytes(rng.randrange(1, 8))
            case 3:
                data[at:at] = data[len(PREFACE) :][: rng.randrange(100)]
            case 4 if at < len(data):
                data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(5)))
    return [bytes(data[a:b]) for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def survive(seed: int) -> None:
    """Whatever comes, nothing is raised, what is sent can be parsed, and the books balance."""
    ours = Ours()
    for piece in damaged(random.Random(seed)):
        ours.receive(piece)
    core = ours.core
    held = sum(call.parts.held for call in core.streams.values() if call.parts is not None)
    if core.turn.held != held or core.long_calls != len(core.streams) or core.turn.waiting:
        raise AssertionError(f"SEED={seed} held {core.turn.held} of {held}, {core.long_calls} calls")
    core.lost("over")
    if core.turn.held or core.long_calls or core.streams:
        raise AssertionError(f"SEED={seed} {core.turn.held} bytes are held by nothing")


class Difference(AssertionError):
    """Both made something else of a connection."""


def check(seed: int, rng: random.Random | None = None) -> str:
    """Compare one connection, frame by frame; the last thing done. Raises Difference."""
    ours, theirs, client = Ours(), Theirs(), Client(rng or random.Random(seed))
    done: list[str] = []
    for action, data in client.frames():
        done.append(action)
        if client.rng.random() < 0.1:
            cut = client.rng.randrange(len(data) + 1)
            ours.receive(data[:cut])
            mine = ours.receive(data[cut:])
        else:
            mine = ours.receive(data)
        other = theirs.receive(data)
        if intended(action, mine, other):
            return f"{action}: as intended"
        for what in ("error", "requests", "answers"):
            _same(seed, done, what, getattr(mine, what), getattr(other, what))
        if mine.error is not None or theirs.goodbye or action in ("wrong random", "wrong stream window"):
            return action
        _same(seed, done, "reset", mine.reset, other.reset)
        alive = mine.requests.keys() - mine.reset
        _same(seed, done, "ended", mine.ended - mine.reset, other.ended - other.reset)
        for number in alive:
            _same(seed, done, f"data of {number}", mine.data[number], other.data[number])
    return "all"


def _same(seed: int, done: list[str], what: str, ours: object, theirs: object) -> None:
    if ours != theirs:
        raise Difference(f"SEED={seed} {done}\n{what}\nours   {ours!r:.1000}\ntheirs {theirs!r:.1000}")


INTENDED = {
    "wrong size": "the parser of h2 has one code, PROTOCOL_ERROR, for several faults of a frame",
    "wrong large": "the same: a frame that is too large and wrong in another way, too",
    "wrong block": "the same: PROTOCOL_ERROR, where RFC 9113, 4.3, wants COMPRESSION_ERROR",
    "wrong padding": "h2 says FRAME_SIZE_ERROR, where RFC 9113, 6.1, wants PROTOCOL_ERROR",
    "wrong malformed": "h2 ends the connection, ours costs the stream (RFC 9113, 8.1.1)",
    "wrong again": "h2 reads header fields that come again as trailers first, and finds them malformed",
    "wrong ended": "ours ends the connection, h2 resets the stream; both may (RFC 9113, 5.4.1)",
    "wrong over": "ours ignores what comes on a stream that is over; h2 makes it an error",
    "wrong stream": "h2 takes a RST_STREAM of a stream that was never opened",
    "wrong stream window": "a WINDOW_UPDATE of nothing ends h2's connection, costs ours the stream (6.9)",
    "wrong random": "any octets: the rest of a frame that was cut off decides",
}
"""Where ours and h2 may differ, and why. A connection is not looked at any further then."""


def intended(action: str, ours: Told, theirs: Told) -> bool:
    """Whether a difference has a reason."""
    return action in INTENDED and (ours.error, ours.answers) != (theirs.error, theirs.answers)
