"""Snapshot streams: resumed by the same sender and id alone, and never installed damaged."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from connect_kv.http2.metadata import StatusError
from connect_kv.peer_protocol import SnapshotOffer
from connect_kv.transport.http2_wire import Http2Wire
from connect_kv.transport.limits import SERVICE, TransportLimits
from connect_kv.transport.snapshot_codec import (
    ASK,
    ChunkSum,
    SnapshotAnswer,
    chunk_checksum,
    decode_answer,
    decode_frame,
    encode_chunks,
    encode_end,
    encode_header,
)
from tests.transport.helpers import Network, Node, offer, pieces_of
from tests.transport.proxy import Proxy

PIECES = [b"a" * 100, b"b" * 100, b"c" * 100, b"d" * 100]


async def frames_of(pieces: list[bytes]) -> tuple[list[bytes], bytes]:
    """The chunk frames and the end."""
    total = ChunkSum()
    return [frame async for frame in encode_chunks(pieces_of(pieces), total, 1 << 20)], encode_end(total)


class Sender:
    """A sender that sends exactly what it is told."""

    def __init__(self, node: Node) -> None:
        self._address = node.transport.address
        self._wire = Http2Wire(TransportLimits())

    async def stream(self, offered: SnapshotOffer, offset: int, frames: list[bytes]) -> SnapshotAnswer:
        channel = await self._wire.open(self._address)
        try:
            call = channel.stream(f"/{SERVICE}/InstallSnapshot")
            with suppress(StatusError):  # it may be over before all was sent: reading tells how
                for frame in (encode_header(offered, offset), *frames):
                    await call.write(frame)
                call.end()
            answer = await call.read()
            assert answer is not None
            return decode_answer(answer)
        finally:
            await channel.close()

    async def break_off(self, offered: SnapshotOffer, offset: int, frames: list[bytes]) -> None:
        with pytest.raises(StatusError):
            await self.stream(offered, offset, frames)


@pytest.fixture
async def two(network: Network) -> Node:
    return await network.node(2)


@pytest.fixture
def sender(two: Node) -> Sender:
    return Sender(two)


async def test_same_sender_goes_on_where_the_stream_broke(two: Node, sender: Sender) -> None:
    frames, end = await frames_of(PIECES)
    await sender.break_off(offer(), 0, frames[:2])

    assert await sender.stream(offer(), ASK, []) == SnapshotAnswer(received_chunks=2)
    answer = await sender.stream(offer(), 2, [*frames[2:], end])

    assert answer == SnapshotAnswer(installed=True, received_chunks=4)
    assert two.recorder.pieces == PIECES
    assert len(two.recorder.offers) == 1


async def test_answer_that_was_lost_can_be_asked_for_again(two: Node, sender: Sender) -> None:
    frames, end = await frames_of(PIECES)
    await sender.stream(offer(), 0, [*frames, end])

    answer = await sender.stream(offer(), 4, [end])

    assert answer == SnapshotAnswer(installed=True, received_chunks=4)
    assert two.recorder.installed == 1


@pytest.mark.parametrize("stranger", [offer(source=3), offer(snapshot_id=78)], ids=["sender", "id"])
async def test_nobody_else_goes_on(two: Node, sender: Sender, stranger: SnapshotOffer) -> None:
    frames, end = await frames_of(PIECES)
    await sender.break_off(offer(), 0, frames[:2])

    assert await sender.stream(stranger, 2, []) == SnapshotAnswer(received_chunks=0)
    assert two.recorder.installed == 0

    answer = await sender.stream(offer(), 2, [*frames[2:], end])
    assert answer.installed


async def test_from_the_beginning_is_a_new_snapshot(two: Node, sender: Sender) -> None:
    frames, end = await frames_of(PIECES)
    await sender.break_off(offer(), 0, frames[:2])

    answer = await sender.stream(offer(snapshot_id=78), 0, [*frames, end])

    assert answer.installed
    assert two.recorder.pieces == [*PIECES[:2], *PIECES]
    assert two.recorder.installed == 1


async def test_damaged_chunk_is_not_handed_on_and_can_be_sent_again(two: Node, sender: Sender) -> None:
    frames, end = await frames_of(PIECES)
    damaged = frames[1].replace(b"bbbb", b"bbbx")

    await sender.break_off(offer(), 0, [frames[0], damaged, *frames[2:], end])
    assert two.recorder.pieces == PIECES[:1]

    assert (await sender.stream(offer(), 1, [*frames[1:], end])).installed
    assert two.recorder.pieces == PIECES


async def test_missing_chunk_or_wrong_end_is_never_installed(two: Node, sender: Sender) -> None:
    frames, end = await frames_of(PIECES)
    _, other_end = await frames_of(PIECES[:2])

    await sender.break_off(offer(), 0, [frames[0], frames[2]])
    await sender.break_off(offer(snapshot_id=2), 0, [*frames, other_end])
    await sender.break_off(offer(snapshot_id=3), 0, [*frames[:3], end])

    assert two.recorder.installed == 0


async def test_broken_stream_that_nobody_continues_is_given_up(
    network: Network, two: Node, sender: Sender
) -> None:
    frames, _ = await frames_of(PIECES)
    await sender.break_off(offer(), 0, frames[:2])
    network.clock.released.set()

    async with asyncio.timeout(60):  # who asks while it is being given up is told that
        while await sender.stream(offer(), ASK, []) != SnapshotAnswer(received_chunks=0):
            pass
    assert two.recorder.installed == 0


async def test_transport_resumes_by_itself_through_broken_connections(network: Network) -> None:
    one, two = await network.node(1), await network.node(2)
    proxy = Proxy(two.transport.address)
    one.transport.set_peers({2: await proxy.start()})
    await one.introduced(2)
    pieces = [bytes([number]) * 300_000 for number in range(40)]
    proxy.cut_after = 5_000_000

    await one.transport.send_snapshot(offer(), pieces_of(pieces))

    assert proxy.connections >= 3  # messages, the snapshot, and the snapshot again
    assert two.recorder.pieces == pieces
    assert len(two.recorder.offers) == 1
    await proxy.close()


async def test_no_chunk_exceeds_the_limit_and_pieces_stay_whole() -> None:
    frames = [
        decode_frame(frame).chunk
        async for frame in encode_chunks(pieces_of([b"x" * 25, b"", b"y"]), ChunkSum(), 10)
    ]

    assert [len(chunk.data) for chunk in frames] == [10, 10, 5, 0, 1]
    assert [chunk.partial for chunk in frames] == [True, True, False, False, False]
    sums = [chunk_checksum(chunk.number, chunk.partial, chunk.data) for chunk in frames]
    assert [chunk.checksum for chunk in frames] == sums
