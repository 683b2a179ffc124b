"""The nouns of the paper (Figure 2, §5, §7; thesis 4): plain values, no behaviour beyond their own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NamedTuple, TypeVar


class EntryId(NamedTuple):
    """Where an entry stands: the term that created it, and its position.

    Compares as §5.4.1 asks: the log whose last EntryId is greater is more up to date.
    ``EntryId(0, 0)`` stands before the first entry of every log.
    """

    term: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which a pair has no use for


ZERO = EntryId(0, 0)


class EntryKind(IntEnum):
    """What an entry holds. Stored and sent: numbers never change."""

    NOOP = 0
    """Nothing: a leader's first entry, which lets it commit what came before (§5.4.2)."""
    COMMAND = 1
    """Bytes for the state machine; Raft does not look inside."""
    MEMBERSHIP = 2
    """An encoded Membership, in force from the moment it is appended (thesis 4.1)."""


class Role(Enum):
    """What a node is at the moment (§5.1; thesis 9.6 for the pre-candidate)."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True, slots=True)
class Entry:
    """One slot of the log."""

    id: EntryId
    kind: EntryKind
    data: bytes = b""

    def __repr__(self) -> str:
        """Without what it holds: values of keys, and tokens."""
        return f"Entry({self.id}, {self.kind.name}, {len(self.data)} bytes)"

    @property
    def term(self) -> int:
        """Term of the leader that created the entry."""
        return self.id.term

    @property
    def index(self) -> int:
        """Position in the log, from 1."""
        return self.id.index


@dataclass(frozen=True, slots=True)
class HardState:
    """What must be on disk before a promise is made (Figure 2, "persistent state")."""

    term: int = 0
    vote: int | None = None
    commit_index: int = 0
    """Only a hint that shortens start-up; it may be older than what was known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member and where it is reached."""

    node_id: int
    name: str
    peer_address: str
    """``host:port`` for other members."""
    client_address: str = ""
    """``host:port`` for clients; empty until the member has started and said so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """Who takes part, and how (thesis 4). In joint consensus `voters_outgoing` is not empty."""

    members: tuple[Member, ...] = ()
    """Sorted by node_id; exactly those named below."""
    voters: frozenset[int] = frozenset()
    voters_outgoing: frozenset[int] = frozenset()
    """The old majority that must agree as well, while joint (thesis 4.3)."""
    learners: frozenset[int] = frozenset()
    """Get the log, do not count (thesis 4.2.1)."""
    learners_next: frozenset[int] = frozenset()
    """Voters of the old majority that become learners when the joint phase ends."""
    auto_leave: bool = False
    """The leader ends the joint phase by itself once it is committed."""
    removed: frozenset[int] = frozenset()
    """Ids that were members once: told REMOVED, never used again."""

    @property
    def joint(self) -> bool:
        """Whether two majorities must agree."""
        return bool(self.voters_outgoing)

    @property
    def node_ids(self) -> tuple[int, ...]:
        """Everybody who gets the log, sorted."""
        return tuple(sorted(self.voters | self.voters_outgoing | self.learners | self.learners_next))

    def member(self, node_id: int) -> Member | None:
        """The member with that id, if there is one."""
        return next((member for member in self.members if member.node_id == node_id), None)

    def encode(self) -> bytes:
        """JSON with sorted keys: the same membership is always the same bytes."""
        fields = {
            "members": [
                [member.node_id, member.name, member.peer_address, member.client_address]
                for member in self.members
            ],
            "voters": sorted(self.voters),
            "voters_outgoing": sorted(self.voters_outgoing),
            "learners": sorted(self.learners),
            "learners_next": sorted(self.learners_next),
            "auto_leave": self.auto_leave,
            "removed": sorted(self.removed),
        }
        return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> Membership:
        """The inverse of `encode`. Raises ValueError for anything else."""
        try:
            fields = json.loads(data)
            return cls(
                members=tuple([_member(*item) for item in fields["members"]]),
                voters=_ids(fields["voters"]),
                voters_outgoing=_ids(fields["voters_outgoing"]),
                learners=_ids(fields["learners"]),
                learners_next=_ids(fields["learners_next"]),
                auto_leave=_of(bool, fields["auto_leave"]),
                removed=_ids(fields["removed"]),
            )
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"not a membership: {error}") from error


T = TypeVar("T", int, str, bool)


def _of(kind: type[T], value: object) -> T:
    """JSON may hold anything: a text of digits would pass for a set of numbers."""
    if type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value


def _ids(values: object) -> frozenset[int]:
    if type(values) is not list:
        raise TypeError(f"expected a list, got {type(values).__name__}")
    return frozenset([_of(int, value) for value in values])


def _member(node_id: object, name: object, peer: object, client: object) -> Member:
    return Member(
        node_id=_of(int, node_id),
        name=_of(str, name),
        peer_address=_of(str, peer),
        client_address=_of(str, client),
    )


@dataclass(frozen=True, slots=True)
class SnapshotMeta:
    """Names a snapshot: the state after `last` was applied, and the membership then (§7)."""

    last: EntryId
    membership: Membership


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a log store found on disk: all that a core starts from."""

    hard_state: HardState = HardState()
    compacted: EntryId = ZERO
    """The last entry that is no longer in the log; the log starts after it."""
    last: EntryId = ZERO
    """The last entry of the log, or `compacted` if there is none."""
    memberships: tuple[tuple[int, Membership], ...] = ((0, Membership()),)
    """(index, Membership), ascending: the one in force at `compacted`, then each in the log."""
    term_starts: tuple[tuple[int, int], ...] = ()
    """(index, term), ascending: the first entry of each term in the log."""
    recent: tuple[Entry, ...] = ()
    """The end of the log, contiguous up to `last`: as much as the core keeps in memory."""
    log_bytes: int = 0
    """What the entries of the log take on disk, roughly."""
    last_applied: int = 0
    """What the state machine has applied; entries up to here are committed."""
    needs_snapshot: bool = False
    """The state was lost and the log cannot rebuild it: never campaign, and ask the leader for a
    snapshot with every heartbeat, by the hint ``EntryId(0, 0)``. The log is whole, so votes and
    acknowledgements still count."""
