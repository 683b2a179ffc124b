"""The client's side of a connection, against our server's side and against frames written by hand."""

from __future__ import annotations

import random
from collections.abc import Callable

import hpack
import pytest

from connect_kv.http2.calls import Call, Route, ServerTurn
from connect_kv.http2.client import ClientCall, ClientConnection
from connect_kv.http2.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    goaway,
    reset,
    settings,
)
from connect_kv.http2.limits import Limits
from connect_kv.http2.metadata import StatusError
from connect_kv.http2.sending import Turn
from connect_kv.http2.server import ServerConnection
from tests.http2.wire import STREAM, UNARY, Frame, message, parse

LIMITS = Limits(message=1 << 24)
HEAD = ((":status", "200"), ("content-type", "application/grpc"))
OK = (("grpc-status", "0"),)


class RawServer:
    """One server of a `ClientConnection` that can say anything."""

    def __init__(self, limits: Limits = LIMITS, *, greet: bool = True) -> None:
        self.now = 100.0
        self.core = ClientConnection(Turn(), limits, self.now, "localhost:1")
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.told: list[ClientCall] = []
        first = b"".join(self.core.out)
        self.core.out.clear()
        assert first.startswith(PREFACE)
        self.first = parse(first[len(PREFACE) :])
        if greet:
            self.send(settings({}))
            self.got()

    def send(self, data: bytes) -> None:
        self.core.receive(data, self.now)

    def got(self) -> list[Frame]:
        data = b"".join(self.core.out)
        self.core.out.clear()
        return parse(data)

    def unary(self, body: bytes = b"", timeout: float = 1e9) -> ClientCall:
        return self.core.unary(UNARY, body, lambda: None, self.now + timeout)

    def stream(self) -> ClientCall:
        return self.core.stream(STREAM, lambda: None)

    def headers(self, number: int, *fields: tuple[str, str], end: bool = False) -> bytes:
        flags = END_HEADERS | (END_STREAM if end else 0)
        return frame(HEADERS, flags, number, self.encoder.encode(fields))

    def answer(self, number: int, body: bytes = b"") -> None:
        self.send(
            self.headers(number, *HEAD)
            + frame(DATA, 0, number, message(body))
            + self.headers(number, *OK, end=True)
        )

    def fields(self, one: Frame) -> dict[str, str]:
        return {str(name): str(value) for name, value in self.decoder.decode(one.payload)}


def test_a_call_is_two_frames_and_its_answer_is_taken() -> None:
    server = RawServer()
    assert [one.kind for one in server.first] == [SETTINGS, WINDOW_UPDATE]
    call = server.core.unary(
        UNARY, b"ask", lambda: None, server.now + 1.5, [("token", "t"), ("x-bin", b"\0")]
    )
    head, body = server.got()
    assert server.fields(head) == {
        ":method": "POST",
        ":scheme": "http",
        ":authority": "localhost:1",
        ":path": UNARY.decode(),
        "te": "trailers",
        "content-type": "application/grpc",
        "token": "t",
        "x-bin": "AA",
        "grpc-timeout": "1500000u",
    }
    assert body == Frame(DATA, END_STREAM, 1, message(b"ask"))
    server.answer(1, b"answer")
    assert (call.done, call.outcome, call.message) == (True, None, b"answer")
    assert not server.core.streams


def test_later_calls_are_a_few_octets_of_header_fields() -> None:
    server = RawServer()
    sizes = []
    for number in (1, 3, 5):
        server.unary()
        head, _ = server.got()
        server.fields(head)
        sizes.append(len(head.payload))
        server.answer(number)
    assert sizes[2] == sizes[1] < 40


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        (
            lambda s: s.headers(1, *HEAD, ("grpc-status", "5"), ("grpc-message", "no %C3%BC%"), end=True),
            5,
            "no ü%",
        ),
        (lambda s: s.headers(1, *HEAD) + s.headers(1, ("grpc-status", "7"), end=True), 7, ""),
        (lambda s: s.headers(1, *HEAD) + s.headers(1, ("grpc-status", "77"), end=True), 2, ""),
        (
            lambda s: s.headers(1, *HEAD) + s.headers(1, *OK, end=True),
            13,
            "the answer of a unary call has 0 messages",
        ),
        (
            lambda s: s.headers(1, *HEAD) + frame(DATA, 0, 1, message(b"") * 2) + s.headers(1, *OK, end=True),
            13,
            "the answer of a unary call has 2 messages",
        ),
        (
            lambda s: (
                s.headers(1, *HEAD) + frame(DATA, 0, 1, message(b"ab")[:-1]) + s.headers(1, *OK, end=True)
            ),
            13,
            "the last message is cut off",
        ),
        (
            lambda s: s.headers(1, *HEAD) + frame(DATA, END_STREAM, 1, message(b"")),
            13,
            "the answer ends without trailers",
        ),
        (
            lambda s: s.headers(1, *HEAD) + s.headers(1, ("x", "y"), end=True),
            13,
            "the answer ends without a status",
        ),
        (lambda s: s.headers(1, (":status", "503"), end=True), 14, "the server answers HTTP 503"),
        (lambda s: s.headers(1, (":status", "404")), 12, "the server answers HTTP 404"),
        (lambda s: s.headers(1, (":status", "418"), end=True), 2, "the server answers HTTP 418"),
        (lambda s: reset(1, 8), 1, "the server has reset the call (HTTP/2 error 8)"),
        (lambda s: reset(1, 11), 8, "the server has reset the call (HTTP/2 error 11)"),
        (lambda s: reset(1, 2), 13, "the server has reset the call (HTTP/2 error 2)"),
    ],
)
def test_how_a_call_fails(answer: Callable[[RawServer], bytes], code: int, text: str) -> None:
    server = RawServer()
    call = server.unary()
    server.send(answer(server))
    assert call.done
    assert call.outcome is not None
    assert (call.outcome.code, call.outcome.text) == (code, text)
    assert not call.outcome.unprocessed
    assert not server.core.closing
    assert server.core.turn.held == 0


def test_interim_answers_are_passed_over() -> None:
    server = RawServer()
    call = server.unary()
    server.send(server.headers(1, (":status", "103"), ("link", "x")))
    server.answer(1, b"a")
    assert call.message == b"a"


def test_metadata_of_a_failed_call_is_there() -> None:
    server = RawServer()
    call = server.unary()
    server.send(server.headers(1, *HEAD, ("grpc-status", "9"), ("x", "y"), ("z-bin", "AA"), end=True))
    assert call.outcome is not None
    assert call.outcome.trailing == [("x", "y"), ("z-bin", b"\0")]


def test_a_refused_stream_was_not_processed() -> None:
    server = RawServer()
    call = server.unary()
    server.send(reset(1, REFUSED_STREAM))
    assert call.outcome is not None
    assert (call.outcome.code, call.outcome.unprocessed) == (14, True)


def test_calls_above_the_last_stream_of_a_goodbye_were_not_processed_and_the_others_go_on() -> None:
    server = RawServer()
    first, second = server.unary(), server.unary()
    server.send(goaway(0x7FFFFFFF, 0, "soon"))
    assert not first.done
    assert not second.done
    assert server.core.leaving == "the server goes away: soon"
    third = server.unary()
    assert third.outcome is not None
    assert third.outcome.unprocessed
    server.send(goaway(1, 0, "now"))
    assert second.outcome is not None
    assert second.outcome.unprocessed
    assert not server.core.done
    server.answer(1, b"a")
    assert first.message == b"a"
    assert server.core.done


def test_a_lost_connection_leaves_open_what_its_calls_did() -> None:
    server = RawServer()
    call = server.unary()
    server.core.lost("gone")
    assert call.outcome is not None
    assert (call.outcome.code, call.outcome.text, call.outcome.unprocessed) == (14, "gone", False)
    late = server.unary()
    assert late.outcome is not None
    assert late.outcome.unprocessed


def test_no_more_calls_are_begun_than_the_server_allows() -> None:
    server = RawServer(greet=False)
    server.send(settings({3: 2}))
    calls = [server.unary(b"%d" % number) for number in range(4)]
    assert len([one for one in server.got() if one.kind == HEADERS]) == 2
    server.answer(1)
    assert calls[0].done
    begun = [one for one in server.got() if one.kind == DATA]
    assert [one.payload for one in begun] == [message(b"2")]
    server.core.cancel(calls[3])
    assert calls[3].outcome is not None
    server.answer(3)
    assert not [one for one in server.got() if one.kind == HEADERS]
    server.answer(5)
    assert all(call.done for call in calls)
    server.send(settings({3: 0}))
    queued = server.unary()
    assert server.got() == [Frame(SETTINGS, ACK, 0, b"")]
    server.send(settings({3: 5}))
    assert [one.kind for one in server.got()] == [SETTINGS, HEADERS, DATA]
    assert not queued.done


def test_a_queued_stream_takes_messages_and_its_end_before_it_begins() -> None:
    server = RawServer(greet=False)
    server.send(settings({3: 0}))
    call = server.stream()
    server.core.send(call, b"a")
    server.core.send(call, b"b")
    server.core.half_close(call)
    server.got()
    server.send(settings({3: 1}))
    _, head, first, second, end = server.got()
    assert head.kind == HEADERS
    assert [first.payload, second.payload] == [message(b"a"), message(b"b")]
    assert end == Frame(DATA, END_STREAM, 1, b"")
    assert server.core.waiting == 0


def test_a_deadline_passes_for_open_and_queued_calls() -> None:
    server = RawServer(greet=False)
    server.send(settings({3: 1}))
    open_, queued = server.unary(timeout=1), server.unary(timeout=1)
    server.got()
    assert server.core.next_time() == server.now + 1
    server.core.tick(server.now + 1)
    for call in (open_, queued):
        assert call.outcome is not None
        assert call.outcome.code == 4
    sent = server.got()
    assert [(one.kind, one.code) for one in sent if one.kind == RST_STREAM] == [(RST_STREAM, 8)]
    assert len([one for one in sent if one.kind == HEADERS]) <= 1
    assert server.core.next_time() > server.now + 2


def test_a_cancelled_call_is_reset_and_its_late_answer_ignored() -> None:
    server = RawServer()
    call = server.unary()
    server.core.cancel(call)
    assert [one.code for one in server.got() if one.kind == RST_STREAM] == [8]
    server.answer(1)
    assert call.outcome is not None
    assert call.outcome.code == 1
    assert not server.core.closing


def test_a_stream_of_answers_keeps_what_came_before_its_end() -> None:
    server = RawServer()
    call = server.stream()
    server.send(server.headers(1, *HEAD) + frame(DATA, 0, 1, message(b"a") + message(b"b")))
    server.send(server.headers(1, ("grpc-status", "5"), end=True))
    assert call.done
    assert [server.core.take(call) for _ in range(3)] == [b"a", b"b", None]
    assert [one.code for one in server.got() if one.kind == RST_STREAM] == [0]
    assert server.core.turn.held == 0


def test_what_a_server_may_not_send_ends_the_connection() -> None:
    for wrong in (
        frame(HEADERS, END_HEADERS, 3, b"\x88"),
        frame(HEADERS, END_HEADERS, 2, b"\x88"),
        frame(DATA, 0, 1, b"x"),
        frame(5, END_HEADERS, 1, b"\0\0\0\2\x88"),
        frame(HEADERS, END_HEADERS, 1, b"\x80"),
    ):
        server = RawServer()
        call = server.unary()
        server.got()
        server.send(wrong)
        assert server.got()[-1].kind == GOAWAY
        assert call.outcome is not None
        assert call.outcome.code == 14
        assert server.core.closing


def test_a_server_that_says_nothing_is_asked_for_a_sign_of_life_and_then_left() -> None:
    server = RawServer(Limits(keepalive=1, keepalive_timeout=1))
    call = server.stream()
    server.got()
    server.core.tick(server.now + 1)
    assert [one.kind for one in server.got()] == [PING]
    server.core.tick(server.now + 2)
    assert call.outcome is not None
    assert call.outcome.text == "keepalive timeout: the peer gives no sign of life"


class Pair:
    """Our client and our server, with nothing but bytes between them."""

    def __init__(self, rng: random.Random, limits: Limits) -> None:
        self.rng = rng
        self.streams: list[Call] = []
        self.turn = ServerTurn({UNARY: Route(UNARY), STREAM: Route(STREAM, self.streams.append)})
        self.server = ServerConnection(self.turn, limits, 0.0)
        self.client = ClientConnection(Turn(), limits, 0.0, "localhost:1")

    def _carry(
        self, source: ServerConnection | ClientConnection, to: ServerConnection | ClientConnection
    ) -> bool:
        data = b"".join(source.out)
        source.out.clear()
        source.written()
        while data:
            size = self.rng.choice([1, 7, 100, 5000, 1 << 20])
            to.receive(data[:size], 0.0)
            data = data[size:]
            assert not to.closing, b"".join(to.out)
        return bool(source.out)

    def settle(self) -> None:
        """Until nobody has anything to say."""
        while self.client.out or self.server.out or self.turn.ready or self.streams:
            self._carry(self.client, self.server)
            for _, calls in self.turn.take():
                for call in calls:
                    call.reply(call.message)
            for stream in list(self.streams):
                while (one := self.server.take(stream)) is not None:
                    self.server.send(stream, one)
                if stream.ended:
                    self.server.finish(stream)
                if stream.gone():
                    self.streams.remove(stream)
            if not self.client.out and not self.server.out:
                break
            self._carry(self.server, self.client)


@pytest.mark.parametrize("seed", range(30))
def test_random_calls_between_our_two_sides_come_back_whole(seed: int) -> None:
    """Any sizes, windows and cuts; the books are balanced at the end."""
    rng = random.Random(seed)
    window = rng.choice([65_535, 100_000, 1 << 20])
    pair = Pair(rng, Limits(stream_window=window, connection_window=1 << 20, streams=rng.choice([3, 1000])))
    wanted: list[tuple[ClientCall, list[bytes]]] = []
    for _ in range(rng.randrange(1, 30)):
        size = rng.choice([0, 1, 1000, 16_379, 16_380, 70_000, 300_000])
        if rng.random() < 0.6:
            body = rng.randbytes(1) * size
            wanted.append((pair.client.unary(UNARY, body, lambda: None), [body]))
        else:
            call = pair.client.stream(STREAM, lambda: None)
            bodies = [rng.randbytes(1) * rng.choice([0, 5, size]) for _ in range(rng.randrange(5))]
            for body in bodies:
                pair.client.send(call, body)
            pair.client.half_close(call)
            wanted.append((call, bodies))
        if rng.random() < 0.3:
            pair.settle()
    got: dict[int, list[bytes]] = {id(call): [] for call, _ in wanted}
    for _ in range(200):
        pair.settle()
        for call, _ in wanted:
            while not call.unary and (one := pair.client.take(call)) is not None:
                got[id(call)].append(one)
    for call, bodies in wanted:
        assert call.done
        assert call.outcome is None
        assert (([call.message]) if call.unary else got[id(call)]) == bodies
    for core in (pair.client, pair.server):
        assert core.turn.held == core.turn.waiting == core.waiting == 0
        assert not core.streams


def test_a_status_says_what_it_is() -> None:
    assert str(StatusError(5, "none")) == "none (code 5)"
