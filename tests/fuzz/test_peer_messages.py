"""Bytes of other members: whatever they are, a frame is decoded or refused as BadMessage."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any, get_args

import pytest
from google.protobuf.message import Message as ProtoMessage
from hypothesis import given
from hypothesis import strategies as st

from connect_kv.peer_protocol import Description, Hello, HelloReply, HelloVerdict
from connect_kv.raft.config import RaftConfig
from connect_kv.raft.core import RaftCore
from connect_kv.raft.messages import Message
from connect_kv.raft.types import Entry, EntryId, EntryKind, HardState, Membership, Restored
from connect_kv.rpc import raft_pb2 as pb
from connect_kv.transport import codec, snapshot_codec
from connect_kv.transport.ask import answer_ask, decode_reply
from connect_kv.transport.codec import BadMessage
from connect_kv.transport.describe import answer_describe, decode_description
from connect_kv.transport.seal import seal
from tests.fuzz.conftest import damaged, fuzz, messages
from tests.storage.helpers import voters

pytestmark = pytest.mark.long

VOTERS = voters(1, 2, 3)
CORE_MESSAGES = get_args(Message)


class Receiver:
    """Answers what can be read."""

    async def describe(self, asker: Hello, peer_address: str) -> Description:
        return Description(
            cluster_id=asker.cluster_id, node_id=asker.source, membership=VOTERS,
            hello=HelloReply(verdict=HelloVerdict.WELCOME), leader_id=None, term=1,
        )  # fmt: skip

    async def answer(self, hello: Hello, method: str, request: bytes) -> bytes:
        if hello.source % 2:
            raise PermissionError(method)
        return request


RECEIVER: Any = Receiver()


def unsealed(message: ProtoMessage) -> bytes:
    """All of it but its checksum."""
    message.ClearField("checksum")
    return message.SerializeToString()


def sealed(message: ProtoMessage) -> bytes:
    """As a peer would send it, closed by its checksum."""
    return seal(unsealed(message))


def contiguous(message: pb.PeerMessage) -> pb.PeerMessage:
    """As a peer would send it: appended entries follow each other."""
    append = message.append_request
    for number, entry in enumerate(append.entries, 1):
        entry.index = min(append.prev.index + number, 2**64 - 1)
    return message


def frame(hello: pb.PeerFrame, contents: list[bytes]) -> bytes:
    """A stream's first frame, or one of the later ones."""
    hello.ClearField("messages")
    hello.messages.extend(contents)
    return sealed(hello)


contents = messages(pb.PeerMessage).map(contiguous).map(unsealed)
frames = st.builds(
    # Damaged ones are sealed as well: what a peer gets wrong comes with the right checksum.
    frame,
    messages(pb.PeerFrame),
    st.lists((contents | damaged(contents)).map(seal), max_size=4),
)

DECODERS: dict[str, tuple[Callable[[bytes], object], st.SearchStrategy[bytes]]] = {
    "frame": (codec.decode_frame, frames),
    "snapshot frame": (
        snapshot_codec.decode_frame,
        messages(pb.SnapshotFrame).map(sealed),
    ),
    "snapshot header": (
        snapshot_codec.decode_header,
        messages(pb.SnapshotFrame, only=frozenset({"header"})).map(sealed),
    ),
    "snapshot answer": (
        snapshot_codec.decode_answer,
        messages(pb.SnapshotReply).map(sealed),
    ),
    "description": (
        decode_description,
        messages(pb.DescribeReply).map(sealed),
    ),
    "question": (
        lambda data: asyncio.run(answer_describe(data, RECEIVER)),
        messages(pb.DescribeRequest).map(sealed),
    ),
    "call": (
        lambda data: asyncio.run(answer_ask(data, RECEIVER)),
        messages(pb.AskRequest).map(sealed),
    ),
    "answer": (
        decode_reply,
        messages(pb.AskReply).map(sealed),
    ),
}


@pytest.mark.parametrize("verdict", [99, -1])
def test_a_verdict_of_a_later_version_is_refused(verdict: int) -> None:
    reply = pb.AskReply(hello=pb.HelloReply(detail="unknown here"))
    reply.hello.verdict = verdict  # type: ignore[assignment]
    with pytest.raises(BadMessage, match="verdict"):
        decode_reply(sealed(reply))


@pytest.mark.parametrize("name", DECODERS)
def test_what_a_peer_sends_is_decoded_or_refused(name: str) -> None:
    decode, valid = DECODERS[name]

    @fuzz(300)
    @given(valid | damaged(valid) | st.binary(max_size=300))
    def run(data: bytes) -> None:
        with suppress(BadMessage):
            decode(data)

    run()


@fuzz(150)
@given(messages(pb.SnapshotHeader), st.recursive(st.none() | st.integers() | st.text(max_size=3), st.lists))
def test_the_membership_of_a_snapshot_is_one_or_refused(header: pb.SnapshotHeader, part: object) -> None:
    good = VOTERS.encode()
    for text in (good, good.replace(b"[1,2,3]", repr(part).encode()), b"[" * 100_000):
        header.membership = text
        try:
            offer, _ = snapshot_codec.decode_header(sealed(pb.SnapshotFrame(header=header)))
        except BadMessage:
            continue
        assert offer.meta.membership == Membership.decode(text)


@fuzz(300)
@given(st.lists(frames, max_size=6), st.integers(0, 2))
def test_the_core_outlives_any_message_of_a_member(sent: list[bytes], role: int) -> None:
    """Impossible messages are dropped, or cost a term; they never end the process."""
    core = a_core(role)
    for data in sent:
        try:
            frame = codec.decode_frame(data)
        except BadMessage:
            continue
        for message in frame.messages:
            if isinstance(message, CORE_MESSAGES):
                core.step(message)
                drive(core)
        core.tick()
        drive(core)
    assert core.term >= 3


def a_core(role: int) -> RaftCore:
    """Member 1 of three with a log of five entries: follower, candidate or leader."""
    entries = tuple(Entry(EntryId(1 + at // 3, at), EntryKind.COMMAND, b"x") for at in range(1, 6))
    restored = Restored(
        hard_state=HardState(3, None, 2),
        last=entries[-1].id,
        memberships=((0, VOTERS),),
        term_starts=((1, 1), (3, 2)),
        recent=entries,
        last_applied=2,
    )
    core = RaftCore(RaftConfig(node_id=1), restored, random.Random(1))
    if role:
        core.campaign()
        drive(core)
    return core


def drive(core: RaftCore) -> None:
    """Everything the core wants done is done at once."""
    for _ in range(100):
        ready = core.ready()
        if ready is None:
            return
        core.persisted(ready.number)
    raise AssertionError("the core never comes to rest")


def test_membership_decoding_takes_only_what_encoding_gives() -> None:
    good = VOTERS.encode()
    assert Membership.decode(good) == VOTERS
    for wrong, right in (
        (b'["1"]', b"[1,2,3]"),
        (b'"123"', b"[1,2,3]"),
        (b"[1.0]", b"[1,2,3]"),
        (b"1", b"false"),
    ):
        with pytest.raises(ValueError, match="not a membership"):
            Membership.decode(good.replace(right, wrong, 1))
    with pytest.raises(ValueError, match="not a membership"):
        Membership.decode(b"[" * 100_000)
