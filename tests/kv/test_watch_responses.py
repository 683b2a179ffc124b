"""Responses to watches: their headers, pieces and size, and progress."""

import pytest

from connect_kv.kv import catch_up
from connect_kv.kv import watch as hub
from connect_kv.kv.catch_up import read_piece
from connect_kv.kv.revision import Revision
from connect_kv.rpc.kv_pb2 import TxnRequest
from tests.kv.conftest import Client, Kv, put_op


async def test_live_headers_name_the_revision_and_those_of_the_past_the_present(
    kv: Kv, client: Client
) -> None:
    client.create()
    created = await client.responses()
    kv.put(b"a")
    live = await client.responses()
    kv.put(b"a")
    await client.responses()
    client.create(start_revision=2)
    _, past = await client.responses()
    assert [created[0].header.revision, live[0].header.revision, past.header.revision] == [1, 2, 3]


@pytest.mark.parametrize("start", [0, 2])
async def test_a_large_response_is_split_only_for_who_asks(kv: Kv, start: int) -> None:
    plain, fragmented = Client(kv), Client(kv)
    if not start:
        plain.create()
        fragmented.create(fragment=True)
    operations = [put_op(b"%d" % number, b"v" * 700_000) for number in range(4)]
    kv.txn(TxnRequest(success=operations))
    if start:
        plain.create(start_revision=start)
        fragmented.create(fragment=True, start_revision=start)
    (whole,) = [response for response in await plain.responses() if response.events]
    parts = [response for response in await fragmented.responses() if response.events]
    assert not whole.fragment
    assert [part.fragment for part in parts] == [True, False]
    assert all(part.ByteSize() < hub.FRAGMENT_BYTES for part in parts)
    assert [event for part in parts for event in part.events] == list(whole.events)


@pytest.mark.parametrize("behind", [True, False])
@pytest.mark.parametrize("prev_kv", [True, False])
async def test_no_response_is_larger_than_clients_take_unless_one_revision_is(
    kv: Kv, behind: bool, prev_kv: bool
) -> None:
    """Most clients take 4 MiB; what they refuse they would be sent again each time they resume."""
    client = Client(kv)
    if not behind:
        client.create(prev_kv=prev_kv)
    for number in range(6):
        kv.put(b"%d" % (number % 2), b"v" * 1_200_000)
    kv.txn(TxnRequest(success=[put_op(b"%d" % key, b"v" * 900_000) for key in range(4)]))
    kv.put(b"0", b"end")
    if behind:
        client.create(start_revision=2, prev_kv=prev_kv)
    responses = [response for response in await client.responses() if response.events]
    revisions = [[event.kv.mod_revision for event in response.events] for response in responses]
    assert [revision for one in revisions for revision in one] == [2, 3, 4, 5, 6, 7, *[8] * 4, 9]
    for response, found in zip(responses, revisions, strict=True):
        assert not response.fragment
        assert response.ByteSize() < hub.FRAGMENT_BYTES or len(set(found)) == 1
        assert found[-1] <= response.header.revision <= (9 if response is responses[-1] else found[-1])
    assert sum(8 in one for one in revisions) == 1, "a revision is never cut"


async def test_many_small_revisions_still_travel_together(kv: Kv, client: Client) -> None:
    for number in range(300):
        kv.put(b"%d" % number, b"v" * 100)
    client.create(start_revision=2)
    (response,) = [response for response in await client.responses() if response.events]
    assert len(response.events) == 300


async def test_a_piece_of_the_history_is_bounded_by_bytes_too(kv: Kv) -> None:
    for _ in range(40):
        kv.put(b"a", b"v" * 300_000)
    with kv.machine.hub.transactions.open() as transaction:
        for key, end in ((b"a", b""), (b"a", b"b")):
            position, pieces, seen = Revision(2), [], []
            while position.main <= 41:
                piece = read_piece(transaction, key, end, position, 41, prev_kv=False)
                pieces.append(sum(len(change.record or b"") for change in piece.changes))
                seen += [change.revision for change in piece.changes]
                position = piece.position
            assert max(pieces) < catch_up.SLICE_BYTES + 400_000
            assert seen == list(range(2, 42))


async def test_progress_is_only_promised_when_all_watches_have_caught_up(kv: Kv, client: Client) -> None:
    client.stream.request_progress()
    assert await client.responses() == []
    kv.put(b"a")
    client.create()
    client.create(start_revision=1)
    client.stream.request_progress()
    assert [r.watch_id for r in await client.responses()] == [0, 1, 1], "one was behind"
    client.stream.request_progress()
    (progress,) = await client.responses()
    assert (progress.watch_id, progress.header.revision, len(progress.events)) == (-1, 2, 0)


async def test_progress_by_the_timer_goes_to_quiet_watches_that_asked(kv: Kv, client: Client) -> None:
    client.create(b"a", b"", progress_notify=True)
    client.create(b"b", b"")
    await client.responses()
    kv.put(b"c")
    await kv.machine.hub.notify_progress()
    (progress,) = await client.responses()
    assert (progress.watch_id, progress.header.revision) == (0, 2)
    kv.put(b"a")
    await client.responses()
    await kv.machine.hub.notify_progress()
    assert await client.responses() == [], "an event said as much"
    await kv.machine.hub.notify_progress()
    assert len(await client.responses()) == 1
