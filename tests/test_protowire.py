"""What is written octet by octet is what the protobuf library writes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_kv.protowire import field, read_varint, tag, varint
from connect_kv.rpc.kv_pb2 import PutRequest

EDGES = [0, 1, 0x7F, 0x80, 0x3FFF, 0x4000, 0x1FFFFF, 0x200000, 1 << 62, (1 << 63) - 1]


@pytest.mark.parametrize("number", EDGES)
def test_a_number_is_encoded_as_the_library_does(number: int) -> None:
    encoded = varint(number)
    assert tag(PutRequest.KEY_FIELD_NUMBER) == b"\x0a"
    assert PutRequest.FromString(b"\x18" + encoded).lease == number
    assert read_varint(encoded, 0) == (number, len(encoded))


@given(st.integers(0, (1 << 64) - 1), st.binary(max_size=8))
def test_a_number_is_read_back_wherever_it_stands(number: int, before: bytes) -> None:
    assert read_varint(before + varint(number) + b"x", len(before)) == (number, len(before + varint(number)))


@given(st.binary(max_size=300))
def test_a_field_is_read_by_the_library(content: bytes) -> None:
    assert PutRequest.FromString(field(tag(PutRequest.VALUE_FIELD_NUMBER), content)).value == content


def test_a_number_that_does_not_end_is_refused() -> None:
    with pytest.raises(IndexError):
        read_varint(b"\x80\x80", 0)
    with pytest.raises(ValueError, match="64 bits"):
        read_varint(b"\x80" * 11, 0)
