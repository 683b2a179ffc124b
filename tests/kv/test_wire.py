"""What is told of a request by its bytes alone is what decoding it would tell."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connect_kv.kv.wire import is_plain_put, key_of_plain_get
from connect_kv.protowire import field, tag, varint
from connect_kv.rpc.kv_pb2 import PutRequest, RangeRequest

KEYS = st.one_of(st.binary(max_size=4), st.sampled_from([b"k" * 127, b"k" * 128, b"k" * 300]))
VALUES = st.one_of(st.binary(max_size=4), st.sampled_from([b"v" * size for size in (127, 128, 16383, 16384)]))
BYTES = st.lists(
    st.one_of(
        st.builds(lambda key: field(tag(1), key), KEYS),
        st.builds(lambda value: field(tag(2), value), VALUES),
        st.builds(lambda number: varint(3 << 3) + varint(number), st.integers(0, 3)),
        st.sampled_from([b"\x0a", b"\x12\x80\x00", b"\x12\x81\x00v", b"\x12" + b"\xff" * 9]),
        st.binary(max_size=3),
    ),
    max_size=4,
).map(b"".join)


@given(BYTES)
@example(b"\x0a\x01k\x12\x00")
@example(b"\x0a\x81\x00k")
def test_a_plain_put_is_what_an_encoder_would_write_of_a_key_and_a_value(encoded: bytes) -> None:
    if is_plain_put(encoded):
        request = PutRequest.FromString(encoded)
        assert request.key
        assert PutRequest(key=request.key, value=request.value).SerializeToString() == encoded


@given(BYTES)
def test_a_plain_get_has_a_key_and_nothing_else(encoded: bytes) -> None:
    key = key_of_plain_get(encoded)
    if key is not None:
        assert RangeRequest.FromString(encoded) == RangeRequest(key=key)
        assert key


@pytest.mark.parametrize("size", [1, 127])
@pytest.mark.parametrize("value", [0, 1, 127, 128, 16383, 16384, 1 << 21])
def test_usual_ones_are_recognised(size: int, value: int) -> None:
    put = PutRequest(key=b"k" * size, value=b"v" * value)
    assert is_plain_put(put.SerializeToString())
    put.lease = 1
    assert not is_plain_put(put.SerializeToString())
    get = RangeRequest(key=put.key)
    assert key_of_plain_get(get.SerializeToString()) == put.key
    get.serializable = True
    assert key_of_plain_get(get.SerializeToString()) is None
