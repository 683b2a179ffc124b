"""Watches that do not read, or fall behind: bounded memory, nothing missed, all told at the end."""

import asyncio
import random

import pytest

from connect_kv.errors import NodeStopped
from connect_kv.kv import watch as hub
from connect_kv.kv.moment import Moment
from connect_kv.rpc.command_pb2 import Command
from connect_kv.rpc.kv_pb2 import PutRequest, TxnRequest
from connect_kv.rpc.watch_pb2 import WatchCancelRequest
from tests.kv.conftest import Client, Kv, new_engine, put_op


@pytest.fixture
def small_feeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow consumer falls behind early."""
    monkeypatch.setattr(hub, "GROUP_PENDING_BYTES", 200_000)


@pytest.mark.usefixtures("small_feeds")
async def test_a_slow_consumer_costs_bounded_memory_and_misses_nothing(kv: Kv, client: Client) -> None:
    client.create()
    client.create(b"a", b"")
    await client.responses()
    for number in range(1000):
        kv.put(b"a", b"%04d" % number + b"v" * 1000)
        assert kv.machine.hub.pending_bytes <= 2 * hub.GROUP_PENDING_BYTES
    events = [(r.watch_id, e.kv.mod_revision) for r in await client.responses() for e in r.events]
    for watch_id in (0, 1):
        assert [rev for watch, rev in events if watch == watch_id] == list(range(2, 1002))
    kv.put(b"a", b"live again")
    assert [value for _, _, value in await client.events()] == [b"live again"]
    assert kv.machine.hub.pending_bytes == 0


async def test_many_ranges_of_slow_consumers_are_bounded_together(
    kv: Kv, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "PENDING_BYTES", 100_000)
    for number in range(50):
        client.create(b"%02d" % number, b"")
    await client.responses()
    for number in range(500):
        kv.put(b"%02d" % (number % 50), b"v" * 1000)
        assert kv.machine.hub.pending_bytes <= 102_000
    seen = [e.kv.mod_revision for r in await client.responses() for e in r.events]
    assert sorted(seen) == list(range(2, 502))
    assert kv.machine.hub.pending_bytes == 0


async def test_watches_of_one_range_go_at_their_own_pace(kv: Kv, client: Client) -> None:
    """Fast and slow ones share what waits; each sees all of it once, from where it began."""
    rng = random.Random(5)
    clients = [client, *(Client(kv) for _ in range(5))]
    began = [2] * 6
    for one in clients[:3]:
        one.create()
    seen: list[list[int]] = [[] for _ in clients]
    for number in range(300):
        if number == 100:
            for at, one in enumerate(clients[3:], 3):
                one.create(prev_kv=at == 4)
                began[at] = kv.machine.revision + 1
        kv.put(b"a", rng.randbytes(rng.randrange(2000)))
        for at, one in enumerate(clients):
            if rng.random() < 0.3 / (at + 1):
                seen[at] += [revision for revision, _, _ in await one.events()]
    for at, one in enumerate(clients):
        seen[at] += [revision for revision, _, _ in await one.events()]
        assert seen[at] == list(range(began[at], 302))
    assert kv.machine.hub.pending_bytes == 0


async def test_what_waits_for_a_cancelled_watch_is_dropped(kv: Kv, client: Client) -> None:
    client.create()
    client.create()
    await client.responses()
    kv.put(b"a", b"v" * 1000)
    client.stream.cancel(WatchCancelRequest(watch_id=0))
    assert kv.machine.hub.pending_bytes > 1000
    client.stream.cancel(WatchCancelRequest(watch_id=1))
    assert kv.machine.hub.pending_bytes == 0


async def test_what_is_sent_at_once_is_bounded(kv: Kv, client: Client) -> None:
    """Clients take no message over 4 MiB unless they say so."""
    client.create()
    for number in range(2000):
        kv.txn(TxnRequest(success=[put_op(b"%d" % key, b"%d" % number + b"v" * 300) for key in range(4)]))
    responses = [response for response in await client.responses() if response.events]
    assert max(response.ByteSize() for response in responses) < 300_000
    assert all(len(response.events) % 4 == 0 for response in responses), "no revision is split"
    assert sum(len(response.events) for response in responses) == 8000


async def test_progress_follows_all_that_it_promises(kv: Kv, client: Client) -> None:
    client.create()
    for _ in range(1000):
        kv.put(b"a", b"v" * 1000)
    client.stream.request_progress()
    responses = await client.responses()
    assert [r.header.revision for r in responses if r.watch_id == -1] == [1001]
    assert responses[-1].watch_id == -1
    assert sum(len(response.events) for response in responses) == 1000


@pytest.mark.usefixtures("small_feeds")
async def test_progress_does_not_overtake_a_watch_that_fell_behind(kv: Kv, client: Client) -> None:
    client.create()
    kv.put(b"a", b"v" * 1000)
    client.stream.request_progress()
    for _ in range(1000):
        kv.put(b"a", b"v" * 1000)
    highest = 0
    for response in await client.responses():
        for event in response.events:
            assert event.kv.mod_revision > highest
        if response.watch_id == -1:
            highest = response.header.revision


@pytest.mark.usefixtures("small_feeds")
async def test_a_slow_consumer_overtaken_by_a_compaction_is_told(kv: Kv, client: Client) -> None:
    client.create()
    await client.responses()
    for _ in range(1000):
        kv.put(b"a", b"v" * 1000)
    kv.compact(900)
    kv.clean()
    (cancelled,) = await client.responses()
    assert (cancelled.canceled, cancelled.compact_revision) == (True, 900)


async def test_watches_go_on_in_an_exchanged_database(kv: Kv, client: Client) -> None:
    client.create()
    kv.put(b"a", b"1")
    other = Kv(new_engine())
    for number in range(1, 6):
        other.put(b"a", b"%d" % number)
    kv.machine.load(other.engine, Moment())
    assert [value for _, _, value in await client.events()] == [b"1", b"2", b"3", b"4", b"5"]
    kv.machine.load(kv.engine, Moment())
    other.machine.close()
    other.engine.close()


async def test_a_closed_machine_ends_streams_as_stopped(kv: Kv, client: Client) -> None:
    kv.machine.close()
    with pytest.raises(NodeStopped):
        await anext(client.stream)


async def test_a_closed_stream_leaves_nothing_behind(kv: Kv, client: Client) -> None:
    for number in range(100):
        client.create(b"%d" % number, b"")
        client.create(b"%d" % number, b"z")
    assert kv.machine.hub.watches == 200
    client.stream.close()
    assert kv.machine.hub.watches == 0
    kv.put(b"5")
    assert [response async for response in client.stream] == []


async def test_the_end_of_a_client_with_many_watches_lets_others_run(kv: Kv, client: Client) -> None:
    watches = 10 * hub.SLICE_WATCHES
    for number in range(watches):
        client.create(b"%d" % number, b"", progress_notify=True)
    other = Client(kv)
    other.create(b"5", b"")
    closing = asyncio.create_task(client.stream.close_slowly())
    await asyncio.sleep(0)
    turns = 0
    while not closing.done():
        turns += 1
        kv.put(b"5")
        await asyncio.sleep(0)
    assert turns >= 10
    assert len(await other.events()) == turns
    assert (kv.machine.hub.watches, kv.machine.hub.pending_bytes) == (1, 0)
    assert [response async for response in client.stream] == []


async def test_progress_of_many_watches_lets_others_run(kv: Kv, client: Client) -> None:
    watches = 10 * hub.SLICE_WATCHES
    for number in range(watches):
        client.create(b"%d" % number, b"", progress_notify=True)
    await client.responses()
    notifying = asyncio.create_task(kv.machine.hub.notify_progress())
    turns = 0
    while not notifying.done():
        turns += 1
        if turns == 5:
            client.stream.cancel(WatchCancelRequest(watch_id=watches - 1))
        await asyncio.sleep(0)
    assert turns >= 10
    told = [response.watch_id for response in await client.responses() if not response.canceled]
    assert told == list(range(watches - 1))


async def test_a_slice_of_many_commands_is_seen_once_it_is_published(kv: Kv, client: Client) -> None:
    client.create(b"a", b"")
    kv.apply(*(Command(put=PutRequest(key=b"a", value=b"%d" % number)) for number in range(3)))
    assert await client.events() == [(2, b"a", b"0"), (3, b"a", b"1"), (4, b"a", b"2")]
