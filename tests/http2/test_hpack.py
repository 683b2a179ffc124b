"""Header fields: decoded like the examples of RFC 7541 and like the package hpack, or refused."""

from __future__ import annotations

import random

import hpack as oracle
import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.table import HeaderTable
from hypothesis import given, settings
from hypothesis import strategies as st

from connect_kv.http2 import huffman
from connect_kv.http2.hpack import STATIC, FieldDecoder, FieldEncoder, FieldError, TooLong, literal

ENCODER = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
LONGEST = 64 << 10


def run(examples: int) -> settings:
    """So many inputs, always the same."""
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None)


def decode(*blocks: str) -> list[list[tuple[bytes, bytes]]]:
    decoder = FieldDecoder(LONGEST)
    return [decoder.decode(bytes.fromhex(block))[0] for block in blocks]


def test_the_static_table_is_the_rfcs() -> None:
    assert list(STATIC) == [(bytes(name), bytes(value)) for name, value in HeaderTable.STATIC_TABLE]


def test_requests_without_huffman_as_in_appendix_c_3() -> None:
    first = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"www.example.com"),
    ]
    assert decode(
        "828684410f7777772e6578616d706c652e636f6d",
        "828684be58086e6f2d6361636865",
        "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
    ) == [
        first,
        [*first, (b"cache-control", b"no-cache")],
        [
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":path", b"/index.html"),
            (b":authority", b"www.example.com"),
            (b"custom-key", b"custom-value"),
        ],
    ]


def test_requests_with_huffman_as_in_appendix_c_4() -> None:
    first, second = decode("828684418cf1e3c2e5f23a6ba0ab90f4ff", "828684be5886a8eb10649cbf")
    assert first[-1] == (b":authority", b"www.example.com")
    assert second[-2:] == [(b":authority", b"www.example.com"), (b"cache-control", b"no-cache")]


@run(100)
@given(st.binary(max_size=300))
def test_huffman_of_any_octets(text: bytes) -> None:
    assert huffman.decode(bytes(ENCODER.encode(text))) == text


@run(100)
@given(st.binary(max_size=40))
def test_huffman_of_nonsense_is_refused_as_the_other_decoder_does(data: bytes) -> None:
    try:
        wanted: bytes | None = bytes(oracle.huffman_table.decode_huffman(data))
    except oracle.HPACKDecodingError:
        wanted = None
    try:
        got: bytes | None = huffman.decode(data)
    except ValueError:
        got = None
    assert got == wanted


NAMES = (b":path", b"grpc-timeout", b"user-agent", b"x", b"te", b"long" * 30)
FIELDS = st.tuples(st.integers(0, len(NAMES) - 1), st.binary(max_size=20), st.sampled_from([0, 0, 0, 1, 210]))
"""Which name, and a value that is repeated so often beyond once."""


@run(80)
@given(
    st.lists(
        st.tuples(st.lists(FIELDS, max_size=8), st.booleans(), st.none() | st.integers(0, 4096)), max_size=12
    )
)
def test_what_another_encoder_makes_is_decoded(
    blocks: list[tuple[list[tuple[int, bytes, int]], bool, int | None]],
) -> None:
    encoder, decoder = oracle.Encoder(), FieldDecoder(1 << 20)
    for chosen, coded, size in blocks:
        if size is not None:
            encoder.header_table_size = size
        fields = [(NAMES[name], value * (1 + times)) for name, value, times in chosen]
        assert decoder.decode(encoder.encode(fields, huffman=coded))[0] == fields


@run(300)
@given(st.lists(st.binary(max_size=40), max_size=6))
def test_blocks_of_any_octets_mean_the_same_to_another_decoder(blocks: list[bytes]) -> None:
    theirs, ours = oracle.Decoder(max_header_list_size=1 << 20), FieldDecoder(1 << 20)
    for block in blocks:
        try:
            wanted = [(bytes(name), bytes(value)) for name, value in theirs.decode(block, raw=True)]
        except oracle.HPACKError:
            with pytest.raises(FieldError):
                ours.decode(block)
            return
        assert ours.decode(block)[0] == wanted


@pytest.mark.parametrize(
    "block",
    {
        "index 0": "80",
        "no such entry": "be",
        "an index that never ends": "ff" + "ff" * 20,
        "a name that is cut off": "4005616263",
        "a value that is cut off": "400161",
        "a size amid fields": "8220",
        "too large a table": "3fe21f",
        "the end of a string within it": "400161" + "84ffffffff",
        "padding that is not ones": "400161" + "8100",
        "eight bits of padding": "400161" + "821fff",
    }.values(),
)
def test_a_block_that_no_encoder_makes_is_refused(block: str) -> None:
    with pytest.raises(FieldError):
        decode(block)


def test_changes_are_counted_only_where_the_table_changes() -> None:
    decoder = FieldDecoder(LONGEST)
    decoder.decode(b"\x82\x86" + literal(b"a", b"b"))
    assert decoder.changes == 0
    decoder.decode(b"\x40\x01a\x01b")
    assert decoder.changes == 1
    decoder.decode(b"\x20")
    changes = decoder.changes
    decoder.decode(b"\x40\x01a\x01b")  # into a table of nothing
    assert decoder.changes == changes


def test_a_list_above_the_limit_is_read_but_not_kept_and_the_table_is_right_afterwards() -> None:
    """One large entry, named several times by an octet each; far more of it is nobody's metadata."""
    decoder = FieldDecoder(LONGEST)
    decoder.decode(b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4000)
    fields, total = decoder.decode(b"\xbe" * 50 + b"\x40\x01b\x01c")
    assert total > 200_000
    assert sum(len(name) + len(value) for name, value in fields) < LONGEST
    assert decoder.decode(b"\xbe")[0] == [(b"b", b"c")]
    with pytest.raises(TooLong):
        decoder.decode(b"\xbf" * 100)


def test_an_encoders_table_is_never_overfilled() -> None:
    encoder, theirs = FieldEncoder(), oracle.Decoder()
    rng = random.Random(1)
    fields = [(b"name-%d" % number, b"v" * rng.randrange(200)) for number in range(60)]
    for round_ in range(100):
        some = rng.sample(fields, 5)
        if round_ == 70:
            encoder.forget()
        block = encoder.encode(some, literal(b"last", b"x"))
        assert [(bytes(n), bytes(v)) for n, v in theirs.decode(block, raw=True)] == [*some, (b"last", b"x")]
    assert theirs.header_table_size == 0
