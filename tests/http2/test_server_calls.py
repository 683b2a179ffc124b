"""The server's side of a connection, frame by frame: what a call is, and what is none."""

from __future__ import annotations

import struct

import pytest

from connect_kv.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    NO_ERROR,
    PING,
    PREFACE,
    PROTOCOL_ERROR,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    settings,
)
from connect_kv.http2.limits import Limits
from tests.http2.wire import (
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
