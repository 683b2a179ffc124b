"""The server's side of a connection: pings, padding, refusals, and answers that fail."""

from __future__ import annotations

import struct

import pytest

from connect_kv.http2.frames import (
    ACK,
    CANCEL,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    REFUSED_STREAM,
    RST_STREAM,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    frame,
    settings,
)
from connect_kv.http2.limits import Limits
from tests.http2.wire import (
    STREAM,
    Frame,
    RawClient,
    message,
)


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
