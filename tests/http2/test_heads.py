"""Blocks of header fields found by their bytes: always with the meaning that decoding them gives."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import hpack
import pytest

from connect_kv.http2.heads import Heads
from connect_kv.http2.hpack import Field, FieldDecoder

COMMON = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/etcdserverpb.KV/Put"),
    (b":authority", b"127.0.0.1:2379"),
    (b"content-type", b"application/grpc"),
    (b"user-agent", b"grpc-go/1.38.0"),
    (b"te", b"trailers"),
]
TOKEN = (b"token", b"abcdefghijklmnop.17")


@dataclass
class Said:
    fields: list[Field]
    timeout: bytes | None

    def with_timeout(self, value: bytes) -> Said | None:
        if self.timeout is None or not value[:-1].isdigit():
            return None
        return Said(self.fields, value)


class Reader:
    """Counts how often it had to decode."""

    def __init__(self) -> None:
        self.decoded = 0
        self.heads: Heads[Said] = Heads(FieldDecoder(1 << 16), self._interpret)

    def _interpret(self, fields: list[Field], size: int) -> Said:
        self.decoded += 1
        timeout = dict(fields).get(b"grpc-timeout")
        return Said([one for one in fields if one[0] != b"grpc-timeout"], timeout)

    def read(self, block: bytes) -> tuple[list[Field], bytes | None]:
        said = self.heads.same.get(block) or self.heads.find(block)
        return said.fields, said.timeout


class GoEncoder:
    """Encodes as gRPC-go does: every field is indexed, names are those of the newest entry that has them."""

    def __init__(self) -> None:
        self._encoder = hpack.Encoder()

    def encode(self, fields: list[Field]) -> bytes:
        return bytes(self._encoder.encode(fields, huffman=True))


def call(timeout: int | None, *more: Field, path: bytes = b"/etcdserverpb.KV/Put") -> list[Field]:
    fields: list[Field] = [(name, path) if name == b":path" else (name, value) for name, value in COMMON]
    if timeout is not None:
        fields.append((b"grpc-timeout", b"%du" % timeout))
    return fields + list(more)


def check(reader: Reader, encoder: GoEncoder, fields: list[Field]) -> None:
    got, timeout = reader.read(encoder.encode(fields))
    wanted = dict(fields).get(b"grpc-timeout")
    assert timeout == wanted
    assert got == [one for one in fields if one[0] != b"grpc-timeout"]


def test_equal_calls_are_decoded_until_the_table_holds_them() -> None:
    reader, encoder = Reader(), GoEncoder()
    for _ in range(50):
        check(reader, encoder, call(None))
    assert reader.decoded == 2


@pytest.mark.parametrize("more", [(), (TOKEN,)], ids=["plain", "with a token"])
def test_calls_that_differ_in_their_deadline_are_seldom_decoded(more: tuple[Field, ...]) -> None:
    """Each deadline enters the table and moves all other entries; when it is full, they fall out."""
    reader, encoder = Reader(), GoEncoder()
    for number in range(2000):
        check(reader, encoder, call(4_999_000 - number, *more))
    assert reader.decoded < 700


@pytest.mark.long
def test_any_mixture_of_calls_means_what_decoding_says() -> None:
    rng = random.Random(3)
    for _ in range(30):
        reader, encoder = Reader(), GoEncoder()
        paths = [b"/etcdserverpb.KV/%d" % number for number in range(rng.randrange(1, 6))]
        for _ in range(300):
            timeout = rng.choice([None, rng.randrange(10**7), rng.randrange(10**7), 5000])
            more = rng.choice([(), (), (TOKEN,), ((b"x", b"%d" % rng.randrange(20)),)])
            fields = call(timeout, *more, path=rng.choice(paths))
            if rng.random() < 0.02:
                fields.append((b"long", b"v" * rng.randrange(3000)))
            check(reader, encoder, fields)


def test_a_table_that_shrinks_and_grows_is_followed() -> None:
    rng = random.Random(4)
    reader = Reader()
    encoder: Any = hpack.Encoder()
    for number in range(1000):
        if rng.random() < 0.03:
            encoder.header_table_size = rng.choice([0, 60, 200, 500, 4096])
        fields = call(rng.randrange(10**7) if number % 3 else None, path=b"/%d" % rng.randrange(3))
        got, timeout = reader.read(encoder.encode(fields))
        assert [*got, *([(b"grpc-timeout", timeout)] if timeout else [])] == fields


def test_a_long_value_in_the_place_of_a_deadline_is_not_taken_for_one() -> None:
    """Its last octets look like the indexes that follow a deadline."""
    reader = Reader()
    reader.read(b"\x82\x86\x40\x0cgrpc-timeout\x0212")
    long = b"\x82\x7e\x7f\x01" + b"9" * 126 + b"\xc5\xc6"
    assert len(long) == 4 + 128
    reader.read(long)
    fields, timeout = reader.read(b"\x82\x7e\x0212\x86")
    assert fields == [(b":method", b"GET"), (b":scheme", b"http")]
    assert timeout == b"12"
