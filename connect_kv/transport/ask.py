"""Calls of services that one member has another carry out."""

from __future__ import annotations

from dataclasses import replace

from google.protobuf.message import DecodeError

from connect_kv.interfaces import PeerReceiver
from connect_kv.peer_protocol import Hello, HelloReply, HelloVerdict
from connect_kv.rpc import raft_pb2 as pb
from connect_kv.transport.codec import BadMessage, hello_from_wire, hello_reply_from_wire, hello_to_wire
from connect_kv.transport.limits import SERVICE
from connect_kv.transport.seal import intact, seal
from connect_kv.transport.stream import describe_failure
from connect_kv.transport.wire import CALL_FAILURES, PeerWire


async def ask(address: str, hello: Hello, method: str, request: bytes, wire: PeerWire) -> bytes:
    """Ask over a connection of its own: such calls are rare, and may take as long as their caller waits.

    Raises ConnectionRefusedError while nothing has been sent, ConnectionError if the answer is lost.
    """
    asked = pb.AskRequest(hello=hello_to_wire(hello), method=method, request=request)
    try:
        channel = await wire.open(address)
    except CALL_FAILURES as error:
        raise ConnectionRefusedError(f"{address}: cannot be reached: {describe_failure(error)}") from error
    try:
        judged, answer = decode_reply(await channel.unary(f"/{SERVICE}/Ask", seal(asked.SerializeToString())))
    except (*CALL_FAILURES, BadMessage) as error:
        raise ConnectionError(f"{address}: {describe_failure(error)}") from error
    finally:
        await channel.close()
    if judged.verdict is not HelloVerdict.WELCOME:
        raise ConnectionRefusedError(f"{address}: {judged.verdict.name} {judged.detail}".rstrip())
    return answer


def decode_reply(data: bytes) -> tuple[HelloReply, bytes]:
    """Whether it was heard, and what was answered. Raises BadMessage."""
    try:
        wire = pb.AskReply.FromString(data)
    except DecodeError as error:
        raise BadMessage(f"not an answer: {error}") from error
    if not intact(data):
        raise BadMessage("answer: checksum mismatch")
    return hello_reply_from_wire(wire.hello), wire.answer


async def answer_ask(request: bytes, receiver: PeerReceiver, names: frozenset[str] | None = None) -> bytes:
    """The answering side; `names`: those in the asker's certificate. Raises BadMessage."""
    try:
        wire = pb.AskRequest.FromString(request)
    except DecodeError as error:
        raise BadMessage(f"not a call: {error}") from error
    if not intact(request):
        raise BadMessage("call: checksum mismatch")
    if not wire.HasField("hello"):
        raise BadMessage("a call without a hello")
    try:
        answer = await receiver.answer(
            replace(hello_from_wire(wire.hello), certified=names), wire.method, wire.request
        )
    except PermissionError as error:
        verdict = pb.HelloReply(verdict=pb.UNKNOWN_MEMBER, detail=str(error))
        return seal(pb.AskReply(hello=verdict).SerializeToString())
    return seal(pb.AskReply(hello=pb.HelloReply(), answer=answer).SerializeToString())
