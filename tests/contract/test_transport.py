"""What every Transport keeps, whatever carries the bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from connect_kv.errors import RefusedToStart
from connect_kv.peer_protocol import (
    ForwardOutcome,
    ForwardRefusal,
    ForwardRequest,
    ForwardResponse,
    HelloVerdict,
    PeerMessage,
    Proposal,
)
from connect_kv.raft.messages import (
    AppendRequest,
    AppendResponse,
    HeartbeatRequest,
    HeartbeatResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from connect_kv.raft.types import Entry, EntryId, EntryKind
from tests.transport.helpers import Network, append, connect, heartbeat, hello_of, offer, pieces_of

MESSAGES: list[PeerMessage] = [
    VoteRequest(source=1, target=2, term=5, last=EntryId(4, 9), pre_vote=True, transfer=True),
    VoteResponse(source=1, target=2, term=5, granted=False),
    AppendRequest(
        source=1,
        target=2,
        term=5,
        prev=EntryId(4, 9),
        entries=(
            Entry(EntryId(4, 10), EntryKind.NOOP),
            Entry(EntryId(5, 11), EntryKind.COMMAND, b"\x00" * 300),
            Entry(EntryId(5, 12), EntryKind.MEMBERSHIP, b"{}"),
        ),
        commit_index=8,
    ),
    AppendRequest(source=1, target=2, term=5, prev=EntryId(0, 0), entries=(), commit_index=0),
    AppendResponse(source=1, target=2, term=5, accepted=True, match_index=12),
    AppendResponse(source=1, target=2, term=5, accepted=False, prev_index=9, hint=EntryId(2, 3)),
    AppendResponse(source=1, target=2, term=0, accepted=False),
    HeartbeatRequest(source=1, target=2, term=5, commit_index=8, round=4),
    HeartbeatResponse(source=1, target=2, term=5, round=0),
    TimeoutNow(source=1, target=2, term=5),
    ReadIndexRequest(source=1, target=2, term=5, context=2**64 - 1),
    ReadIndexResponse(source=1, target=2, term=5, context=2**64 - 1, index=8),
    ForwardRequest(source=1, target=2, proposals=(Proposal(id=1, payload=b"p", count=3),)),
    ForwardResponse(
        source=1,
        target=2,
        outcomes=(
            ForwardOutcome(id=1, entry=EntryId(5, 11), offset=2),
            ForwardOutcome(id=2, refusal=ForwardRefusal.OVERLOADED),
        ),
    ),
]


@pytest.fixture(params=["memory", "grpc", "from grpcio", "to grpcio"])
async def network(request: pytest.FixtureRequest) -> AsyncIterator[Network]:
    made = Network(request.param)
    yield made
    await made.close()


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
async def test_every_kind_of_message_arrives_as_it_was_sent(network: Network, message: PeerMessage) -> None:
    one, two = await network.pair()

    one.transport.send(message)

    assert list(await two.recorder.received(1)) == [message]


async def test_thousands_of_appends_arrive_in_order(network: Network) -> None:
    one, two = await network.pair()
    sent = [append(index, b"x" * (index % 700)) for index in range(1, 3001)]

    for message in sent:
        one.transport.send(message)

    assert list(await two.recorder.received(3000)) == sent


async def test_hello_says_who_sends_and_its_answer_is_told(network: Network) -> None:
    one, two = await network.pair()

    assert hello_of(1)(2) in two.recorder.hellos
    assert (2, HelloVerdict.WELCOME) in one.recorder.replies


async def test_answers_reach_an_asker_whose_address_is_unknown(network: Network) -> None:
    """A member that joins learns addresses only from the log it is about to acknowledge."""
    leader, joining = await network.node(1), await network.node(2)
    leader.transport.set_peers({2: joining.transport.address})
    leader.transport.send(append(1))
    leader.transport.send(
        ForwardRequest(source=1, target=2, proposals=(Proposal(id=1, payload=b"", count=1),))
    )
    await joining.recorder.received(2)

    answers: list[PeerMessage] = [
        AppendResponse(source=2, target=1, term=3, accepted=True, match_index=1),
        ReadIndexResponse(source=2, target=1, term=3, context=1, index=1),
    ]
    for answer in answers:
        joining.transport.send(answer)

    received = await leader.recorder.received(2)
    assert all(answer in received for answer in answers)


@pytest.mark.parametrize(
    "verdict", [verdict for verdict in HelloVerdict if verdict is not HelloVerdict.WELCOME]
)
async def test_refused_member_is_told_why_and_not_listened_to(
    network: Network, verdict: HelloVerdict
) -> None:
    one, two = await network.node(1), await network.node(2)
    two.recorder.verdicts[1] = verdict
    connect(one, two)
    one.transport.send(append(1))
    one.transport.send(VoteRequest(source=1, target=2, term=5, last=EntryId(4, 9)))

    await one.recorder.until(
        lambda: (2, verdict) in one.recorder.replies and 2 in one.recorder.unreachable_ids
    )
    assert not two.recorder.messages
    if network.kind != "memory":
        assert any(pause >= 1 for pause in network.clock.pauses)

    two.recorder.verdicts.clear()
    await one.recorder.until(lambda: (2, HelloVerdict.WELCOME) in one.recorder.replies)
    one.transport.send(append(2))
    await two.recorder.until(lambda: append(2) in two.recorder.messages)
    assert append(1) not in two.recorder.messages


async def test_messages_pass_again_after_the_peer_restarted(network: Network) -> None:
    one, two = await network.pair()
    address = two.transport.address
    await two.transport.close()
    await one.recorder.until(lambda: 2 in one.recorder.unreachable_ids)

    one.recorder.replies.clear()
    again = await network.node(2, address)
    await one.introduced(2)
    one.transport.send(append(9))

    assert list(await again.recorder.received(1)) == [append(9)]


async def test_unreachable_is_reported_for_a_peer_that_is_not_there(network: Network) -> None:
    one, two = await network.pair()
    await two.transport.close()
    await one.recorder.until(lambda: 2 in one.recorder.unreachable_ids)

    for message in (append(1), VoteRequest(source=1, target=2, term=5, last=EntryId(4, 9))):
        one.recorder.unreachable_ids.clear()
        one.transport.send(message)
        await one.recorder.until(lambda: 2 in one.recorder.unreachable_ids)


async def test_unreachable_is_reported_for_an_unknown_target(network: Network) -> None:
    one = await network.node(1)

    for message in (append(1, target=5), TimeoutNow(source=1, target=5, term=1)):
        one.recorder.unreachable_ids.clear()
        one.transport.send(message)
        assert not one.recorder.unreachable_ids, "reported from within send"
        await one.recorder.until(lambda: one.recorder.unreachable_ids == [5])


async def test_a_member_no_longer_listed_is_judged_anew(network: Network) -> None:
    one, two = await network.pair()

    one.recorder.verdicts[2] = HelloVerdict.REMOVED
    one.transport.set_peers({1: one.transport.address})

    await two.recorder.until(lambda: (1, HelloVerdict.REMOVED) in two.recorder.replies)
    one.recorder.messages.clear()
    two.transport.send(heartbeat(1, source=2, target=1))
    await two.recorder.until(lambda: 1 in two.recorder.unreachable_ids)
    assert not one.recorder.messages


async def test_a_peer_with_a_new_address_is_found_there(network: Network) -> None:
    one, two = await network.pair()
    await two.transport.close()
    moved = await network.node(2, "elsewhere:1" if network.kind == "memory" else "127.0.0.1:0")

    one.recorder.replies.clear()
    one.transport.set_peers({2: moved.transport.address})
    await one.introduced(2)
    one.transport.send(append(1))

    assert list(await moved.recorder.received(1)) == [append(1)]


async def test_snapshot_arrives_in_the_same_pieces(network: Network) -> None:
    one, two = await network.pair()
    pieces = [b"first", b"", b"z" * 2_500_000, b"last" * 1000]

    await one.transport.send_snapshot(offer(), pieces_of(pieces))

    assert two.recorder.offers == [offer()]
    assert two.recorder.pieces == pieces
    assert two.recorder.installed == 1


async def test_snapshot_refused_by_the_receiver_fails_at_the_sender(network: Network) -> None:
    one, two = await network.pair()
    two.recorder.refuse_snapshot = "a newer one is being installed"

    with pytest.raises(OSError, match="a newer one is being installed"):
        await one.transport.send_snapshot(offer(), pieces_of([b"x" * 100_000] * 100))


async def test_snapshot_of_a_member_that_is_not_welcome_fails(network: Network) -> None:
    one, two = await network.pair()
    two.recorder.verdicts[1] = HelloVerdict.REMOVED

    with pytest.raises(OSError, match="REMOVED"):
        await one.transport.send_snapshot(offer(), pieces_of([b"x"]))

    assert (2, HelloVerdict.REMOVED) in one.recorder.replies
    assert not two.recorder.offers


@pytest.mark.parametrize("case", ["installed", "refused", "nobody", "cancelled"])
async def test_snapshots_pieces_are_closed_when_sending_ends(network: Network, case: str) -> None:
    """Else the view under them would be closed before the iterator that reads it."""
    one, two = await network.pair()
    closed = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        try:
            for _ in range(50):
                yield b"x" * 1000
        finally:
            closed.set()

    if case == "refused":
        two.recorder.refuse_snapshot = "no"
    elif case == "nobody":
        await two.transport.close()
    elif case == "cancelled":
        two.recorder.may_take.clear()
    generator = pieces()
    await anext(generator)
    sending = asyncio.create_task(one.transport.send_snapshot(offer(), generator))
    if case == "cancelled":
        await two.recorder.until(lambda: bool(two.recorder.pieces))
        sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)

    assert closed.is_set()


async def test_peers_may_be_set_before_the_start(network: Network) -> None:
    two = await network.node(2)
    one = await network.node(1, peers={2: two.transport.address})

    await one.introduced(2)


async def test_snapshot_to_nobody_fails(network: Network) -> None:
    one, two = await network.pair()
    await two.transport.close()

    with pytest.raises(OSError, match="snapshot to 2"):
        await one.transport.send_snapshot(offer(), pieces_of([b"x"]))
    with pytest.raises(OSError, match="5"):
        await one.transport.send_snapshot(offer(target=5), pieces_of([b"x"]))


async def test_snapshot_waits_for_a_slow_receiver(network: Network) -> None:
    """What is under way is bounded: a receiver that takes nothing stops the sender's reading."""
    one, two = await network.pair()
    two.recorder.may_take.clear()
    pieces, taken = [b"p" * (1 << 20)] * 200, list[int]()
    sending = asyncio.create_task(one.transport.send_snapshot(offer(), pieces_of(pieces, taken)))
    await two.recorder.until(lambda: len(two.recorder.pieces) == 1)
    one.transport.send(append(1))
    await two.recorder.received(1)  # meanwhile other traffic passes

    assert len(taken) < 100

    two.recorder.may_take.set()
    await sending
    assert len(two.recorder.pieces) == 200


async def test_describe_answers_who_does_not_know_itself_yet(network: Network) -> None:
    one, two = await network.node(1), await network.node(2)

    description = await one.transport.describe(two.transport.address, hello_of(0)(0), "127.0.0.1:99")

    assert description.node_id == 2
    assert description.membership.members[0].peer_address == "127.0.0.1:99"
    assert description.hello.verdict is HelloVerdict.UNKNOWN_MEMBER
    assert description.leader_id is None
    assert two.recorder.hellos == [hello_of(0)(0)]


async def test_describe_of_nobody_fails(network: Network) -> None:
    one, two = await network.node(1), await network.node(2)
    await two.transport.close()

    with pytest.raises(OSError, match=two.transport.address):
        await one.transport.describe(two.transport.address, hello_of(0)(0), "127.0.0.1:99")


async def test_a_member_has_another_carry_out_a_call(network: Network) -> None:
    one, _ = await network.pair()

    assert await one.transport.ask(2, "Status", b"now") == b"1 asks 2 for Status: now"


async def test_a_call_that_was_not_begun_says_so(network: Network) -> None:
    one, two = await network.pair()
    two.recorder.verdicts[1] = HelloVerdict.REMOVED
    with pytest.raises(ConnectionRefusedError):
        await one.transport.ask(2, "Status", b"")
    await two.transport.close()
    with pytest.raises(ConnectionRefusedError):
        await one.transport.ask(2, "Status", b"")
    with pytest.raises(ConnectionRefusedError):
        await one.transport.ask(9, "Status", b"")


async def test_address_in_use_is_refused_by_name(network: Network) -> None:
    one = await network.node(1)

    with pytest.raises(RefusedToStart, match=one.transport.address):
        await network.node(2, one.transport.address)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:port", "127.0.0.1:99999", "host.invalid:80"])
async def test_address_that_is_none_is_refused_by_name(address: str) -> None:
    network = Network("grpc")
    with pytest.raises(RefusedToStart, match=address):
        await network.node(1, address)
    await network.close()


async def test_nothing_runs_after_close(network: Network) -> None:
    before = asyncio.all_tasks()
    one, two = await network.pair()
    two.recorder.may_take.clear()
    sending = asyncio.create_task(one.transport.send_snapshot(offer(), pieces_of([b"x"] * 9)))
    await two.recorder.until(lambda: bool(two.recorder.pieces))
    one.transport.send(append(1))

    sending.cancel()
    await asyncio.wait({sending})
    await network.close()

    assert not [task for task in asyncio.all_tasks() - before if "connect_kv" in repr(task)]
    one.transport.send(append(2))  # harmless
