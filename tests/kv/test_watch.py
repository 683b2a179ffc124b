"""What a watch promises, one test for each."""

import random

import pytest

from connect_kv.rpc.command_pb2 import Command
from connect_kv.rpc.kv_pb2 import Event, KeyValue, PutRequest, TxnRequest
from connect_kv.rpc.watch_pb2 import WatchCancelRequest, WatchCreateRequest
from connect_kv.storage.overlay import Overlay
from tests.kv.conftest import Client, Kv, delete_op, put_op, run, txn_op


def write_at_random(kv: Kv, rng: random.Random) -> None:
    key = rng.choice([b"a", b"b", b"c"])
    match rng.randrange(4):
        case 0:
            kv.delete(key)
        case 1:
            operations = [put_op(b"a", b"txn"), put_op(b"b", b"txn"), delete_op(b"c")]
            kv.txn(TxnRequest(success=operations))
        case _:
            kv.put(key, b"%d" % rng.randrange(1000))


async def test_ordered(kv: Kv, client: Client) -> None:
    client.create()
    rng = random.Random(1)
    for _ in range(100):
        write_at_random(kv, rng)
    revisions = [revision for revision, _, _ in await client.events()]
    assert revisions == sorted(revisions)


async def test_unique(kv: Kv, client: Client) -> None:
    client.create()
    seen = []
    rng = random.Random(2)
    for _ in range(50):
        write_at_random(kv, rng)
        seen += await client.events()
    places = [(revision, key) for revision, key, _ in seen]
    assert len(places) == len(set(places))


async def test_atomic(kv: Kv, client: Client) -> None:
    client.create()
    client.create(start_revision=2)
    for number in range(700):
        kv.txn(TxnRequest(success=[put_op(b"%d" % key, b"%d" % number) for key in range(3)]))
    responses = [response for response in await client.responses() if response.events]
    for watch_id in (0, 1):
        revisions = [
            {event.kv.mod_revision for event in r.events} for r in responses if r.watch_id == watch_id
        ]
        assert sum(map(len, revisions)) == len(set().union(*revisions)) == 700
    assert all(len(response.events) % 3 == 0 for response in responses)


async def test_resumable(kv: Kv) -> None:
    rng = random.Random(3)
    whole = Client(kv)
    whole.create()
    for _ in range(60):
        write_at_random(kv, rng)
    expected = await whole.events()
    for start in range(2, kv.machine.revision + 2, 7):
        resumed = Client(kv)
        resumed.create(start_revision=start)
        assert await resumed.events() == [event for event in expected if event[0] >= start]


async def test_reliable_while_the_history_is_read_and_written_at_once(kv: Kv) -> None:
    rng = random.Random(4)
    for _ in range(1500):
        write_at_random(kv, rng)
    late, live = Client(kv), Client(kv)
    late.create(start_revision=2)
    live.create(start_revision=kv.machine.revision + 1)
    seen: list[tuple[int, int]] = []
    async for response in late.stream:
        seen += [(event.kv.mod_revision, event.type) for event in response.events]
        if kv.machine.revision < 2200:
            for _ in range(30):
                write_at_random(kv, rng)
        elif not late.stream.backlog:
            break
    revisions = [revision for revision, _ in seen]
    assert sorted(set(revisions)) == list(range(2, kv.machine.revision + 1))
    assert revisions == sorted(revisions)
    fresh = Client(kv)
    fresh.create(start_revision=2)
    again = await fresh.events()
    assert [revision for revision, _, _ in again] == revisions


async def test_bookmarkable(kv: Kv, client: Client) -> None:
    client.create()
    client.create(b"nothing", b"")
    kv.put(b"a")
    client.stream.request_progress()
    kv.put(b"b")
    responses = await client.responses()
    at = next(n for n, r in enumerate(responses) if r.watch_id == -1)
    promised = responses[at].header.revision
    assert promised == 2
    assert all(e.kv.mod_revision > promised for r in responses[at + 1 :] for e in r.events)
    before = [e.kv.mod_revision for r in responses[:at] for e in r.events]
    assert 2 in before


async def test_filtered(kv: Kv, client: Client) -> None:
    client.create(filters=[WatchCreateRequest.NOPUT])
    client.create(filters=[WatchCreateRequest.NODELETE], start_revision=1)
    client.create(filters=[WatchCreateRequest.NOPUT, WatchCreateRequest.NODELETE])
    kv.put(b"a", b"1")
    kv.delete(b"a")
    responses = await client.responses()
    assert sorted(
        (response.watch_id, event.kv.mod_revision, event.type)
        for response in responses
        for event in response.events
    ) == [(0, 3, Event.DELETE), (1, 2, Event.PUT)]
    assert all(response.created or response.events for response in responses), "no empty response"


@pytest.mark.parametrize("start", [0, 2])
async def test_prev_kv(kv: Kv, start: int) -> None:
    client = Client(kv)
    if not start:
        client.create(b"a", b"", prev_kv=True)
    kv.put(b"a", b"1")
    kv.put(b"a", b"2")
    kv.delete(b"a")
    kv.txn(TxnRequest(success=[put_op(b"a", b"3")]))
    kv.txn(TxnRequest(success=[txn_op(success=[put_op(b"a", b"4")]), txn_op(success=[delete_op(b"a")])]))
    if start:
        client.create(b"a", b"", prev_kv=True, start_revision=start)
    events = [event for response in await client.responses() for event in response.events]
    assert [event.prev_kv.value for event in events] == [b"", b"1", b"2", b"", b"3", b"3"]
    assert [event.HasField("prev_kv") for event in events] == [False, True, True, False, True, True]


async def test_prev_kv_of_a_watch_that_begins_while_a_slice_is_applied(kv: Kv) -> None:
    """Nobody had asked for what was before when the first of these was applied."""
    kv.put(b"a", b"1")
    client, overlay = Client(kv), Overlay(kv.engine)
    for index, value in enumerate((b"2", b"3"), kv.index + 1):
        run(kv.machine.apply(Command(put=PutRequest(key=b"a", value=value)), index, kv.at, overlay))
        if value == b"2":
            client.create(b"a", b"", prev_kv=True)
    kv.machine.seal(overlay)
    kv.write(overlay)
    kv.index += 2
    events = [event for response in await client.responses() for event in response.events]
    kv.put(b"a", b"4")
    events += [event for response in await client.responses() for event in response.events]
    assert [event.prev_kv.value for event in events] == [b"1", b"2", b"3"]
    assert kv.machine.hub.unsynced == 0


async def test_what_was_before_is_only_read_while_somebody_wants_it(kv: Kv) -> None:
    client = Client(kv)
    client.create(b"a", b"")
    client.create(b"a", b"", prev_kv=True)
    assert kv.machine.hub.prev_kv_watches == 1
    client.stream.cancel(WatchCancelRequest(watch_id=1))
    assert kv.machine.hub.prev_kv_watches == 0


@pytest.mark.parametrize("start", [0, 3])
async def test_a_key_deleted_and_put_in_one_transaction_begins_anew(
    kv: Kv, client: Client, start: int
) -> None:
    kv.put(b"a", b"1")
    if not start:
        client.create(b"a", b"", prev_kv=True)
    kv.txn(TxnRequest(success=[delete_op(b"a", b"\0"), put_op(b"a", b"2")]))
    if start:
        client.create(b"a", b"", prev_kv=True, start_revision=start)
    events = [event for response in await client.responses() for event in response.events]
    assert [(event.type, event.prev_kv.value) for event in events] == [(Event.DELETE, b"1"), (Event.PUT, b"")]
    assert not events[1].HasField("prev_kv")


async def test_create_flag(kv: Kv, client: Client) -> None:
    client.create()
    kv.put(b"a")
    kv.put(b"a")
    kv.delete(b"a")
    kv.put(b"a")
    events = [event for response in await client.responses() for event in response.events]
    created = [e.kv.create_revision == e.kv.mod_revision and e.kv.version == 1 for e in events if not e.type]
    assert created == [True, False, True]
    assert events[2].kv == KeyValue(key=b"a", mod_revision=4)
