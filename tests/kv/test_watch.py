"""What a watch promises, one test for each, and the details of etcd's protocol."""

import asyncio
import random

import pytest

from connect_kv.errors import NodeStopped
from connect_kv.kv import catch_up
from connect_kv.kv import watch as hub
from connect_kv.kv.catch_up import read_piece
from connect_kv.kv.moment import Moment
from connect_kv.kv.revision import Revision
from connect_kv.kv.watch_stream import WatchStream
from connect_kv.rpc.command_pb2 import Command
from connect_kv.rpc.kv_pb2 import Event, KeyValue, PutRequest, TxnRequest
from connect_kv.rpc.watch_pb2 import WatchCancelRequest, WatchCreateRequest, WatchRequest, WatchResponse
from connect_kv.storage.overlay import Overlay
from tests.kv.conftest import Kv, delete_op, new_engine, put_op, run, txn_op

END = 1 << 40
"""The id of a watch that is created and cancelled, to mark where the responses so far end."""


class Client:
    """A stream of watches and what came out of it."""

    def __init__(self, kv: Kv) -> None:
        self.kv = kv
        self.stream = WatchStream(kv.machine.hub)

    def create(self, key: bytes = b"\0", range_end: bytes = b"\0", **options: object) -> None:
        create = WatchCreateRequest(key=key, range_end=range_end, **options)  # type: ignore[arg-type]
        self.stream.handle(WatchRequest(create_request=create))

    async def responses(self) -> list[WatchResponse]:
        """Everything there is to say now."""
        seen: list[WatchResponse] = []
        while self.stream.backlog:
            self.stream.create(WatchCreateRequest(key=b"?", watch_id=END))
            self.stream.cancel(WatchCancelRequest(watch_id=END))
            async for response in self.stream:
                if response.watch_id != END:
                    seen.append(response)
                elif response.canceled:
                    break
        return seen

    async def events(self, watch_id: int = 0) -> list[tuple[int, bytes, bytes | None]]:
        """(revision, key, value) in the order of arrival; None for a deletion."""
        return [
            (event.kv.mod_revision, event.kv.key, None if event.type == Event.DELETE else event.kv.value)
            for response in await self.responses()
            if response.watch_id == watch_id
            for event in response.events
        ]


@pytest.fixture
def client(kv: Kv) -> Client:
    return Client(kv)


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


# Creating and cancelling.


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


# Headers, fragments, progress.


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


# Slow consumers, exchange of the database, end.


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
