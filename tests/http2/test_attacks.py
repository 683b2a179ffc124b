"""What a client might send to bring a server down costs it its connection."""

from __future__ import annotations

import random
import struct
import time

import pytest

from connect_kv.http2.frames import (
    ACK,
    CANCEL,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    frame,
    settings,
)
from connect_kv.http2.hpack import literal
from connect_kv.http2.limits import Limits
from tests.http2.wire import STREAM, RawClient, message

U32 = struct.Struct(">I").pack
DEADLINE = ("grpc-timeout", "1S")


def reset(number: int, code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, 0, number, struct.pack(">I", code))


# Floods.


def test_rapid_reset_ends_the_connection() -> None:
    """As many calls as may be open can be given up at once, and then one for each that was answered."""
    client = RawClient(Limits(streams=1000))
    block = client.block()
    client.send(frame(HEADERS, END_HEADERS, 1, block) + reset(1))
    block = client.block()
    sent = 1
    while client.ended() is None:
        sent += 1
        assert sent < 1500
        client.send(frame(HEADERS, END_HEADERS, 2 * sent + 1, block) + reset(2 * sent + 1))
    assert sent > 1000
    assert not client.handed_over


def test_rapid_reset_of_whole_calls_hands_none_over() -> None:
    client = RawClient(Limits(streams=1000))
    client.reset(client.open())
    block = client.block()
    data = b""
    for number in range(3, 1003, 2):
        data += frame(HEADERS, END_HEADERS, number, block) + frame(DATA, END_STREAM, number, message(b""))
        data += reset(number)
    client.send(data)
    assert client.ended() is None
    assert not client.handed_over


@pytest.mark.parametrize("before", [True, False], ids=["the client first", "the server first"])
def test_thousands_of_calls_with_one_deadline_are_no_rapid_reset(before: bool) -> None:
    """gRPC's clients give up all of them at the same moment, and the server does as well."""
    client = RawClient(Limits(streams=16_384))
    numbers = [client.call(b"", DEADLINE) for _ in range(5000)]
    if not before:
        client.tick(client.now + 1.01)
        assert len([one for one in client.got() if one.kind == HEADERS]) == 5000
    else:
        client.now += 0.99
    client.send(b"".join(reset(number) for number in numbers))
    client.now += 0.1
    numbers = [client.call(b"", DEADLINE) for _ in range(5000)]
    client.now += 1
    client.send(b"".join(reset(number) for number in numbers))
    assert client.ended() is None
    client.call(b"alive")
    assert client.handed_over[-1].message == b"alive"


def test_a_client_that_cancels_its_thousands_of_watches_is_no_rapid_reset() -> None:
    client = RawClient(Limits(streams=20_000))
    numbers = [client.open(path=STREAM) for _ in range(10_000)]
    for call in client.begun:
        client.core.send(call, b"created")
    client.send(b"".join(reset(number) for number in numbers))
    assert client.ended() is None
    assert client.core.long_calls == 0


def test_resets_of_nothing_again_and_again_end_the_connection() -> None:
    client = RawClient()
    number = client.call(b"")
    client.handed_over[0].reply(b"")
    client.send(reset(number) * 1100)
    assert client.ended() == (ENHANCE_YOUR_CALM, "too many resets of nothing")


FLOODS = {
    "pings": frame(PING, 0, 0, b"12345678"),
    "answers to no ping": frame(PING, ACK, 0, b"12345678"),
    "settings": settings({}),
    "answers to no settings": frame(SETTINGS, ACK, 0, b""),
    "priorities": frame(PRIORITY, 0, 3, b"\0\0\0\0\1"),
    "data that is empty": frame(DATA, 0, 1, b""),
    "goodbyes": frame(GOAWAY, 0, 0, b"\0" * 8),
    "frames of an extension": frame(99, 0, 0, b""),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_of_frames_that_carry_nothing_ends_the_connection(flood: str) -> None:
    client = RawClient()
    client.open(path=STREAM)
    client.send(FLOODS[flood] * 3000)
    assert client.ended() == (ENHANCE_YOUR_CALM, "too many frames that carry nothing")


@pytest.mark.parametrize("flood", ["pings", "settings", "priorities"])
def test_some_of_them_with_every_call_are_no_flood(flood: str) -> None:
    """gRPC-go sends a PING with each small call, and SETTINGS while large answers come."""
    client = RawClient(answer=True)
    for _ in range(3000):
        client.call(b"")
        client.send(FLOODS[flood] * 4)
        client.core.out.clear()
    assert not client.core.closing


def test_one_of_them_now_and_then_is_no_flood() -> None:
    client = RawClient()
    for _ in range(20_000):
        client.now += 0.02
        client.ping()
    assert client.ended() is None


def test_a_watch_with_many_events_and_windows_is_no_flood() -> None:
    client = RawClient()
    client.open(path=STREAM)
    for _ in range(5000):
        client.core.send(client.begun[0], b"event")
        client.window(1, 10)
        client.window(0, 10)
        client.ping()
        client.core.out.clear()
    assert not client.core.closing


@pytest.mark.parametrize("size", [0, 1, 10_000])
def test_a_flood_of_continuations_ends_the_connection(size: int) -> None:
    client = RawClient()
    client.frame(HEADERS, 0, 1, b"")
    for sent in range(200):
        client.frame(CONTINUATION, 0, 1, b"\x82" * size)
        if client.core.closing:
            assert sent <= 32
            break
    assert client.ended() == (ENHANCE_YOUR_CALM, "too long a block of header fields")


def test_header_fields_of_a_megabyte_end_the_connection_before_they_have_come() -> None:
    client = RawClient()
    block = client.block(("x", "v" * (1 << 20)))
    client.frame(HEADERS, 0, 1, block[:16_384])
    sent = 16_384
    while not client.core.closing:
        client.frame(CONTINUATION, 0, 1, block[sent : sent + 16_384])
        sent += 16_384
    assert sent <= 160 << 10


def test_a_bomb_of_header_fields_ends_the_connection_at_once() -> None:
    """One large entry, named tens of thousands of times by an octet each."""
    client = RawClient()
    number = client.open(("x", "v" * 4000))
    started = time.process_time()
    client.frame(HEADERS, END_HEADERS | END_STREAM, number + 2, b"\x83\x86" + b"\xbe" * 16_000)
    assert client.ended() == (ENHANCE_YOUR_CALM, "too many header fields")
    assert time.process_time() - started < 0.1


def test_blocks_that_are_remembered_are_bounded() -> None:
    client = RawClient()
    client.reset(client.open())
    block = client.block()
    for number in range(3, 1200, 2):
        client.frame(HEADERS, END_HEADERS | END_STREAM, number, block + literal(b"x", b"%d" % number))
    client.frame(HEADERS, END_HEADERS | END_STREAM, 1201, block + literal(b"x", b"v" * 5000))
    known = client.core._heads.same
    assert 0 < len(known) <= 256
    assert max(map(len, known)) < 1024
    assert not client.core.closing


def test_windows_a_byte_at_a_time_cost_no_more_than_the_frames() -> None:
    client = RawClient()
    client.send(settings({4: 0}))
    client.open(path=STREAM)
    client.core.send(client.begun[0], b"v" * 10_000)
    client.got()
    for _ in range(3000):
        client.window(1, 1)
    assert sum(len(one.payload) for one in client.got() if one.kind == DATA) == 3000
    assert client.ended() is None


def test_thousands_of_streams_without_a_window_make_no_other_frame_dear() -> None:
    """What waits for its own window is not looked at when another one widens."""
    client = RawClient()
    client.send(settings({4: 0}))
    for _ in range(5000):
        client.open(path=STREAM)
    for call in client.begun:
        client.core.send(call, b"v")
    client.core.out.clear()
    started = time.process_time()
    client.send(b"".join(frame(WINDOW_UPDATE, 0, 0, U32(1)) for _ in range(5000)))
    assert time.process_time() - started < 0.5
    client.send(settings({4: 6}))
    assert len([one for one in client.got() if one.kind == DATA]) == 5000
    assert client.turn.waiting == 0


def test_windows_of_thousands_of_streams_that_change_again_and_again_end_the_connection() -> None:
    client = RawClient()
    for _ in range(5000):
        client.open(path=STREAM)
    sent = 0
    while not client.core.closing:
        sent += 1
        client.send(settings({4: 65_535 + sent % 2}))
        client.core.out.clear()
    assert 5 < sent < 50


# Memory.


def test_unfinished_messages_on_all_streams_are_bounded() -> None:
    """16,384 streams times a megabyte each: who adds to the limit is refused, the others finish."""
    client = RawClient(Limits(held=2_000_000), answer=True)
    numbers = [client.open() for _ in range(500)]
    data = message(b"v" * 10_000)
    for number in numbers:
        client.data(number, data[:-1], end=False)
    assert client.turn.held <= 2_000_000
    refused = [client.fields(one) for one in client.got() if one.kind == HEADERS]
    assert {one["grpc-status"] for one in refused} == {"8"}
    assert len(refused) == 500 - 2_000_000 // 10_004
    for number in numbers:
        client.data(number, data[-1:])
    assert len(client.handed_over) == 2_000_000 // 10_004
    assert client.turn.held == 0


def test_messages_that_a_handler_does_not_read_are_bounded_by_the_window() -> None:
    client = RawClient(Limits(stream_window=65_535))
    client.open(path=STREAM)
    for _ in range(7):
        client.data(1, message(b"v" * 10_000), end=False)
    assert client.ended() == (FLOW_CONTROL_ERROR, "more data than the stream's window allows")
    assert client.turn.held == 0


def test_compressed_calls_that_wait_for_their_answer_are_bounded_as_they_are_plain() -> None:
    import gzip

    client = RawClient(Limits(held=5_000_000))
    body = message(gzip.compress(b"v" * 1_000_000), compressed=1)
    for _ in range(20):
        client.data(client.open(("grpc-encoding", "gzip")), body)
    assert 4 <= len(client.handed_over) <= 5
    assert client.turn.held < 6_000_000
    for call in client.handed_over:
        call.reply(b"")
    assert client.turn.held == 0


def test_answers_that_a_client_does_not_take_are_bounded() -> None:
    """It reads and even gives signs of life, but its windows stay as they are."""
    client = RawClient(Limits(waiting=1_000_000))
    for _ in range(30):
        client.call(b"")
        client.handed_over[-1].reply(b"v" * 100_000)
    refused = [one for one in client.got() if one.kind == HEADERS and one.flags & END_STREAM]
    assert len(refused) == 30 - 11
    assert client.turn.waiting == client.core.waiting == 11 * 100_005 - 65_535
    for number in range(1, 60, 2):
        client.reset(number)
    assert client.turn.waiting == client.core.waiting == 0


def test_answers_that_no_client_takes_are_bounded_over_all_connections() -> None:
    client = RawClient(Limits(waiting=1_600_000, held=500_000))
    client.turn.waiting = 400_000  # of others
    for _ in range(30):
        client.call(b"")
        client.handed_over[-1].reply(b"v" * 50_000)
    assert 100_000 < client.core.waiting <= 150_000 + 65_535


def test_the_more_is_not_taken_the_less_each_connection_may_leave() -> None:
    """A sixteenth for each of thousands of connections would be more memory than there is."""
    limits = Limits(waiting=1_600_000, held=500_000)
    for others, most in ((600_000, 80_000), (900_000, 20_000), (5_000_000, 0)):
        client = RawClient(limits)
        client.turn.waiting = others
        for _ in range(30):
            client.call(b"")
            client.handed_over[-1].reply(b"v" * 50_000)
        assert most <= client.core.waiting <= most + 50_005 + 65_535
        taking = RawClient(limits, answer=True)
        taking.turn.waiting = others
        for _ in range(30):
            taking.call(b"v" * 1000)
        assert taking.core.waiting == 0, "who takes its answers gets them"


def test_sixteen_thousand_streams_are_open_and_no_more() -> None:
    client = RawClient(answer=True)
    for _ in range(16_384):
        client.open()
    client.open()
    (refused,) = client.got()
    assert (refused.kind, refused.code) == (RST_STREAM, 7)
    for number in range(1, 2 * 16_384, 2):
        client.data(number, message(b""))
        client.core.out.clear()
        client.core._window = 65_535  # as if the client had given back what it took
    assert not client.core.streams
    assert client.ended() is None


def test_more_data_than_the_connections_window_ends_it() -> None:
    client = RawClient(Limits(connection_window=100_000))
    client.open(path=STREAM)
    client.send(b"".join(frame(DATA, 0, 1, b"\0" * 16_000) for _ in range(7)))
    assert client.ended() == (FLOW_CONTROL_ERROR, "more data than the connection's window allows")


# Frames that are wrong.

WRONG = {
    "no preface": (None, b"GET / HTTP/1.1\r\n", PROTOCOL_ERROR),
    "another preface": (None, PREFACE[:-1] + b"x", PROTOCOL_ERROR),
    "no settings first": (None, PREFACE + frame(PING, 0, 0, b"12345678"), PROTOCOL_ERROR),
    "acknowledged settings first": (None, PREFACE + frame(SETTINGS, ACK, 0, b""), PROTOCOL_ERROR),
    "a frame too large": (0, b"\x00\x40\x01\x00\x00\0\0\0\1", FRAME_SIZE_ERROR),
    "a large unknown frame": (0, b"\xff\xff\xff\x63\x00\0\0\0\1", FRAME_SIZE_ERROR),
    "a ping of 7": (0, frame(PING, 0, 0, b"1234567"), FRAME_SIZE_ERROR),
    "a ping on a stream": (0, frame(PING, 0, 1, b"12345678"), PROTOCOL_ERROR),
    "settings of 5": (0, frame(SETTINGS, 0, 0, b"12345"), FRAME_SIZE_ERROR),
    "settings on a stream": (0, frame(SETTINGS, 0, 1, b""), PROTOCOL_ERROR),
    "settings acknowledged with contents": (0, frame(SETTINGS, ACK, 0, b"123456"), FRAME_SIZE_ERROR),
    "a window that is too large": (0, settings({4: 1 << 31}), FLOW_CONTROL_ERROR),
    "frames too small": (0, settings({5: 16_383}), PROTOCOL_ERROR),
    "frames too large": (0, settings({5: 1 << 24}), PROTOCOL_ERROR),
    "push of 2": (0, settings({2: 2}), PROTOCOL_ERROR),
    "a reset of 3": (0, frame(RST_STREAM, 0, 1, b"123"), FRAME_SIZE_ERROR),
    "a reset of stream 0": (0, frame(RST_STREAM, 0, 0, b"1234"), PROTOCOL_ERROR),
    "a reset of an idle stream": (0, frame(RST_STREAM, 0, 5, b"1234"), PROTOCOL_ERROR),
    "a reset of a stream of the server's": (1, frame(RST_STREAM, 0, 2, b"1234"), PROTOCOL_ERROR),
    "a window of 3": (0, frame(WINDOW_UPDATE, 0, 0, b"123"), FRAME_SIZE_ERROR),
    "a window of an idle stream": (0, frame(WINDOW_UPDATE, 0, 5, U32(1)), PROTOCOL_ERROR),
    "a window of nothing": (0, frame(WINDOW_UPDATE, 0, 0, U32(0)), PROTOCOL_ERROR),
    "a window that overflows": (0, frame(WINDOW_UPDATE, 0, 0, U32(0x7FFFFFFF)), FLOW_CONTROL_ERROR),
    "a priority of 4": (0, frame(PRIORITY, 0, 1, b"1234"), FRAME_SIZE_ERROR),
    "a priority of stream 0": (0, frame(PRIORITY, 0, 0, b"12345"), PROTOCOL_ERROR),
    "a goodbye of 7": (0, frame(GOAWAY, 0, 0, b"1234567"), FRAME_SIZE_ERROR),
    "a goodbye on a stream": (0, frame(GOAWAY, 0, 1, b"12345678"), PROTOCOL_ERROR),
    "a push": (0, frame(PUSH_PROMISE, END_HEADERS, 1, U32(2)), PROTOCOL_ERROR),
    "a continuation of nothing": (0, frame(CONTINUATION, END_HEADERS, 1, b""), PROTOCOL_ERROR),
    "data on stream 0": (0, frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
    "data on an idle stream": (0, frame(DATA, 0, 5, b"x"), PROTOCOL_ERROR),
    "headers on stream 0": (0, frame(HEADERS, END_HEADERS, 0, b"\x82"), PROTOCOL_ERROR),
    "headers on a stream of the server's": (0, frame(HEADERS, END_HEADERS, 2, b"\x82"), PROTOCOL_ERROR),
    "headers shorter than a priority": (
        0,
        frame(HEADERS, END_HEADERS | WITH_PRIORITY, 1, b"1234"),
        FRAME_SIZE_ERROR,
    ),
    "headers of padding": (0, frame(HEADERS, END_HEADERS | PADDED, 1, b"\x05\x82"), PROTOCOL_ERROR),
    "no header field has that index": (0, frame(HEADERS, END_HEADERS, 1, b"\xff\x00"), COMPRESSION_ERROR),
    "a wrong Huffman code": (0, frame(HEADERS, END_HEADERS, 1, b"\x00\x81\x00\x00"), COMPRESSION_ERROR),
    "a block interrupted": (
        0,
        frame(HEADERS, 0, 1, b"\x82") + frame(PING, 0, 0, b"12345678"),
        PROTOCOL_ERROR,
    ),
    "a block interrupted by another": (
        0,
        frame(HEADERS, 0, 1, b"\x82") + frame(CONTINUATION, END_HEADERS, 3, b""),
        PROTOCOL_ERROR,
    ),
    "data of padding": (1, frame(DATA, PADDED, 1, b"\x05abc"), PROTOCOL_ERROR),
    "data of no padding length": (1, frame(DATA, PADDED, 1, b""), PROTOCOL_ERROR),
    "headers twice": (1, frame(HEADERS, END_HEADERS, 1, b"\x82"), PROTOCOL_ERROR),
    "data after the end": (2, frame(DATA, 0, 1, b"x"), STREAM_CLOSED),
    "the end twice": (2, frame(DATA, END_STREAM, 1, message(b"")), STREAM_CLOSED),
    "headers after the end": (2, frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x82"), STREAM_CLOSED),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_frame_that_breaks_the_protocol_ends_the_connection_with_its_code(wrong: str) -> None:
    """1: a unary call is open; 2: it has come whole and waits for its answer."""
    state, data, code = WRONG[wrong]
    client = RawClient(greet=state is not None)
    if state == 1:
        client.open()
    elif state == 2:
        client.call(b"once")
    client.send(data)
    ended = client.ended()
    assert ended is not None
    assert ended[0] == code
    assert ended[1]
    assert len(client.handed_over) == (state == 2)
    assert not client.core.streams
    client.send(frame(PING, 0, 0, b"12345678"))
    assert client.got() == []


def test_a_window_of_a_stream_that_overflows_or_is_nothing_costs_the_stream() -> None:
    client = RawClient()
    for more, code in ((0x7FFFFFFF, FLOW_CONTROL_ERROR), (0, PROTOCOL_ERROR)):
        for path in (STREAM, b"/t.T/Unary"):
            number = client.open(path=path)
            client.window(number, more)
            (told,) = client.got()
            assert (told.stream, told.code) == (number, code)
    assert client.ended() is None
    assert not client.core.streams


def test_the_end_twice_never_carries_a_call_out_twice() -> None:
    client = RawClient()
    block = client.block()
    client.send(
        frame(HEADERS, END_HEADERS, 1, block)
        + frame(DATA, END_STREAM, 1, message(b"once"))
        + frame(DATA, END_STREAM, 1, message(b"twice"))
    )
    assert client.ended() == (STREAM_CLOSED, "data after the end of a stream")
    assert not client.handed_over


def test_random_octets_after_the_preface_end_in_an_error_or_wait_for_more() -> None:
    rng = random.Random(5)
    for _ in range(300):
        client = RawClient()
        for _ in range(rng.randrange(1, 6)):
            client.send(rng.randbytes(rng.randrange(1, 200)))
        client.got()
