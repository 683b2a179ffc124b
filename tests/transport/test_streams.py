"""What the gRPC transport does about peers and connections that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from connect_kv.peer_protocol import HelloVerdict, Loss
from connect_kv.raft.messages import TimeoutNow
from connect_kv.transport.codec import decode_frame, encode_frame
from connect_kv.transport.limits import TransportLimits
from tests.transport.helpers import Network, Node, append, connect, heartbeat, hello_of
from tests.transport.proxy import Proxy

Stream = grpc.aio.StreamStreamCall[bytes, bytes]


async def raw_stream(channel: grpc.aio.Channel, source: int = 1) -> Stream:
    """A welcomed stream to node 2, to write on what no transport would."""
    method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
        "/connect_kv.v1.Raft/AppendEntries"
    )
    call = method()
    await call.write(encode_frame(hello=hello_of(source)(2)))
    answer = await call.read()
    assert isinstance(answer, bytes)
    reply = decode_frame(answer).hello_reply
    assert reply is not None
    assert reply.verdict is HelloVerdict.WELCOME
    return call


def corrupted() -> bytes:
    """An append whose data changed after its checksum was made."""
    return encode_frame((append(1, b"good data"),)).replace(b"good", b"evil")


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (corrupted(), "checksum mismatch"),
        (b"\xff\xff\xff", "not a frame"),
        (encode_frame((append(1, source=3),)), "from 3 to 2"),
        (encode_frame((append(1, target=3),)), "from 1 to 3"),
    ],
    ids=["corrupted", "garbage", "forged source", "other target"],
)
async def test_bad_frame_ends_its_stream_and_nothing_else(network: Network, frame: bytes, text: str) -> None:
    two = await network.node(2)
    async with grpc.aio.insecure_channel(two.transport.address) as channel:
        bad, good = await raw_stream(channel), await raw_stream(channel, source=4)

        await bad.write(frame)
        assert await bad.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert text in str(await bad.details())

        await good.write(encode_frame((append(5, source=4),)))
        assert list(await two.recorder.received(1)) == [append(5, source=4)]


async def test_stream_that_does_not_begin_with_a_hello_is_refused(network: Network) -> None:
    two = await network.node(2)
    async with grpc.aio.insecure_channel(two.transport.address) as channel:
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
            "/connect_kv.v1.Raft/Forward"
        )
        call = method()
        await call.write(encode_frame((append(1),)))
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not two.recorder.messages


async def test_letter_in_another_members_name_is_refused(network: Network) -> None:
    two = await network.node(2)
    async with grpc.aio.insecure_channel(two.transport.address) as channel:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/connect_kv.v1.Raft/TimeoutNow"
        )
        letter = encode_frame((TimeoutNow(source=3, target=2, term=9),), hello=hello_of(1)(2))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await method(letter)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not two.recorder.messages


async def test_message_too_large_is_dropped_and_the_next_one_passes(network: Network) -> None:
    limits = TransportLimits(max_batch_bytes=1000, max_entry_bytes=1000)
    one, two = await network.node(1, limits=limits), await network.node(2, limits=limits)
    connect(one, two)
    await one.introduced(2)

    one.transport.send(append(1, b"x" * 3000))
    one.transport.send(append(2, b"x" * 1500))

    await one.recorder.until(lambda: one.recorder.unreachable_ids == [2])
    assert list(await two.recorder.received(1)) == [append(2, b"x" * 1500)]


async def test_receiver_survives_a_sender_that_allows_itself_more(network: Network) -> None:
    one = await network.node(1)
    two = await network.node(2, limits=TransportLimits(max_batch_bytes=1000, max_entry_bytes=1000))
    connect(one, two)
    await one.introduced(2)

    one.transport.send(append(1, b"x" * 100_000))
    await one.recorder.until(lambda: 2 in one.recorder.unreachable_ids)
    one.recorder.replies.clear()
    await one.introduced(2)
    one.transport.send(append(2))

    assert list(await two.recorder.received(1)) == [append(2)]


@pytest.fixture
async def proxied(network: Network) -> AsyncIterator[tuple[Node, Node, Proxy]]:
    """Node 1 reaches node 2 through a relay."""
    one, two = await network.node(1), await network.node(2)
    proxy = Proxy(two.transport.address)
    one.transport.set_peers({2: await proxy.start()})
    await one.introduced(2)
    yield one, two, proxy
    await proxy.close()


async def test_broken_connection_is_reported_and_made_again(proxied: tuple[Node, Node, Proxy]) -> None:
    one, two, proxy = proxied
    one.recorder.replies.clear()

    proxy.cut()

    await one.recorder.until(lambda: 2 in one.recorder.unreachable_ids)
    await one.introduced(2)
    one.transport.send(append(1))
    assert list(await two.recorder.received(1)) == [append(1)]


async def test_silent_peer_is_noticed_before_two_election_timeouts(
    proxied: tuple[Node, Node, Proxy],
) -> None:
    """No reset ever comes from a machine without power: only its missing signs of life tell."""
    one, _, proxy = proxied
    loop = asyncio.get_running_loop()
    proxy.stall()
    started = loop.time()

    one.transport.send(append(1))
    await one.recorder.until(lambda: 2 in one.recorder.unreachable_ids)

    assert loop.time() - started < 4


async def test_flood_towards_a_stalled_peer_is_bounded_and_heartbeats_come_first(
    proxied: tuple[Node, Node, Proxy],
) -> None:
    one, two, proxy = proxied
    proxy.stall()
    data = b"x" * (1 << 20)

    for index in range(1, 61):
        one.transport.send(append(index, data))
    one.transport.send(heartbeat(1))

    await one.recorder.until(lambda: 2 in one.recorder.unreachable_ids)
    proxy.resume()
    received = await two.recorder.received(2)
    await two.recorder.until(lambda: heartbeat(1) in received)
    assert len(received) < 40
    assert received.index(heartbeat(1)) < 30


async def test_streams_open_again_only_slowly_while_the_peer_is_away(network: Network) -> None:
    one, two = await network.pair()
    await two.transport.close()
    await one.recorder.until(lambda: 2 in one.recorder.unreachable_ids)

    assert all(pause >= 0.1 for pause in network.clock.pauses)
    assert max(network.clock.pauses) <= 1.0


async def test_what_became_of_a_lost_peer_is_told(network: Network) -> None:
    """A connection that broke, nobody who listens, no such name: an operator mends each elsewhere."""
    one, two = await network.pair()
    address = two.transport.address
    await two.transport.close()
    await one.recorder.until(lambda: (2, Loss.SILENT) in one.recorder.losses)
    one.transport.send(TimeoutNow(source=1, target=2, term=1))
    await one.recorder.until(lambda: (2, Loss.REFUSED) in one.recorder.losses)

    one.transport.set_peers({2: address, 3: "no-such-host.invalid:1"})
    await one.recorder.until(lambda: (3, Loss.UNRESOLVED) in one.recorder.losses)
