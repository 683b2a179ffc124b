"""Messages between members to raft.proto and back.

What comes in was written by another process, perhaps of another version, perhaps damaged on its
way: whatever is wrong with it becomes BadMessage, and nothing of the frame is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

from google.protobuf.message import DecodeError

from connect_kv.errors import ConnectKvError
from connect_kv.peer_protocol import (
    ForwardOutcome,
    ForwardRefusal,
    ForwardRequest,
    ForwardResponse,
    Hello,
    HelloReply,
    HelloVerdict,
    PeerMessage,
    Proposal,
)
from connect_kv.protowire import varint
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
from connect_kv.rpc import raft_pb2 as pb
from connect_kv.transport.seal import checksum, intact, seal

_MESSAGES = bytes((pb.PeerFrame.MESSAGES_FIELD_NUMBER << 3 | 2,))


class BadMessage(ConnectKvError):
    """A frame is damaged, not ours, or cannot be put on the wire. Nothing of it was used."""


class Frame(NamedTuple):
    """One frame of a stream, decoded."""

    hello: Hello | None
    hello_reply: HelloReply | None
    messages: tuple[PeerMessage, ...]


def encode_frame(
    messages: Iterable[PeerMessage] = (), *, hello: Hello | None = None, hello_reply: HelloReply | None = None
) -> bytes:
    """One frame. Frames that hold only messages may be joined: ``a + b`` is one frame with both.

    Raises BadMessage for what the wire cannot hold.
    """
    encoded = [_encode_message(message) for message in messages]
    if hello is None and hello_reply is None:
        return _joined(encoded)
    frame = pb.PeerFrame(messages=map(seal, encoded))
    if hello is not None:
        frame.hello.CopyFrom(hello_to_wire(hello))
    if hello_reply is not None:
        frame.hello_reply.CopyFrom(hello_reply_to_wire(hello_reply))
    return seal(frame.SerializeToString())


def _joined(messages: Iterable[bytes]) -> bytes:
    """A PeerFrame of these, each sealed. Protobuf would copy each of them twice more."""
    pieces: list[bytes] = []
    for message in messages:
        closing = checksum(message)
        pieces += (_MESSAGES, varint(len(message) + len(closing)), message, closing)
    return b"".join(pieces)


def decode_frame(data: bytes) -> Frame:
    """The frame that was encoded. Raises BadMessage for anything that `encode_frame` does not make."""
    frame = pb.PeerFrame()
    try:
        frame.ParseFromString(data)
    except DecodeError as error:
        raise BadMessage(f"not a frame: {error}") from error
    hello = hello_from_wire(frame.hello) if frame.HasField("hello") else None
    reply = hello_reply_from_wire(frame.hello_reply) if frame.HasField("hello_reply") else None
    if (hello or reply) and not intact(data):
        raise BadMessage("hello: checksum mismatch")
    return Frame(hello, reply, tuple([_decode_message(wire) for wire in frame.messages]))


def _encode_message(message: PeerMessage) -> bytes:
    encoder = _ENCODERS.get(type(message))
    if encoder is None:
        raise BadMessage(f"{type(message).__name__} does not travel between members")
    try:
        wire = pb.PeerMessage(source=message.source, target=message.target)
        encoder(message, wire)
    except (ValueError, TypeError) as error:
        raise BadMessage(f"cannot be sent: {error}") from error
    return wire.SerializeToString()


def _decode_message(data: bytes) -> PeerMessage:
    if not intact(data):
        raise BadMessage("message: checksum mismatch")
    try:
        wire = pb.PeerMessage.FromString(data)
    except DecodeError as error:
        raise BadMessage(f"not a message: {error}") from error
    body = wire.WhichOneof("body")
    if body is None:
        raise BadMessage("a message of a kind unknown to this version")
    return _DECODERS[body](wire)


# Introductions

_HELLO_FIELDS = (
    "cluster_id", "source", "target", "directory_id", "protocol", "oldest_protocol", "highest_command",
    "machines",
)  # fmt: skip


def hello_to_wire(hello: Hello) -> pb.Hello:
    """For every head of a stream, unary call, snapshot or question."""
    try:
        return pb.Hello(**{field: getattr(hello, field) for field in _HELLO_FIELDS})
    except (ValueError, TypeError) as error:
        raise BadMessage(f"hello cannot be sent: {error}") from error


def hello_from_wire(wire: pb.Hello) -> Hello:
    """The greeting that a message holds."""
    return Hello(**{field: getattr(wire, field) for field in _HELLO_FIELDS})


def hello_reply_to_wire(reply: HelloReply) -> pb.HelloReply:
    """The answer to a Hello."""
    return pb.HelloReply(
        verdict=pb.Verdict.Value(reply.verdict.name),
        detail=reply.detail,
        protocol=reply.protocol,
        highest_command=reply.highest_command,
        directory_id=reply.directory_id,
        term=reply.term,
        machines=reply.machines,
    )


def hello_reply_from_wire(wire: pb.HelloReply) -> HelloReply:
    """The answer to a greeting that a message holds. Raises BadMessage for a verdict of a later version."""
    try:
        verdict = HelloVerdict(wire.verdict)
    except ValueError as error:
        raise BadMessage(f"unknown verdict {wire.verdict}: {wire.detail}") from error
    return HelloReply(
        verdict=verdict,
        detail=wire.detail,
        protocol=wire.protocol,
        highest_command=wire.highest_command,
        directory_id=wire.directory_id,
        term=wire.term,
        machines=wire.machines,
    )


# Elections


def _encode_vote_request(message: VoteRequest, wire: pb.PeerMessage) -> None:
    wire.term = message.term
    body = wire.vote_request
    body.last.term, body.last.index = message.last
    body.pre_vote, body.transfer = message.pre_vote, message.transfer


def _decode_vote_request(wire: pb.PeerMessage) -> VoteRequest:
    body = wire.vote_request
    return VoteRequest(
        source=wire.source,
        target=wire.target,
        term=wire.term,
        last=EntryId(body.last.term, body.last.index),
        pre_vote=body.pre_vote,
        transfer=body.transfer,
    )


# Replication

_KINDS = {kind.value: kind for kind in EntryKind}


def _encode_append_request(message: AppendRequest, wire: pb.PeerMessage) -> None:
    wire.term = message.term
    body = wire.append_request
    body.prev.term, body.prev.index = message.prev
    body.commit_index = message.commit_index
    for entry in message.entries:
        term, index = entry.id
        body.entries.add(term=term, index=index, kind=int(entry.kind), data=entry.data)


def _decode_append_request(wire: pb.PeerMessage) -> AppendRequest:
    body = wire.append_request
    expected = body.prev.index
    entries: list[Entry] = []
    for item in body.entries:
        term, index, kind, data = item.term, item.index, item.kind, item.data
        expected += 1
        if index != expected:
            raise BadMessage(f"entries not contiguous: {index} where {expected} was due")
        if kind not in _KINDS:
            raise BadMessage(f"entry {index} of term {term}: kind {kind} unknown, upgrade this member")
        entries.append(Entry(EntryId(term, index), _KINDS[kind], data))
    return AppendRequest(
        source=wire.source,
        target=wire.target,
        term=wire.term,
        prev=EntryId(body.prev.term, body.prev.index),
        entries=tuple(entries),
        commit_index=body.commit_index,
    )


def _encode_append_response(message: AppendResponse, wire: pb.PeerMessage) -> None:
    wire.term = message.term
    body = wire.append_response
    body.SetInParent()
    body.accepted = message.accepted
    body.match_index, body.prev_index = message.match_index, message.prev_index
    body.hint_term, body.hint_index = message.hint


def _decode_append_response(wire: pb.PeerMessage) -> AppendResponse:
    body = wire.append_response
    return AppendResponse(
        source=wire.source,
        target=wire.target,
        term=wire.term,
        accepted=body.accepted,
        match_index=body.match_index,
        prev_index=body.prev_index,
        hint=EntryId(body.hint_term, body.hint_index),
    )


# What followers ask of the leader


def _encode_forward_request(message: ForwardRequest, wire: pb.PeerMessage) -> None:
    body = wire.forward_request
    body.SetInParent()
    for proposal in message.proposals:
        body.proposals.add(id=proposal.id, payload=proposal.payload, count=proposal.count)


def _decode_forward_request(wire: pb.PeerMessage) -> ForwardRequest:
    proposals = [
        Proposal(id=item.id, payload=item.payload, count=item.count)
        for item in wire.forward_request.proposals
    ]
    return ForwardRequest(source=wire.source, target=wire.target, proposals=tuple(proposals))


def _encode_forward_response(message: ForwardResponse, wire: pb.PeerMessage) -> None:
    body = wire.forward_response
    body.SetInParent()
    for outcome in message.outcomes:
        item = body.outcomes.add(id=outcome.id, offset=outcome.offset)
        if outcome.entry is not None:
            item.entry.SetInParent()
            item.entry.term, item.entry.index = outcome.entry
        if outcome.refusal is not None:
            item.refusal = outcome.refusal.value


def _decode_forward_response(wire: pb.PeerMessage) -> ForwardResponse:
    outcomes = tuple([_decode_outcome(item) for item in wire.forward_response.outcomes])
    return ForwardResponse(source=wire.source, target=wire.target, outcomes=outcomes)


def _decode_outcome(item: pb.ForwardResponse.Outcome) -> ForwardOutcome:
    entry = EntryId(item.entry.term, item.entry.index) if item.HasField("entry") else None
    try:
        refusal = ForwardRefusal(item.refusal) if item.refusal else None
    except ValueError as error:
        raise BadMessage(f"unknown refusal {item.refusal}") from error
    if (entry is None) == (refusal is None):
        # Never guessed: "not proposed" is a promise to the caller.
        raise BadMessage(f"proposal {item.id} must be either appended or refused")
    return ForwardOutcome(id=item.id, entry=entry, offset=item.offset, refusal=refusal)


# Messages of numbers and yes or no, called alike here and on the wire


def _encode_plain(body: str, fields: Sequence[str], message: PlainMessage, wire: pb.PeerMessage) -> None:
    wire.term = message.term
    target = getattr(wire, body)
    # Set explicitly: a refusal is all defaults, and an unset body is no message at all.
    target.SetInParent()
    for field in fields:
        setattr(target, field, getattr(message, field))


def _decode_plain(
    kind: type[PlainMessage], body: str, fields: Sequence[str], wire: pb.PeerMessage
) -> PlainMessage:
    found = getattr(wire, body)
    numbers = {field: getattr(found, field) for field in fields}
    return kind(source=wire.source, target=wire.target, term=wire.term, **numbers)


PlainMessage = (
    VoteResponse | HeartbeatRequest | HeartbeatResponse | TimeoutNow | ReadIndexRequest | ReadIndexResponse
)

_PLAIN: dict[type[PlainMessage], tuple[str, tuple[str, ...]]] = {
    VoteResponse: ("vote_response", ("granted", "pre_vote", "date")),
    HeartbeatRequest: ("heartbeat_request", ("commit_index", "round", "date")),
    HeartbeatResponse: ("heartbeat_response", ("round", "date")),
    TimeoutNow: ("timeout_now", ()),
    ReadIndexRequest: ("read_index_request", ("context",)),
    ReadIndexResponse: ("read_index_response", ("context", "index", "date")),
}

_ENCODERS: dict[type, Callable[..., None]] = {
    VoteRequest: _encode_vote_request,
    AppendRequest: _encode_append_request,
    AppendResponse: _encode_append_response,
    ForwardRequest: _encode_forward_request,
    ForwardResponse: _encode_forward_response,
    **{kind: partial(_encode_plain, body, fields) for kind, (body, fields) in _PLAIN.items()},
}

_DECODERS: dict[str, Callable[[pb.PeerMessage], PeerMessage]] = {
    "vote_request": _decode_vote_request,
    "append_request": _decode_append_request,
    "append_response": _decode_append_response,
    "forward_request": _decode_forward_request,
    "forward_response": _decode_forward_response,
    **{body: partial(_decode_plain, kind, body, fields) for kind, (body, fields) in _PLAIN.items()},
}
