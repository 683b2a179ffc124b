"""Time passes: deadlines, signs of life, greetings that do not come, and the two steps of leaving."""

from __future__ import annotations

import math

import pytest

from connect_kv.http2.frames import (
    ACK,
    DATA,
    GOAWAY,
    HEADERS,
    LAST_STREAM,
    NO_ERROR,
    PING,
    PREFACE,
    RST_STREAM,
    frame,
    settings,
)
from connect_kv.http2.limits import Limits
from connect_kv.http2.metadata import format_timeout, parse_timeout
from tests.http2.wire import STREAM, Frame, RawClient, message


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"1H", 3600),
        (b"2M", 120),
        (b"3S", 3),
        (b"99999999m", 99_999.999),
        (b"5u", 5e-6),
        (b"0n", 0),
        (b"", None),
        (b"S", None),
        (b"1", None),
        (b"123456789S", None),
        (b"-1S", None),
        (b"1.5S", None),
        (b"1s", None),
        (b"\xd9\xa1S", None),  # a digit of another script
    ],
)
def test_a_timeout_is_one_to_eight_digits_and_a_unit(value: bytes, seconds: float | None) -> None:
    assert parse_timeout(value) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("seconds", [0.0, 1e-6, 0.25, 1.5, 99.9, 100.1, 3600.0, 1e6, 1e9, 1e12])
def test_a_timeout_that_is_written_is_at_least_as_long(seconds: float) -> None:
    written = parse_timeout(format_timeout(seconds))
    assert written is not None
    assert seconds <= written * 1.000001 <= seconds * 1.01 + 61 or seconds == 1e12


def test_a_unary_call_ends_at_its_deadline_and_its_late_answer_is_dropped() -> None:
    client = RawClient()
    client.call(b"", ("grpc-timeout", "500m"))
    client.call(b"")
    late, other = client.handed_over
    assert late.deadline == client.now + 0.5
    assert client.core.next_time() == client.now + 0.5
    client.tick(client.now + 0.49)
    assert client.got() == []
    client.tick(client.now + 0.02)
    assert client.status() == (4, "context deadline exceeded")
    assert late.gone()
    assert not other.gone()
    late.reply(b"")
    assert client.got() == []
    assert client.core.next_time() > client.now + 60


def test_a_streams_handler_is_told_at_its_deadline_also_while_the_window_is_closed() -> None:
    client = RawClient()
    client.send(settings({4: 0}))
    client.open(("grpc-timeout", "1S"), path=STREAM)
    (call,) = client.begun
    told: list[bool] = []
    client.core.notify(call, lambda: told.append(call.gone()))
    client.core.send(call, b"v" * 100)
    client.core.finish(call)
    client.got()
    client.tick(client.now + 1)
    assert told == [True]
    assert client.status() == (4, "context deadline exceeded")
    assert client.core.next_time() > client.now
    assert client.turn.waiting == 0


def test_a_call_answered_in_time_leaves_nothing_to_look_after() -> None:
    client = RawClient(answer=True)
    for _ in range(100):
        client.call(b"", ("grpc-timeout", "5S"))
    assert not client.core._timed
    client.tick(client.now + 5)
    assert client.core.soonest == math.inf


def test_a_call_whose_request_never_ends_ends_at_its_deadline() -> None:
    client = RawClient()
    number = client.open(("grpc-timeout", "1S"))
    client.data(number, message(b"v" * 100)[:50], end=False)
    client.tick(client.now + 1)
    assert client.status()[0] == 4
    assert client.turn.held == 0


def test_a_call_past_its_deadline_in_the_same_turn_is_not_handed_over() -> None:
    client = RawClient()
    block = client.block(("grpc-timeout", "1S"))
    client.core.receive(frame(HEADERS, 4, 1, block) + frame(DATA, 1, 1, message(b"")), client.now)
    client.tick(client.now + 1)
    assert client.turn.take() == []


def test_a_client_that_says_nothing_is_asked_for_a_sign_of_life_and_then_left() -> None:
    client = RawClient(Limits(keepalive=10, keepalive_timeout=3))
    client.tick(client.now + 9)
    assert client.got() == []
    client.tick(client.now + 1)
    (ping,) = client.got()
    assert (ping.kind, ping.flags) == (PING, 0)
    client.tick(client.now + 2)
    client.frame(PING, ACK, 0, ping.payload)
    assert client.core.next_time() == client.now + 10
    client.tick(client.now + 10)
    assert [one.kind for one in client.got()] == [PING]
    client.tick(client.now + 3)
    assert client.ended() == (NO_ERROR, "keepalive timeout: the peer gives no sign of life")


@pytest.mark.parametrize("sent", [b"", PREFACE[:10], PREFACE, PREFACE + settings({3: 1})[:-1]])
def test_a_client_that_does_not_finish_its_greeting_is_left(sent: bytes) -> None:
    client = RawClient(Limits(handshake=5), greet=False)
    for octet in sent:
        client.send(bytes((octet,)))
        client.now += 0.01
    client.tick(105.01)
    assert client.ended() == (NO_ERROR, "the connection was not greeted in time")


def test_a_frame_an_octet_at_a_time_is_given_its_time_and_no_more() -> None:
    client = RawClient(Limits(partial=60))
    data = frame(DATA, 0, client.open(path=STREAM), message(b"v" * 200))
    for octet in data[:100]:
        client.now += 1
        client.send(bytes((octet,)))
        client.tick(client.now)
        if client.core.closing:
            break
    assert client.ended() == (NO_ERROR, "the rest of a frame did not come in time")


def test_many_frames_cut_anywhere_are_no_frame_that_does_not_end() -> None:
    client = RawClient(Limits(partial=60, stream_window=1 << 20))
    data = frame(DATA, 0, client.open(path=STREAM), message(b"v" * 200)) * 100
    for at in range(0, len(data), 150):
        client.now += 10
        client.send(data[at : at + 150])
        client.tick(client.now)
    assert client.ended() is None


def test_a_client_that_reads_nothing_is_left_after_its_time() -> None:
    client = RawClient(Limits(unread=300))
    client.core.pause(client.now)
    client.tick(client.now + 299)
    assert not client.core.closing
    client.tick(client.now + 1)
    assert client.ended() == (NO_ERROR, "the peer does not read")


def test_an_idle_connection_is_left_politely_if_that_is_wanted() -> None:
    client = RawClient(Limits(idle=60), answer=True)
    client.now += 50
    client.call(b"")
    client.got()
    client.tick(client.now + 59)
    assert client.got() == []
    client.tick(client.now + 1)
    goodbye, ping = client.got()
    assert (goodbye.kind, goodbye.number) == (GOAWAY, LAST_STREAM)
    client.frame(PING, ACK, 0, ping.payload)
    assert client.core.done


def test_one_with_a_watch_is_not_idle() -> None:
    client = RawClient(Limits(idle=60))
    client.open(path=STREAM)
    client.tick(client.now + 61)
    assert client.got() == []


def test_nothing_is_due_on_an_idle_connection_for_two_hours() -> None:
    client = RawClient()
    assert client.core.next_time() == client.now + 7200


# Leaving.


def drained(client: RawClient) -> Frame:
    client.core.drain()
    goodbye, ping = client.got()
    assert (goodbye.kind, goodbye.number, goodbye.code) == (GOAWAY, LAST_STREAM, NO_ERROR)
    assert ping.kind == PING
    return ping


def test_a_server_leaves_in_two_steps_and_answers_what_was_under_way() -> None:
    client = RawClient()
    client.call(b"before")
    ping = drained(client)
    client.call(b"under way")
    assert len(client.handed_over) == 2
    client.frame(PING, ACK, 0, ping.payload)
    (goodbye,) = client.got()
    assert (goodbye.kind, goodbye.number, goodbye.code) == (GOAWAY, 3, NO_ERROR)
    client.call(b"too late")
    client.open(path=STREAM)
    assert len(client.handed_over) == 2
    assert client.got() == []
    client.reset(7)
    client.frame(GOAWAY, 0, 0, bytes(8))
    assert client.ended() is None
    for call in client.handed_over:
        assert not client.core.done
        call.reply(b"")
    assert len([one for one in client.got() if one.kind == DATA]) == 2
    assert client.core.done


def test_a_client_that_does_not_answer_the_ping_gets_the_second_goodbye_in_time() -> None:
    client = RawClient(Limits(drain=1))
    drained(client)
    assert client.core.next_time() == client.now + 1
    client.tick(client.now + 1)
    assert [one.number for one in client.got()] == [0]
    assert client.core.done


def test_who_was_not_greeted_yet_is_told_at_once() -> None:
    client = RawClient(greet=False)
    client.core.drain()
    assert client.ended() == (NO_ERROR, "the server stops")


def test_draining_twice_says_goodbye_once() -> None:
    client = RawClient()
    drained(client)
    client.core.drain()
    assert client.got() == []


def test_a_lost_connection_tells_everybody() -> None:
    client = RawClient()
    client.call(b"")
    number = client.open(path=STREAM)
    (call,) = client.begun
    told: list[bool] = []
    client.core.notify(call, lambda: told.append(call.gone()))
    client.data(number, message(b"v") * 3, end=False)
    client.core.lost("gone")
    assert told[-1]
    assert client.handed_over[0].gone()
    assert client.turn.held == 0
    call.fail(5, "x")
    assert RST_STREAM not in [one.kind for one in client.got()]
