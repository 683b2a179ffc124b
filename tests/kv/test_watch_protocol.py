"""Watches by etcd's protocol: creating, ids, refusals, cancelling."""

import pytest

from connect_kv.rpc.watch_pb2 import WatchCancelRequest, WatchRequest
from tests.kv.conftest import Client, Kv


async def test_ids_start_at_zero_and_skip_those_in_use(kv: Kv, client: Client) -> None:
    client.create()
    client.create(watch_id=2)
    client.create()
    client.create()
    assert [response.watch_id for response in await client.responses()] == [0, 2, 1, 3]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"key": b"b", "range_end": b"a"}, "mvcc: watcher range is empty"),
        ({"key": b"b", "range_end": b"b"}, "mvcc: watcher range is empty"),
        ({"watch_id": 5}, "mvcc: duplicate watch ID provided on the WatchStream"),
        ({"start_revision": -1}, "etcdserver: mvcc: required revision has been compacted"),
    ],
)
async def test_refusals(kv: Kv, client: Client, options: dict[str, object], reason: str) -> None:
    client.create(watch_id=5)
    client.create(**options)  # type: ignore[arg-type]
    kv.put(b"a")
    first, refused, event = await client.responses()
    assert (refused.created, refused.canceled, refused.watch_id) == (True, True, -1)
    assert refused.cancel_reason == reason
    assert refused.header.revision == 1
    assert event.watch_id == first.watch_id, "the stream lives on"


async def test_an_empty_key_watches_from_the_first(kv: Kv, client: Client) -> None:
    client.create(b"", b"\0")
    kv.put(b"\0")
    kv.put(b"z")
    assert [key for _, key, _ in await client.events()] == [b"\0", b"z"]


async def test_a_compacted_start_is_created_first_and_then_cancelled(kv: Kv, client: Client) -> None:
    for _ in range(5):
        kv.put(b"a")
    kv.compact(4)
    client.create(start_revision=3)
    client.create(start_revision=4)
    responses = await client.responses()
    assert [(r.watch_id, r.created, r.canceled, r.compact_revision, len(r.events)) for r in responses] == [
        (0, True, False, 0, 0),
        (0, False, True, 4, 0),
        (1, True, False, 0, 0),
        (1, False, False, 0, 3),
    ]
    cancelled = responses[1]
    assert cancelled.header.revision == 0
    assert not cancelled.cancel_reason


async def test_progress_is_told_also_where_a_watch_was_cancelled_as_compacted(kv: Kv, client: Client) -> None:
    """An etcd of 3.5.30 or 3.6 does not always."""
    for _ in range(5):
        kv.put(b"a")
    kv.compact(4)
    client.create(start_revision=2)
    client.create(b"quiet", b"")
    await client.responses()
    for _ in range(3):
        client.stream.request_progress()
        (progress,) = await client.responses()
        assert (progress.watch_id, progress.header.revision) == (-1, 6)


async def test_created_comes_before_progress_that_was_asked_for_at_once(kv: Kv, client: Client) -> None:
    for _ in range(30):
        client.create()
        client.stream.request_progress()
    responses = await client.responses()
    assert [r.watch_id for r in responses] == [id for watch in range(30) for id in (watch, -1)]


async def test_a_refused_watch_takes_no_id(kv: Kv, client: Client) -> None:
    client.create(start_revision=-1)
    client.create()
    client.create(b"b", b"a")
    client.create()
    assert [response.watch_id for response in await client.responses()] == [-1, 0, -1, 1]


async def test_an_id_stays_taken_after_a_compaction_until_the_client_cancels_it(
    kv: Kv, client: Client
) -> None:
    for number in range(5):
        kv.put(b"a", b"%d" % number)
    kv.compact(4)
    client.create(start_revision=2, watch_id=7)
    await client.responses()
    client.create(watch_id=7)
    client.stream.cancel(WatchCancelRequest(watch_id=7))
    client.stream.cancel(WatchCancelRequest(watch_id=7))
    client.create(watch_id=7)
    responses = await client.responses()
    assert [(r.watch_id, r.created, r.canceled) for r in responses] == [
        (-1, True, True),
        (7, False, True),
        (7, True, False),
    ]


async def test_a_deletion_at_the_compacted_revision_is_still_seen(kv: Kv, client: Client) -> None:
    kv.put(b"a")
    kv.delete(b"a")
    kv.put(b"b")
    kv.compact(3)
    kv.clean()
    client.create(start_revision=3)
    assert await client.events() == [(3, b"a", None), (4, b"b", b"")]


async def test_cancel_ends_with_one_response_and_an_unknown_id_with_none(kv: Kv, client: Client) -> None:
    client.create()
    kv.put(b"a")
    client.stream.handle(WatchRequest(cancel_request=WatchCancelRequest(watch_id=0)))
    client.stream.handle(WatchRequest(cancel_request=WatchCancelRequest(watch_id=9)))
    client.stream.handle(WatchRequest())
    kv.put(b"a")
    created, cancelled = await client.responses()
    assert created.created
    assert (cancelled.watch_id, cancelled.canceled, cancelled.cancel_reason) == (0, True, "")
    assert cancelled.header.revision == 2


async def test_a_start_in_the_future_waits_for_its_revision(kv: Kv, client: Client) -> None:
    client.create(start_revision=4)
    for _ in range(4):
        kv.put(b"a")
        client.stream.request_progress()
    responses = await client.responses()
    assert [e.kv.mod_revision for r in responses for e in r.events] == [4, 5]
    assert [r.header.revision for r in responses if r.watch_id == -1] == [4, 5]
