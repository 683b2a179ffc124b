"""The short way to read one key says what the long one says."""

from __future__ import annotations

import pytest

from connect_kv.kv.gets import is_plain
from connect_kv.rpc.kv_pb2 import RangeRequest, RangeResponse, ResponseHeader
from tests.kv.conftest import Kv


@pytest.mark.parametrize("key", [b"a", b"missing", b"k" * 127, b"k" * 128, b"k" * 20_000, b"\0"])
@pytest.mark.parametrize("serializable", [False, True])
async def test_a_plain_get_is_answered_as_any_range(kv: Kv, key: bytes, serializable: bool) -> None:
    for present in (b"a", b"k" * 127, b"k" * 20_000):
        kv.put(present, b"1")
        kv.put(present, b"2", prev_kv=True)
    request = RangeRequest(key=key, serializable=serializable)
    assert is_plain(request)
    expected = await kv.machine.range(request)
    assert [RangeResponse.FromString(answer) for answer in kv.machine.gets([key])] == [expected]
    expected.header.member_id = 7
    assert (
        RangeResponse.FromString(await kv.machine.range_encoded(request, ResponseHeader(member_id=7)))
        == expected
    )


def test_after_so_many_bytes_no_more_are_read(kv: Kv) -> None:
    for number in range(100):
        kv.put(b"%03d" % number, b"v" * 1000)
    keys = [b"%03d" % number for number in range(100)]
    answers = kv.machine.gets(keys, most=20_000)
    assert 20 <= len(answers) <= 21
    assert answers == kv.machine.gets(keys)[: len(answers)]
    assert len(kv.machine.gets(keys, most=1)) >= 1
    assert kv.machine.gets([], most=1) == []


@pytest.mark.parametrize(
    "request_",
    [
        RangeRequest(key=b"a", range_end=b"b"),
        RangeRequest(key=b"a", limit=1),
        RangeRequest(key=b"a", revision=1),
        RangeRequest(key=b"a", sort_order=RangeRequest.DESCEND),
        RangeRequest(key=b"a", sort_target=RangeRequest.MOD),
        RangeRequest(key=b"a", keys_only=True),
        RangeRequest(key=b"a", count_only=True, serializable=True),
        RangeRequest(key=b"a", min_mod_revision=1),
        RangeRequest(key=b"a", max_create_revision=1),
        RangeRequest(),
    ],
)
def test_every_option_makes_it_another_range(request_: RangeRequest) -> None:
    assert not is_plain(request_)
