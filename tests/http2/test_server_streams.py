"""The server's side of a connection: streams, and windows on both sides."""

from __future__ import annotations

from connect_kv.http2.frames import (
    DATA,
    END_STREAM,
    HEADERS,
    NO_ERROR,
    RST_STREAM,
    WINDOW_UPDATE,
    settings,
)
from connect_kv.http2.limits import Limits
from tests.http2.wire import (
    STREAM,
    RawClient,
    message,
)


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
