"""What members say to each other, as data: the peer protocol without its wire (raft.proto).

Raft's own messages are `raft.messages`; here is what the paper leaves to the implementation: who says
hello, what a follower forwards to its leader, and the head of a snapshot.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from connect_kv.raft.messages import Message
from connect_kv.raft.types import EntryId, Membership, SnapshotMeta


class HelloVerdict(Enum):
    """What one member answers another that says hello. Same numbers as raft.proto."""

    WELCOME = 0
    WRONG_CLUSTER = 1
    WRONG_MEMBER = 2
    UNKNOWN_MEMBER = 3
    REMOVED = 4
    AMNESIA = 5
    INCOMPATIBLE = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """How a member introduces itself at the head of every stream."""

    cluster_id: int
    source: int
    target: int
    directory_id: bytes
    """Names the sender's data directory: a wiped disk comes back with another one."""
    protocol: int
    oldest_protocol: int
    highest_command: int
    """Largest command number it can apply: newer kinds are not proposed until all know them."""
    machines: bytes = b""
    """What machines of users it hosts, and in which versions (HostedMachines of versions.proto)."""
    certified: frozenset[str] | None = None
    """Names in the certificate it came with, put here by who received it; None: it came without TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HelloReply:
    """The answer; anything but WELCOME ends the stream."""

    verdict: HelloVerdict
    detail: str = ""
    protocol: int = 0
    highest_command: int = 0
    directory_id: bytes = b""
    term: int = 0
    """Of the one who answers; 0 only where no cluster has ever run."""
    machines: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A payload (see command.proto: CommandBatch without its times) on its way to the leader."""

    id: int
    payload: bytes
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardRequest:
    """Proposals a follower passes to the leader; each is answered, in one ForwardResponse or several."""

    source: int
    target: int
    proposals: tuple[Proposal, ...]


class ForwardRefusal(Enum):
    """Why a forwarded proposal was not appended. Same numbers as on the wire; 0 is not used."""

    NOT_LEADER = 1
    OVERLOADED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardOutcome:
    """Where a forwarded proposal was appended, or why it was not."""

    id: int
    entry: EntryId | None = None
    offset: int = 0
    """Position of its first command within that entry."""
    refusal: ForwardRefusal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardResponse:
    """The leader's answers."""

    source: int
    target: int
    outcomes: tuple[ForwardOutcome, ...]


PeerMessage = Message | ForwardRequest | ForwardResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotOffer:
    """The head of a snapshot stream."""

    hello: Hello
    term: int
    meta: SnapshotMeta
    snapshot_id: int
    """Chosen by the sender; a stream resumes only from the same sender with the same id."""
    approximate_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a running member tells one that is starting."""

    cluster_id: int
    node_id: int
    membership: Membership
    hello: HelloReply
    """Its verdict on the asker."""
    leader_id: int | None
    term: int


class Loss(Enum):
    """Why messages to a member were lost, as far as its transport can tell."""

    DROPPED = "dropped on this side: too many waited, or it was known to be away"
    REFUSED = "nobody listens at its address"
    UNRESOLVED = "its address has no number"
    SILENT = "no answer, or the connection broke"
