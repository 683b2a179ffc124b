"""What a starting member asks of a running one before it takes part."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from google.protobuf.message import DecodeError

from connect_kv.interfaces import PeerReceiver
from connect_kv.peer_protocol import Description, Hello
from connect_kv.raft.types import Membership
from connect_kv.rpc import raft_pb2 as pb
from connect_kv.transport.codec import (
    BadMessage,
    hello_from_wire,
    hello_reply_from_wire,
    hello_reply_to_wire,
    hello_to_wire,
)
from connect_kv.transport.limits import SERVICE
from connect_kv.transport.seal import intact, seal
from connect_kv.transport.stream import describe_failure
from connect_kv.transport.wire import CALL_FAILURES, PeerWire

_TIMEOUT = 3.0
"""Seconds for connecting and for the answer, which may wait for a disk to note the asker."""


async def ask_describe(address: str, asker: Hello, peer_address: str, wire: PeerWire) -> Description:
    """Ask the member at `address`, over a connection of its own. Raises OSError if there is no answer."""
    request = pb.DescribeRequest(asker=hello_to_wire(asker), peer_address=peer_address)
    try:
        async with asyncio.timeout(_TIMEOUT):
            channel = await wire.open(address)
            try:
                path = f"/{SERVICE}/Describe"
                return decode_description(await channel.unary(path, seal(request.SerializeToString())))
            finally:
                await channel.close()
    except (*CALL_FAILURES, BadMessage) as error:
        raise ConnectionError(f"{address}: {describe_failure(error)}") from error


async def answer_describe(
    request: bytes, receiver: PeerReceiver, names: frozenset[str] | None = None
) -> bytes:
    """The answering side; `names`: those in the asker's certificate. Raises BadMessage."""
    wire = pb.DescribeRequest()
    try:
        wire.ParseFromString(request)
    except DecodeError as error:
        raise BadMessage(f"not a question: {error}") from error
    if not intact(request):
        raise BadMessage("question: checksum mismatch")
    if not wire.HasField("asker"):
        raise BadMessage("a question without a hello")
    answer = await receiver.describe(replace(hello_from_wire(wire.asker), certified=names), wire.peer_address)
    reply = pb.DescribeReply(
        cluster_id=answer.cluster_id,
        node_id=answer.node_id,
        membership=answer.membership.encode(),
        hello=hello_reply_to_wire(answer.hello),
        leader_id=answer.leader_id or 0,
        term=answer.term,
    )
    return seal(reply.SerializeToString())


def decode_description(data: bytes) -> Description:
    """What a member answered. Raises BadMessage."""
    wire = pb.DescribeReply()
    try:
        wire.ParseFromString(data)
        membership = Membership.decode(wire.membership)
    except (DecodeError, ValueError) as error:
        raise BadMessage(f"not a description: {error}") from error
    if not intact(data):
        raise BadMessage("description: checksum mismatch")
    return Description(
        cluster_id=wire.cluster_id,
        node_id=wire.node_id,
        membership=membership,
        hello=hello_reply_from_wire(wire.hello),
        leader_id=wire.leader_id or None,
        term=wire.term,
    )
