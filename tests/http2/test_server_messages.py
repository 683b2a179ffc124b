"""The server's side of a connection: messages in many frames, too many, too large, compressed."""

from __future__ import annotations

import gzip
import struct
import zlib

import pytest

from connect_kv.http2.frames import (
    DATA,
    END_STREAM,
    HEADERS,
    frame,
)
from connect_kv.http2.limits import Limits
from tests.http2.wire import (
    Feed,
    RawClient,
    at_once,
    message,
    octet_by_octet,
)


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
