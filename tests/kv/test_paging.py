"""A large range read page by page: every page has the count of its range, and only the first is counted."""

from __future__ import annotations

import pytest

from connect_kv.kv import scan
from connect_kv.kv.layout import StoreState
from connect_kv.kv.range_counts import RangeCounts
from connect_kv.rpc.kv_pb2 import RangeRequest, RangeResponse
from connect_kv.storage.engine import Reader
from tests.kv.conftest import Kv

KEYS = 50
LIMIT = 7


async def pages(kv: Kv, *, revision: int = 0, write_between: bool = False) -> list[RangeResponse]:
    found = []
    start = b"k"
    while True:
        page = await kv.get(start, b"l", limit=LIMIT, revision=revision)
        found.append(page)
        if not page.more:
            return found
        start = page.kvs[-1].key + b"\0"
        if write_between:
            kv.delete(b"k%03d" % (KEYS - len(found)))


def fill(kv: Kv) -> int:
    for number in range(KEYS):
        kv.put(b"k%03d" % number)
    kv.put(b"other")
    return kv.machine.revision


@pytest.mark.parametrize("pinned", [False, True])
async def test_each_page_counts_what_is_from_its_start_on(kv: Kv, pinned: bool) -> None:
    revision = fill(kv)
    found = await pages(kv, revision=revision if pinned else 0, write_between=pinned)
    assert [page.count for page in found] == list(range(KEYS, 0, -LIMIT))
    assert sum(len(page.kvs) for page in found) == KEYS


async def test_a_write_between_pages_is_counted(kv: Kv) -> None:
    fill(kv)
    found = await pages(kv, write_between=True)
    assert [page.count for page in found] == [KEYS - number * (LIMIT + 1) for number in range(len(found))]


async def test_only_the_first_page_is_counted(kv: Kv, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(kv)
    counted: list[bytes] = []
    real = RangeCounts.count

    def count(
        range_counts: RangeCounts, reader: Reader, key: bytes, range_end: bytes, state: StoreState
    ) -> scan.Walk[int]:
        counted.append(key)
        return real(range_counts, reader, key, range_end, state)

    monkeypatch.setattr(RangeCounts, "count", count)
    assert len(await pages(kv)) == 8
    assert counted == [b"k"]


async def test_pages_from_the_end_are_counted_anew(kv: Kv) -> None:
    fill(kv)
    order = RangeRequest.DESCEND
    last = await kv.get(b"k", b"l", limit=LIMIT, sort_order=order)
    before = await kv.get(b"k", last.kvs[-1].key, limit=LIMIT, sort_order=order)
    assert (last.count, before.count) == (KEYS, KEYS - LIMIT)
    assert (await kv.get(last.kvs[-1].key + b"\0", b"l")).count == LIMIT - 1
