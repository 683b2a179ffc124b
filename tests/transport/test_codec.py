"""The wire form of peer messages: equal after a round trip, and bad bytes end as BadMessage alone."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connect_kv.peer_protocol import Hello, HelloReply, HelloVerdict, PeerMessage
from connect_kv.raft.messages import (
    AppendRequest,
    AppendResponse,
    HeartbeatRequest,
    HeartbeatResponse,
    InstallSnapshot,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from connect_kv.raft.types import Entry, EntryId, EntryKind, Membership, SnapshotMeta
from connect_kv.rpc import raft_pb2 as pb
from connect_kv.transport.codec import BadMessage, decode_frame, encode_frame
from connect_kv.transport.seal import seal
from tests.contract.test_transport import MESSAGES
from tests.transport.helpers import append, heartbeat, hello_of

numbers = st.integers(0, 2**64 - 1)


@st.composite
def appends(draw: st.DrawFn) -> AppendRequest:
    first = draw(st.integers(1, 2**60))
    kinds = draw(st.lists(st.tuples(numbers, st.sampled_from(EntryKind), st.binary(max_size=50)), max_size=9))
    entries = [
        Entry(EntryId(term, first + position), kind, data)
        for position, (term, kind, data) in enumerate(kinds)
    ]
    return AppendRequest(
        source=draw(numbers),
        target=draw(numbers),
        term=draw(numbers),
        prev=EntryId(draw(numbers), first - 1),
        entries=tuple(entries),
        commit_index=draw(numbers),
    )


@given(appends())
@settings(max_examples=100, deadline=None)
def test_appends_round_trip(message: AppendRequest) -> None:
    assert decode_frame(encode_frame((message,))).messages == (message,)


@given(numbers, numbers, numbers, st.booleans(), numbers, numbers, numbers, numbers)
@settings(max_examples=50, deadline=None)
def test_append_responses_round_trip(
    source: int, target: int, term: int, accepted: bool, match: int, prev: int, hint_term: int, hint: int
) -> None:
    message = AppendResponse(
        source=source,
        target=target,
        term=term,
        accepted=accepted,
        match_index=match,
        prev_index=prev,
        hint=EntryId(hint_term, hint),
    )
    assert decode_frame(encode_frame((message,))).messages == (message,)


def test_introductions_round_trip() -> None:
    hello, reply = hello_of(1)(2), HelloReply(verdict=HelloVerdict.AMNESIA, detail="d", protocol=2)

    frame = decode_frame(encode_frame(MESSAGES, hello=hello, hello_reply=reply))

    assert frame == (hello, reply, tuple(MESSAGES))


@pytest.mark.parametrize(
    "kind",
    [VoteResponse, HeartbeatRequest, HeartbeatResponse, TimeoutNow, ReadIndexRequest, ReadIndexResponse],
)
def test_every_field_of_a_plain_message_is_on_the_wire(kind: Any) -> None:
    """A field that the table of names leaves out would arrive as its default."""
    values = {
        field.name: True if field.type == "bool" else number
        for number, field in enumerate(dataclasses.fields(kind), 1)
    }
    message = kind(**values)
    assert decode_frame(encode_frame((message,))).messages == (message,)


def test_every_field_of_a_greeting_is_on_the_wire() -> None:
    values: dict[str, Any] = {
        field.name: bytes((number,)) if field.type == "bytes" else number
        for number, field in enumerate(dataclasses.fields(Hello), 1)
        if field.name != "certified"  # whoever receives it knows that of the connection
    }
    hello = Hello(**values)
    assert decode_frame(encode_frame(hello=hello)).hello == hello


def test_joined_frames_are_one_frame() -> None:
    joined = b"".join(encode_frame((message,)) for message in MESSAGES)

    assert decode_frame(joined).messages == tuple(MESSAGES)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    with contextlib.suppress(BadMessage):
        decode_frame(data)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_no_flipped_bit_changes_a_message(message: PeerMessage) -> None:
    """A proposal, a vote or an acknowledgement that changed on its way is refused, or at worst lost."""
    frame = encode_frame((message,))
    refused = 0
    for at in range(8 * len(frame)):
        damaged = bytearray(frame)
        damaged[at // 8] ^= 1 << at % 8
        try:
            assert decode_frame(bytes(damaged)).messages in ((), (message,))
        except BadMessage:
            refused += 1
    assert refused > 7 * len(frame)


def test_no_flipped_bit_changes_an_introduction() -> None:
    hello, reply = hello_of(1)(2), HelloReply(verdict=HelloVerdict.WELCOME, detail="d", protocol=2, term=9)
    for expected, frame in (
        (hello, encode_frame(hello=hello)),
        (reply, encode_frame(hello_reply=reply)),
    ):
        for at in range(8 * len(frame)):
            damaged = bytearray(frame)
            damaged[at // 8] ^= 1 << at % 8
            with contextlib.suppress(BadMessage):
                decoded = decode_frame(bytes(damaged))
                assert decoded.hello in (None, expected)
                assert decoded.hello_reply in (None, expected)


@pytest.mark.parametrize("length", range(1, 60, 7))
def test_frames_cut_short_are_refused(length: int) -> None:
    frame = encode_frame((append(7, b"x" * 64),))
    with pytest.raises(BadMessage):
        decode_frame(frame[:-length])


def wire_frame(message: pb.PeerMessage) -> bytes:
    return pb.PeerFrame(messages=[seal(message.SerializeToString())]).SerializeToString()


def wire_append(**fields: object) -> bytes:
    frame = pb.PeerFrame.FromString(encode_frame((append(7, b"data"),)))
    message = pb.PeerMessage.FromString(frame.messages[0])
    message.ClearField("checksum")
    for name, value in fields.items():
        setattr(message.append_request.entries[0], name, value)
    return wire_frame(message)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"kind": 7}, "kind 7 unknown"),
        ({"index": 9}, "contiguous"),
    ],
)
def test_entry_that_no_peer_sends_is_refused(fields: dict[str, object], text: str) -> None:
    with pytest.raises(BadMessage, match=text):
        decode_frame(wire_append(**fields))


def test_entry_of_a_later_version_is_refused_by_name() -> None:
    unknown: int = 99
    entry = Entry(EntryId(3, 7), unknown, b"")  # type: ignore[arg-type]  # as a later version would send
    message = AppendRequest(source=1, target=2, term=3, prev=EntryId(3, 6), entries=(entry,), commit_index=0)
    with pytest.raises(BadMessage, match="kind 99 unknown"):
        decode_frame(encode_frame((message,)))


def test_message_of_a_later_version_is_refused() -> None:
    with pytest.raises(BadMessage, match="unknown to this version"):
        decode_frame(wire_frame(pb.PeerMessage(source=1, target=2)))


@pytest.mark.parametrize("outcome", [{}, {"refusal": 1, "entry": pb.Id(term=1, index=1)}, {"refusal": 9}])
def test_outcome_that_is_neither_appended_nor_refused_is_not_guessed(outcome: dict[str, object]) -> None:
    message = pb.PeerMessage(source=1, target=2)
    message.forward_response.outcomes.append(pb.ForwardResponse.Outcome(id=1, **outcome))  # type: ignore[arg-type]
    with pytest.raises(BadMessage, match=r"unknown refusal|either appended or refused"):
        decode_frame(wire_frame(message))


@pytest.mark.parametrize(
    "message",
    [
        heartbeat(-1),
        heartbeat(2**64),
        append(2**64),
        VoteRequest(source=1, target=2, term=-5, last=EntryId(0, 0)),
        InstallSnapshot(source=1, target=2, term=1, meta=SnapshotMeta(EntryId(1, 1), Membership())),
    ],
)
def test_what_the_wire_cannot_hold_is_refused(message: PeerMessage) -> None:
    with pytest.raises(BadMessage):
        encode_frame((message,))
