"""Put, DeleteRange, Range: revisions, options, refusals (one fact of the etcd API per test)."""

import asyncio
from typing import Any

import pytest

from connect_kv.errors import Refused
from connect_kv.kv.machine import STREAM_CHUNK_BYTES
from connect_kv.rpc.command_pb2 import Command
from connect_kv.rpc.kv_pb2 import KeyValue, PutRequest, RangeRequest, ResponseHeader
from tests.kv.conftest import Kv

ALL = (b"\0", b"\0")


async def test_a_fresh_store_is_at_revision_one_and_the_first_put_makes_two(kv: Kv) -> None:
    assert (await kv.get(b"a")).header.revision == 1
    assert kv.put(b"a", b"1").header.revision == 2


async def test_versions_count_within_one_life_of_a_key(kv: Kv) -> None:
    kv.put(b"a", b"1")
    kv.put(b"a", b"2")
    kv.delete(b"a")
    kv.put(b"a", b"3")
    kv.put(b"a", b"4")
    assert list((await kv.get(b"a")).kvs) == [
        KeyValue(key=b"a", value=b"4", create_revision=5, mod_revision=6, version=2)
    ]


async def test_deleting_nothing_makes_no_revision(kv: Kv) -> None:
    kv.put(b"a")
    assert kv.delete(b"b", b"c") == 0
    assert (await kv.get(b"a")).header.revision == 2


async def test_a_read_of_the_past_carries_the_current_revision(kv: Kv) -> None:
    for value in (b"1", b"2", b"3"):
        kv.put(b"a", value)
    response = await kv.get(b"a", revision=3)
    assert response.header.revision == 4
    assert response.kvs[0].value == b"2"


async def test_count_ignores_limit_and_filters(kv: Kv) -> None:
    for key in (b"a", b"b", b"c", b"d"):
        kv.put(key)
    limited = await kv.get(*ALL, limit=2)
    assert ([item.key for item in limited.kvs], limited.more, limited.count) == ([b"a", b"b"], True, 4)
    filtered = await kv.get(*ALL, min_mod_revision=3, max_mod_revision=4)
    assert ([item.key for item in filtered.kvs], filtered.more, filtered.count) == ([b"b", b"c"], False, 4)
    both = await kv.get(*ALL, min_create_revision=3, limit=2)
    assert ([item.key for item in both.kvs], both.more, both.count) == ([b"b", b"c"], True, 4)


async def test_count_only_has_no_keys_and_no_more(kv: Kv) -> None:
    for key in (b"a", b"b", b"c"):
        kv.put(key)
    response = await kv.get(*ALL, count_only=True, limit=1)
    assert (list(response.kvs), response.more, response.count) == ([], False, 3)
    assert (await kv.get(b"a", b"c", count_only=True, revision=2)).count == 1


async def test_keys_only_keeps_everything_but_the_value(kv: Kv) -> None:
    kv.grant(7)
    kv.put(b"a", b"value", lease=7)
    response = await kv.get(b"a", keys_only=True)
    assert list(response.kvs) == [KeyValue(key=b"a", create_revision=2, mod_revision=2, version=1, lease=7)]


@pytest.mark.parametrize(
    ("target", "order", "keys"),
    [
        ("KEY", "DESCEND", [b"c", b"b", b"a"]),
        ("VERSION", "ASCEND", [b"b", b"c", b"a"]),
        ("VERSION", "DESCEND", [b"a", b"b", b"c"]),
        ("CREATE", "DESCEND", [b"c", b"b", b"a"]),
        ("MOD", "NONE", [b"b", b"c", b"a"]),
        ("VALUE", "ASCEND", [b"c", b"b", b"a"]),
    ],
)
async def test_sorting(kv: Kv, target: str, order: str, keys: list[bytes]) -> None:
    kv.put(b"a", b"x")
    kv.put(b"b", b"y")
    kv.put(b"c", b"x")
    kv.put(b"a", b"z")
    request = RangeRequest(
        key=b"\0",
        range_end=b"\0",
        sort_order=RangeRequest.SortOrder.Value(order),
        sort_target=RangeRequest.SortTarget.Value(target),
    )
    assert [item.key for item in (await kv.machine.range(request)).kvs] == keys


async def test_ignored_value_and_lease_are_kept(kv: Kv) -> None:
    kv.grant(7)
    kv.put(b"a", b"value", lease=7)
    kv.put(b"a", ignore_value=True)
    assert (await kv.get(b"a")).kvs[0].value == b"value"
    assert (await kv.get(b"a")).kvs[0].lease == 0, "no lease given detaches"
    kv.put(b"a", b"other", lease=7)
    kv.put(b"a", b"third", ignore_lease=True)
    assert (await kv.get(b"a")).kvs[0].lease == 7


async def test_prev_kv_is_the_whole_old_record(kv: Kv) -> None:
    assert not kv.put(b"a", b"1", prev_kv=True).HasField("prev_kv")
    assert kv.put(b"a", b"2", prev_kv=True).prev_kv == KeyValue(
        key=b"a", value=b"1", create_revision=2, mod_revision=2, version=1
    )


async def test_compaction_refuses_the_past_at_once(kv: Kv) -> None:
    for value in (b"1", b"2", b"3"):
        kv.put(b"a", value)
    assert kv.compact(3).compact.header.revision == 4
    assert (await kv.get(b"a", revision=3)).kvs[0].value == b"2"
    with pytest.raises(Refused, match="etcdserver: mvcc: required revision has been compacted") as refused:
        await kv.get(b"a", revision=2)
    assert refused.value.code == 11
    with pytest.raises(Refused, match="etcdserver: mvcc: required revision is a future revision"):
        await kv.get(b"a", revision=5)


@pytest.mark.parametrize(("revision", "text"), [(2, "has been compacted"), (5, "is a future revision")])
async def test_compacting_backwards_or_ahead_is_refused(kv: Kv, revision: int, text: str) -> None:
    for _ in range(3):
        kv.put(b"a")
    kv.compact(2)
    failure = kv.compact(revision).failure
    assert failure.code == 11
    assert failure.message == f"etcdserver: mvcc: required revision {text}"


async def test_put_with_an_unknown_lease_writes_nothing(kv: Kv) -> None:

    failure = kv.apply(Command(put=PutRequest(key=b"a", lease=9)))[0].failure
    assert (failure.code, failure.message) == (5, "etcdserver: requested lease not found")
    assert (await kv.get(b"a")).header.revision == 1


async def test_keys_with_zero_bytes_keep_their_order_and_history(kv: Kv) -> None:
    keys = [b"a", b"a\0", b"a\0\0", b"a\0\xff", b"a\1", b"b"]
    for key in reversed(keys):
        kv.put(key)
    for key in keys:
        kv.put(key, b"new")
    assert [item.key for item in (await kv.get(*ALL, revision=7)).kvs] == keys
    assert [item.key for item in (await kv.get(b"a\0", b"a\1", revision=7)).kvs] == keys[1:4]


async def test_an_inverted_range_is_empty(kv: Kv) -> None:
    kv.put(b"a")
    kv.put(b"b")
    assert (await kv.get(b"b", b"a")).count == 0
    assert (await kv.get(b"b", b"a", revision=2, count_only=True)).count == 0
    assert kv.delete(b"b", b"a") == 0


async def test_everything_survives_a_restart(kv: Kv) -> None:
    kv.put(b"a", b"1")
    kv.put(b"a", b"2")
    kv.compact(2)
    before = (await kv.get(*ALL)).SerializeToString()
    kv.restart()
    assert (await kv.get(*ALL)).SerializeToString() == before
    assert kv.machine.compact_revision == 2
    assert kv.put(b"a").header.revision == 4


async def test_a_stream_of_chunks_merges_to_the_plain_answer(kv: Kv) -> None:
    for number in range(3000):
        kv.put(b"%05d" % number, b"v" * 900)
    request = RangeRequest(key=b"\0", range_end=b"\0", limit=2500)
    chunks = [chunk async for chunk in kv.machine.range_stream(request)]
    merged = type(chunks[0])()
    for chunk in chunks:
        merged.MergeFrom(chunk)
    assert len(chunks) > 2
    assert not any(chunk.range_response.HasField("header") for chunk in chunks[:-1])
    assert merged.range_response == await kv.machine.range(request)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sort_order": RangeRequest.ASCEND},
        {"sort_target": RangeRequest.VERSION},
        {"sort_target": RangeRequest.VALUE, "limit": 5},
        {"keys_only": True},
        {"count_only": True},
    ],
)
async def test_no_chunk_is_larger_than_any_client_takes(kv: Kv, options: dict[str, Any]) -> None:
    for number in range(12):
        kv.put(b"%02d" % (number * 7 % 12), b"%d" % number * 400_000)
        kv.put(b"0%d" % (number % 3), b"again")
    request = RangeRequest(key=b"\0", range_end=b"\0", **options)
    chunks = [chunk async for chunk in kv.machine.range_stream(request)]
    for chunk in chunks:
        assert chunk.ByteSize() <= STREAM_CHUNK_BYTES or len(chunk.range_response.kvs) == 1
    merged = type(chunks[0])()
    for chunk in chunks:
        merged.MergeFrom(chunk)
    assert merged.range_response == await kv.machine.range(request)


async def test_an_encoded_answer_is_the_plain_answer_with_the_header(kv: Kv) -> None:
    for number in range(600):
        kv.put(b"%05d" % number, b"v" * number)
    request = RangeRequest(key=b"\0", range_end=b"\0", limit=500)
    expected = await kv.machine.range(request)
    expected.header.cluster_id = 9
    encoded = await kv.machine.range_encoded(request, ResponseHeader(cluster_id=9))
    assert type(expected).FromString(encoded) == expected


async def test_a_long_read_lets_others_run_and_sees_one_state(kv: Kv) -> None:

    for number in range(2000):
        kv.put(b"%05d" % number)
    read = asyncio.ensure_future(kv.get(*ALL))
    await asyncio.sleep(0)
    assert not read.done()
    kv.delete(*ALL)
    assert len((await read).kvs) == 2000
    assert (await kv.get(*ALL)).count == 0
