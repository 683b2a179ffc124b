"""Frames of a snapshot stream: a header, numbered chunks with checksums, an end."""

from __future__ import annotations

import struct
import zlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from connect_kv.peer_protocol import HelloReply, SnapshotOffer
from connect_kv.raft.types import EntryId, Membership, SnapshotMeta
from connect_kv.rpc import raft_pb2 as pb
from connect_kv.transport.codec import (
    BadMessage,
    hello_from_wire,
    hello_reply_from_wire,
    hello_reply_to_wire,
    hello_to_wire,
)
from connect_kv.transport.seal import intact, seal

ASK = 2**64 - 1
"""An offset no stream has: a header with it only asks where to go on. No chunks follow, so the
answer cannot be lost to a write that comes too late."""

_CHECKSUM = struct.Struct("<I")
_CHUNK_HEAD = struct.Struct("<QB")
"""number, partial: under the checksum, before the data"""


def chunk_checksum(number: int, partial: bool, data: bytes) -> int:
    """What closes a chunk."""
    return zlib.crc32(data, zlib.crc32(_CHUNK_HEAD.pack(number, partial)))


class ChunkSum:
    """Number of chunks and checksum over their checksums, as they pass."""

    def __init__(self) -> None:
        self.chunks = 0
        self.checksum = 0

    def add(self, checksum: int) -> None:
        """Count a chunk, and take its checksum into that over all."""
        self.chunks += 1
        self.checksum = zlib.crc32(_CHECKSUM.pack(checksum), self.checksum)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotAnswer:
    """How a stream ended."""

    hello: HelloReply | None = None
    """Set if the sender was not welcomed."""
    installed: bool = False
    error: str = ""
    """Why it was refused for good. Without it, and not installed: go on at `received_chunks`."""
    received_chunks: int = 0


def encode_header(offer: SnapshotOffer, offset: int) -> bytes:
    """The first frame; chunk number `offset` follows."""
    header = pb.SnapshotHeader(
        hello=hello_to_wire(offer.hello),
        term=offer.term,
        last=pb.Id(term=offer.meta.last.term, index=offer.meta.last.index),
        membership=offer.meta.membership.encode(),
        snapshot_id=offer.snapshot_id,
        offset=offset,
        approximate_bytes=offer.approximate_bytes,
    )
    return seal(pb.SnapshotFrame(header=header).SerializeToString())


def decode_frame(data: bytes) -> pb.SnapshotFrame:
    """Any frame. Raises BadMessage."""
    frame = pb.SnapshotFrame()
    try:
        frame.ParseFromString(data)
    except DecodeError as error:
        raise BadMessage(f"not a snapshot frame: {error}") from error
    if not frame.HasField("chunk") and not intact(data):
        raise BadMessage("snapshot: checksum mismatch")
    return frame


def decode_header(data: bytes) -> tuple[SnapshotOffer, int]:
    """What is offered, and the number of the chunk that follows. Raises BadMessage."""
    frame = decode_frame(data)
    if not frame.HasField("header"):
        raise BadMessage("a snapshot stream must begin with a header")
    header = frame.header
    try:
        membership = Membership.decode(header.membership)
    except ValueError as error:
        raise BadMessage(f"snapshot header: {error}") from error
    offer = SnapshotOffer(
        hello=hello_from_wire(header.hello),
        term=header.term,
        meta=SnapshotMeta(EntryId(header.last.term, header.last.index), membership),
        snapshot_id=header.snapshot_id,
        approximate_bytes=header.approximate_bytes,
    )
    return offer, header.offset


async def encode_chunks(
    pieces: AsyncIterator[bytes], total: ChunkSum, max_bytes: int
) -> AsyncGenerator[bytes, None]:
    """A frame for each piece, more for one above `max_bytes`; counted in `total`."""
    async for piece in pieces:
        for start in range(0, len(piece) or 1, max_bytes):
            data = piece[start : start + max_bytes]
            partial = start + max_bytes < len(piece)
            checksum = chunk_checksum(total.chunks, partial, data)
            chunk = pb.SnapshotChunk(number=total.chunks, data=data, checksum=checksum, partial=partial)
            total.add(checksum)
            yield pb.SnapshotFrame(chunk=chunk).SerializeToString()


def encode_end(total: ChunkSum) -> bytes:
    """The last frame."""
    end = pb.SnapshotEnd(chunks=total.chunks, checksum=total.checksum)
    return seal(pb.SnapshotFrame(end=end).SerializeToString())


def encode_answer(answer: SnapshotAnswer) -> bytes:
    """The receiver's only answer."""
    reply = pb.SnapshotReply(
        hello=None if answer.hello is None else hello_reply_to_wire(answer.hello),
        installed=answer.installed,
        error=answer.error,
        received_chunks=answer.received_chunks,
    )
    return seal(reply.SerializeToString())


def decode_answer(data: bytes) -> SnapshotAnswer:
    """What the receiver of a snapshot answered. Raises BadMessage."""
    wire = pb.SnapshotReply()
    try:
        wire.ParseFromString(data)
    except DecodeError as error:
        raise BadMessage(f"not an answer to a snapshot: {error}") from error
    if not intact(data):
        raise BadMessage("answer to a snapshot: checksum mismatch")
    return SnapshotAnswer(
        hello=hello_reply_from_wire(wire.hello) if wire.HasField("hello") else None,
        installed=wire.installed,
        error=wire.error,
        received_chunks=wire.received_chunks,
    )
