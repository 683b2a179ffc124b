"""The server's side of a connection, frame by frame."""

from __future__ import annotations

import gzip
import struct
import zlib

import pytest

from connect_kv.http2.frames import (
    ACK,
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    NO_ERROR,
    PADDED,
    PING,
    PREFACE,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    frame,
    settings,
)
from connect_kv.http2.limits import Limits
from tests.http2.wire import (
    STREAM,
    UNARY,
    Feed,
    Frame,
    RawClient,
    at_once,
    message,
    octet_by_octet,
)


def test_settings_are_the_first_frame_and_do_not_wait_for_the_client() -> None:
    client = RawClient(Limits(streams=50), greet=False)
    first, window = client.first
    assert first.kind == SETTINGS
    assert first.flags == 0
    told = {name: value for name, value in struct.iter_unpack(">HI", first.payload)}
    assert told == {3: 50, 4: 1 << 20, 6: 80 << 10}
    assert (window.kind, window.stream) == (WINDOW_UPDATE, 0)


@pytest.mark.parametrize("feed", [at_once, octet_by_octet])
def test_a_call_and_its_answer(feed: Feed) -> None:
    client = RawClient(greet=False, answer=True)
    feed(
        client,
        PREFACE
        + settings({})
        + frame(HEADERS, END_HEADERS, 1, client.block())
        + frame(DATA, END_STREAM, 1, message(b"hello")),
    )
    ack, head, body, trailers = client.got()
    assert ack == Frame(SETTINGS, ACK, 0, b"")
    assert (head.flags, head.stream) == (END_HEADERS, 1)
    assert client.fields(head) == {":status": "200", "content-type": "application/grpc"}
    assert body == Frame(DATA, 0, 1, message(b"hello"))
    assert trailers.flags == END_HEADERS | END_STREAM
    assert client.fields(trailers) == {"grpc-status": "0"}
    assert not client.core.streams


def test_every_split_of_the_bytes_in_two() -> None:
    reference = RawClient(greet=False)
    data = PREFACE + settings({4: 70_000}) + frame(HEADERS, END_HEADERS, 1, reference.block())
    data += frame(DATA, 0, 1, message(b"hello")[:3]) + frame(DATA, END_STREAM, 1, message(b"hello")[3:])
    data += frame(PING, 0, 0, b"12345678") + frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1")
    for at in range(len(data)):
        client = RawClient(greet=False, answer=True)
        client.send(data[:at])
        client.send(data[at:])
        assert [one.kind for one in client.got() if one.kind != PING] == [SETTINGS, HEADERS, DATA, HEADERS]


def test_later_answers_are_one_octet_of_header_fields_each() -> None:
    client = RawClient(answer=True)
    for _ in range(3):
        client.call(b"x")
        head, _, trailers = client.got()
        assert client.fields(head)[":status"] == "200"
        assert client.fields(trailers) == {"grpc-status": "0"}
    assert (len(head.payload), len(trailers.payload)) == (2, 1)


def test_calls_of_a_turn_are_handed_over_together_and_leave_in_one_write() -> None:
    client = RawClient()
    for number in (1, 3, 5):
        client.core.receive(
            frame(HEADERS, END_HEADERS, number, client.block())
            + frame(DATA, END_STREAM, number, message(b"")),
            client.now,
        )
    ((route, calls),) = client.turn.take()
    assert route.path == UNARY
    assert [call.number for call in calls] == [1, 3, 5]
    assert not client.turn.dirty
    for call in calls:
        call.reply(b"")
    assert client.turn.dirty == [client.core]


# What a call is.


@pytest.mark.parametrize(
    ("content_type", "served"),
    [
        ("application/grpc", True),
        ("application/grpc+proto", True),
        ("application/grpc;charset=utf-8", True),
        ("application/grpc-web", False),
        ("application/json", False),
        ("", False),
    ],
)
def test_other_contents_are_http_415(content_type: str, served: bool) -> None:
    client = RawClient(answer=True)
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", UNARY.decode()),
        ("content-type", content_type),
    ]
    client.frame(HEADERS, END_HEADERS, 1, client.encoder.encode(fields))
    if served:
        client.data(1, message(b""))
        assert client.status() == (0, "")
    else:
        head, reset = client.got()
        assert head.flags & END_STREAM
        assert client.fields(head) == {":status": "415"}
        assert (reset.kind, reset.code) == (RST_STREAM, NO_ERROR)
        client.data(1, message(b""))
        assert client.ended() is None


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/t.T/Other", "unknown method Other for service t.T"),
        ("/x.Y/Z", "unknown service x.Y"),
        ("/x", 'malformed method name: "/x"'),
        ("x/y", 'malformed method name: "x/y"'),
    ],
)
def test_an_unknown_method_is_unimplemented_in_the_words_of_etcd(path: str, text: str) -> None:
    client = RawClient()
    client.open(path=path.encode(), end=True)
    assert client.status() == (12, text)


def test_an_answer_without_a_message_has_its_content_type_too() -> None:
    """gRPC-go takes one without for no answer of gRPC, and loses the status."""
    client = RawClient()
    client.open(path=b"/x.Y/Z")
    head, reset = client.got()
    assert client.fields(head)["content-type"] == "application/grpc"
    assert head.flags & END_STREAM
    assert (reset.kind, reset.code) == (RST_STREAM, NO_ERROR)


@pytest.mark.parametrize(
    "fields",
    [
        [(":method", "POST"), (":scheme", "http"), ("content-type", "application/grpc")],
        [(":method", "POST"), (":path", "/t.T/Unary"), ("content-type", "application/grpc")],
        [("content-type", "application/grpc"), (":method", "POST"), (":scheme", "http"), (":path", "/")],
        [(":method", "POST"), (":method", "POST"), (":scheme", "http"), (":path", "/")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":status", "200")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/"), ("Upper", "x")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/"), ("connection", "close")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/"), ("te", "gzip")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/"), ("x", "a\r\nb: c")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/"), ("", "x")],
    ],
)
def test_a_malformed_request_costs_its_stream_and_not_the_connection(fields: list[tuple[str, str]]) -> None:
    client = RawClient(answer=True)
    client.frame(HEADERS, END_HEADERS, 1, client.encoder.encode(fields))
    (reset,) = client.got()
    assert (reset.kind, reset.stream, reset.code) == (RST_STREAM, 1, PROTOCOL_ERROR)
    client.next = 3
    client.call(b"")
    assert client.status() == (0, "")


def test_metadata_of_the_application_is_read() -> None:
    client = RawClient()
    client.call(
        b"",
        ("token", "abc"),
        ("x-bin", "AAE"),
        ("y-bin", "AAE=,/w=="),
        ("z-bin", "!"),
        ("grpc-trace-bin", "AA"),
        ("user-agent", "u"),
    )
    (call,) = client.handed_over
    assert list(call.metadata) == [
        ("token", "abc"),
        ("x-bin", b"\0\1"),
        ("y-bin", b"\0\1"),
        ("y-bin", b"\xff"),
        ("user-agent", "u"),
    ]


@pytest.mark.parametrize("size", [60_000, 82_000, 120_000])
def test_metadata_above_64_kib_is_refused_as_grpc_does_and_the_table_stays_right(size: int) -> None:
    client = RawClient(answer=True)
    block = client.block(("x", "v" * size))
    pieces = [block[at : at + 16_384] for at in range(0, len(block), 16_384)]
    client.frame(HEADERS, 0, 1, pieces[0])
    for piece in pieces[1:-1]:
        client.frame(CONTINUATION, 0, 1, piece)
    client.frame(CONTINUATION, END_HEADERS, 1, pieces[-1])
    client.data(1, message(b""))
    code, text = client.status()
    if size == 60_000:
        assert code == 0
    else:
        assert code == 8
        assert text.startswith("received metadata size exceeds hard limit")
    client.next = 3
    client.call(b"", ("y", "1"))
    assert client.status() == (0, "")


# Messages.


@pytest.mark.parametrize("feed", [at_once, octet_by_octet])
def test_a_message_in_many_frames(feed: Feed) -> None:
    client = RawClient(answer=True)
    body = bytes(range(256)) * 200
    number = client.open()
    data = message(body)
    for at in range(0, len(data), 9000):
        feed(client, frame(DATA, 0, number, data[at : at + 9000]))
    feed(client, frame(DATA, END_STREAM, number, b""))
    answer = b"".join(one.payload for one in client.got() if one.kind == DATA)
    assert answer == data
    assert client.turn.held == 0


@pytest.mark.parametrize(
    ("bodies", "end"),
    [([], True), ([b"a", b"b"], True), ([b"a", b"b"], False)],
    ids=["none", "two", "two and no end"],
)
def test_a_unary_call_has_one_message(bodies: list[bytes], end: bool) -> None:
    client = RawClient()
    client.data(client.open(), b"".join(message(body) for body in bodies), end)
    assert client.status() == (13, "a unary call has one message")
    assert not client.handed_over
    assert client.turn.held == 0


def test_a_message_that_is_cut_off_is_refused() -> None:
    client = RawClient()
    client.data(client.open(), message(b"abc")[:-1])
    assert client.status()[0] == 13


def test_a_message_above_the_limit_is_refused_in_etcds_words_at_once() -> None:
    client = RawClient(Limits(message=1000))
    client.data(client.open(), struct.pack(">BI", 0, 1001), end=False)
    assert client.status() == (8, "grpc: received message larger than max (1001 vs. 1000)")
    client.call(b"v" * 1001)
    assert client.status()[0] == 8
    client.call(b"v" * 1000)
    assert [call.message for call in client.handed_over] == [b"v" * 1000]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_requests_are_taken(encoding: str) -> None:
    client = RawClient(answer=True)
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    client.data(client.open(("grpc-encoding", encoding)), message(pack(b"v" * 5000), compressed=1))
    (body,) = [one for one in client.got() if one.kind == DATA]
    assert body.payload == message(b"v" * 5000)
    assert client.turn.held == 0


@pytest.mark.parametrize(
    ("encoding", "body", "code"),
    [
        ("gzip", gzip.compress(b"v" * 3_000_000), 8),
        ("gzip", b"nonsense", 13),
        ("gzip", gzip.compress(b"v" * 100, mtime=0)[:-4], 13),
        ("gzip", gzip.compress(b"v", mtime=0) + b"more", 13),
        ("snappy", b"x", 12),
        ("identity", b"x", 13),
        ("", b"x", 13),
    ],
)
def test_what_cannot_be_decompressed_is_refused(encoding: str, body: bytes, code: int) -> None:
    client = RawClient(answer=True)
    client.data(client.open(("grpc-encoding", encoding)), message(body, compressed=1))
    fields = [client.fields(one) for one in client.got() if one.kind == HEADERS][-1]
    assert int(fields["grpc-status"]) == code
    assert (fields.get("grpc-accept-encoding") is not None) == (code == 12)
    assert client.turn.held == 0


def test_a_flag_of_compression_that_does_not_exist_is_refused() -> None:
    client = RawClient()
    client.data(client.open(), message(b"x", compressed=2))
    assert client.status()[0] == 13


# Streams.


def test_a_stream_is_begun_with_its_head_and_read_message_by_message() -> None:
    client = RawClient()
    number = client.open(path=STREAM)
    (call,) = client.begun
    assert client.core.take(call) is None
    client.data(number, message(b"a") + message(b"b") + message(b"c")[:2], end=False)
    assert [client.core.take(call) for _ in range(3)] == [b"a", b"b", None]
    client.data(number, message(b"c")[2:])
    assert call.ended
    assert client.core.take(call) == b"c"
    client.core.send(call, b"A")
    client.core.send(call, b"B")
    client.core.finish(call)
    head, first, second, trailers = client.got()
    assert client.fields(head)[":status"] == "200"
    assert (first.payload, second.payload) == (message(b"A"), message(b"B"))
    assert client.fields(trailers) == {"grpc-status": "0"}
    assert call.gone()
    assert client.core.long_calls == 0


def test_an_end_before_the_clients_is_followed_by_a_reset_without_error() -> None:
    """grpc-js keeps its side of the stream open otherwise."""
    client = RawClient()
    number = client.open(path=STREAM)
    client.core.send(client.begun[0], b"A")
    client.core.fail(client.begun[0], 5, "none", [("x-bin", b"\0")])
    *_, trailers, reset = client.got()
    assert trailers.flags & END_STREAM
    assert (reset.kind, reset.stream, reset.code) == (RST_STREAM, number, NO_ERROR)
    client.data(number, b"v" * 10_000, end=False)
    client.data(number, b"v" * 10_000)
    assert client.ended() is None


def test_data_on_a_stream_that_was_answered_still_counts_for_the_connections_window() -> None:
    client = RawClient(Limits(connection_window=65_536))
    number = client.open(path=STREAM)
    client.core.fail(client.begun[0], 5, "none")
    client.got()
    for _ in range(5):
        client.data(number, b"v" * 10_000, end=False)
    given_back = sum(one.number for one in client.got() if one.kind == WINDOW_UPDATE and one.stream == 0)
    assert given_back >= 40_000


def test_a_streams_window_is_given_back_when_the_handler_reads() -> None:
    client = RawClient(Limits(stream_window=65_535))
    number = client.open(path=STREAM)
    (call,) = client.begun
    for _ in range(4):
        client.data(number, message(b"v" * 9_995), end=False)
    assert [one for one in client.got() if one.stream == number] == []
    for _ in range(4):
        client.core.take(call)
    given_back = [one.number for one in client.got() if one.kind == WINDOW_UPDATE and one.stream == number]
    assert given_back == [20_000, 20_000]  # a quarter at a time at least


def test_a_message_larger_than_the_streams_window_arrives() -> None:
    client = RawClient(Limits(stream_window=65_535), answer=True)
    number, left = client.open(), 65_535
    data = message(b"v" * 500_000)
    at = 0
    while at < len(data):
        piece = data[at : at + min(left, 10_000)]
        assert piece, "the window stays closed"
        client.data(number, piece, end=at + len(piece) == len(data))
        at, left = at + len(piece), left - len(piece)
        left += sum(one.number for one in client.got() if one.kind == WINDOW_UPDATE and one.stream == number)
    assert client.handed_over[0].message == b"v" * 500_000


# Windows of the client.


def test_answers_wait_for_the_connections_window() -> None:
    client = RawClient(answer=True)
    body = b"v" * 30_000
    for _ in range(3):
        client.data(client.open(), message(body)[:16_000], end=False)
        client.data(client.next - 2, message(body)[16_000:])
    sent = [one for one in client.got() if one.kind == DATA]
    assert sum(len(one.payload) for one in sent) == 65_535
    client.window(0, 10_000)
    assert sum(len(one.payload) for one in client.got() if one.kind == DATA) == 10_000
    client.window(0, 1 << 20)
    last = client.got()
    assert sum(len(one.payload) for one in last if one.kind == DATA) == 3 * 30_005 - 75_535
    assert len([one for one in last if one.kind == HEADERS and one.flags & END_STREAM]) == 1
    assert not client.core.streams


def test_a_window_of_nothing_lets_no_data_out_and_no_error_wait() -> None:
    client = RawClient()
    client.send(settings({4: 0}))
    client.call(b"")
    client.call(b"")
    answered, failed = client.handed_over
    answered.reply(b"v")
    failed.fail(5, "none")
    frames = client.got()
    assert not [one for one in frames if one.kind == DATA]
    assert client.status(frames) == (5, "none")
    client.send(settings({4: 3}))
    assert [one.payload for one in client.got() if one.kind == DATA] == [message(b"v")[:3]]
    client.window(answered.number, 100)
    assert [one.payload for one in client.got() if one.kind == DATA] == [message(b"v")[3:]]
    assert answered.gone()


def test_changed_initial_windows_apply_to_open_streams_also_below_nothing() -> None:
    client = RawClient()
    client.open(path=STREAM)
    (call,) = client.begun
    client.core.send(call, b"v" * 40_000)
    client.got()
    client.send(settings({4: 30_000}))
    client.core.send(call, b"w" * 10)
    assert not [one for one in client.got() if one.kind == DATA]
    client.window(call.number, 10_005)
    assert not [one for one in client.got() if one.kind == DATA]
    client.window(call.number, 15)
    assert sum(len(one.payload) for one in client.got() if one.kind == DATA) == 15


def test_what_a_client_adds_to_a_unary_calls_window_is_not_lost() -> None:
    """C core sends WINDOW_UPDATE between HEADERS and DATA: the short path stays short, the sum right."""
    client = RawClient()
    client.send(settings({4: 10}))
    number = client.open()
    client.window(number, 5)
    client.data(number, message(b""))
    (call,) = client.handed_over
    assert call.parts is None
    client.got()
    call.reply(b"v" * 20)
    assert sum(len(one.payload) for one in client.got() if one.kind == DATA) == 15
    client.window(number, 10)
    assert sum(len(one.payload) for one in client.got() if one.kind == DATA) == 10


def test_large_answers_leave_in_frames_of_16_kib_without_padding() -> None:
    client = RawClient()
    client.send(settings({4: 1 << 20, 5: 1 << 20}))
    client.window(0, 1 << 20)
    client.call(b"")
    client.handed_over[0].reply(bytes(range(256)) * 1000)
    data = [one for one in client.got() if one.kind == DATA]
    assert max(len(one.payload) for one in data) == 16_384
    assert b"".join(one.payload for one in data) == message(bytes(range(256)) * 1000)
    assert {one.flags for one in data} == {0}


def test_a_client_without_a_table_gets_fields_without_one() -> None:
    client = RawClient(answer=True)
    client.call(b"")
    client.got()
    client.send(settings({1: 0}))
    client.decoder.max_allowed_table_size = 0
    client.got()
    for _ in range(3):
        client.call(b"")
        head, _, trailers = client.got()
        assert client.fields(head) == {":status": "200", "content-type": "application/grpc"}
        assert client.fields(trailers) == {"grpc-status": "0"}


def test_an_answer_that_waits_while_the_table_goes_ends_well() -> None:
    client = RawClient(answer=True)
    client.call(b"")
    client.send(settings({4: 0}))
    client.call(b"v")
    for one in client.got():
        if one.kind == HEADERS:
            client.fields(one)
    client.send(settings({1: 0}))
    client.decoder.max_allowed_table_size = 0
    client.got()
    client.send(settings({4: 100}))
    assert client.status() == (0, "")


# What other frames mean.


def test_ping_is_answered_and_its_answer_is_not() -> None:
    client = RawClient()
    client.ping(b"abcdefgh")
    assert client.got() == [Frame(PING, ACK, 0, b"abcdefgh")]
    client.frame(PING, ACK, 0, b"abcdefgh")
    assert client.got() == []


def test_a_ping_with_a_call_is_answered_in_the_same_write() -> None:
    """gRPC-go sends one with each small call."""
    client = RawClient(answer=True)
    block = client.block()
    client.send(
        frame(HEADERS, END_HEADERS, 1, block)
        + frame(DATA, END_STREAM, 1, message(b""))
        + frame(PING, 0, 0, b"12345678")
        + frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\5")
    )
    assert [one.kind for one in client.got()] == [PING, HEADERS, DATA, HEADERS]


def test_padding_and_priority_of_a_client_are_taken_off() -> None:
    client = RawClient(answer=True)
    block = client.block()
    client.frame(
        HEADERS,
        END_HEADERS | PADDED | WITH_PRIORITY,
        1,
        b"\x03" + struct.pack(">IB", 0, 15) + block + b"\0\0\0",
    )
    client.frame(DATA, END_STREAM | PADDED, 1, b"\x05" + message(b"hi") + b"\0" * 5)
    frames = client.got()
    assert [one.payload for one in frames if one.kind == DATA] == [message(b"hi")]


def test_extensions_priorities_and_settings_that_mean_nothing_here_are_ignored() -> None:
    client = RawClient(answer=True)
    client.frame(0xA, 0, 0, b"altsvc")
    client.frame(0xFE, 0xFF, 7, b"anything")
    client.frame(2, 0, 9, struct.pack(">IB", 3, 7))
    client.send(settings({3: 0, 9: 1, 0xFE03: 1}))
    client.frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0) + b"bye")
    client.call(b"hi")
    assert client.status() == (0, "")


def test_reserved_bits_mean_nothing() -> None:
    client = RawClient(answer=True)
    client.frame(HEADERS, END_HEADERS, 1 | 1 << 31, client.block())
    client.frame(DATA, END_STREAM, 1 | 1 << 31, message(b""))
    client.frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 5 | 1 << 31))
    assert client.status() == (0, "")


# Refusals and failures.


def test_streams_beyond_the_limit_are_refused_and_not_the_connection() -> None:
    client = RawClient(Limits(streams=3))
    for _ in range(3):
        client.open(path=STREAM)
    number = client.open(path=STREAM)
    (reset,) = client.got()
    assert (reset.stream, reset.code) == (number, REFUSED_STREAM)
    client.core.finish(client.begun[0])
    client.open(path=STREAM)
    assert len(client.begun) == 4


def test_a_call_that_was_reset_in_the_same_read_is_not_handed_over() -> None:
    client = RawClient()
    dead = frame(HEADERS, END_HEADERS, 1, client.block()) + frame(DATA, END_STREAM, 1, message(b"dead"))
    dead += frame(RST_STREAM, 0, 1, struct.pack(">I", CANCEL))
    alive = frame(HEADERS, END_HEADERS, 3, client.block()) + frame(DATA, END_STREAM, 3, message(b"alive"))
    client.send(dead + alive)
    assert [call.message for call in client.handed_over] == [b"alive"]


def test_an_answer_to_a_call_that_is_gone_is_dropped() -> None:
    client = RawClient()
    number = client.call(b"")
    client.reset(number)
    (call,) = client.handed_over
    assert call.gone()
    call.reply(b"x")
    call.fail(5, "x")
    assert client.got() == []


@pytest.mark.parametrize("code", [0, -1, 17])
def test_a_status_that_is_none_of_a_failure_is_unknown(code: int) -> None:
    """OK without a message would be an answer for C core, and none for others."""
    client = RawClient()
    client.call(b"")
    client.handed_over[0].fail(code, "x")
    assert client.status() == (2, "x")


def test_messages_of_a_status_are_percent_encoded_and_cut() -> None:
    client = RawClient()
    client.call(b"")
    client.call(b"")
    first, second = client.handed_over
    first.fail(9, "50% of größe\n")
    assert client.status() == (9, "50%25 of gr%C3%B6%C3%9Fe%0A")
    second.fail(9, "ü" * 5000)
    text = client.status()[1]
    assert 4000 < len(text) <= 4096
    mark = "... (cut: 5000 characters)"
    assert text == "%C3%BC" * ((len(text) - len(mark)) // 6) + mark


def test_blanks_around_a_value_are_its_own() -> None:
    """As gRPC-go and C core take them: a token that begins with one is wrong, and told so."""
    client = RawClient()
    client.call(b"", ("token", " padded "))
    (call,) = client.handed_over
    assert ("token", " padded ") in call.metadata


def test_too_much_metadata_of_an_answer_ends_it_with_internal() -> None:
    """Above 8 KiB of fields C core loses the answer and its status."""
    client = RawClient()
    client.call(b"")
    client.handed_over[0].fail(9, "text", [("x", "v" * 9000)])
    assert client.status() == (13, "the metadata of an answer exceeds 8192 bytes")


@pytest.mark.parametrize(
    "metadata", [[("grpc-status", "0")], [("Upper", "x")], [(":status", "200")], [("x", "ü")], [("te", "x")]]
)
def test_metadata_that_would_break_an_answer_ends_it_with_internal(metadata: list[tuple[str, str]]) -> None:
    client = RawClient()
    client.call(b"")
    client.handed_over[0].fail(9, "text", metadata)
    frames = client.got()
    assert client.status(frames)[0] == 13


def test_an_answer_never_holds_an_interim_status_padding_or_two_statuses() -> None:
    client = RawClient(answer=True)
    client.call(b"a")
    client.open(path=b"/x.Y/Z", end=True)
    for one in client.got():
        assert not one.flags & PADDED
        if one.kind == HEADERS:
            fields = [(str(name), str(value)) for name, value in client.decoder.decode(one.payload)]
            names = [name for name, _ in fields]
            assert names.count("grpc-status") <= 1
            assert (":status", "100") not in fields
