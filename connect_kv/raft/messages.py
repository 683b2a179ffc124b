"""One class for each message between members; `Message` is their union.

`source` and `target` are node ids and `term` the sender's current term, except in pre-votes,
which carry the term the sender would campaign in (thesis 9.6). The core drops a message that
makes no sense; it never raises for one.
"""

from __future__ import annotations

from dataclasses import dataclass

from connect_kv.raft.types import ZERO, Entry, EntryId, SnapshotMeta


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteRequest:
    """RequestVote (§5.2), or the question whether it would be granted (pre-vote, thesis 9.6)."""

    source: int
    target: int
    term: int
    last: EntryId
    """The candidate's last entry (§5.4.1)."""
    pre_vote: bool = False
    transfer: bool = False
    """The leader asked for this campaign: granted although a leader is alive (thesis 3.10)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteResponse:
    """A vote. One that is granted leaves only after it is on disk."""

    source: int
    target: int
    term: int
    """Granted pre-votes carry the term asked for; everything else the voter's own."""
    granted: bool
    pre_vote: bool = False
    date: int = 0
    """Carried for `node.clock`; the core does not look at it. So in the other messages that have one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendRequest:
    """AppendEntries with entries, or a probe without (§5.3)."""

    source: int
    target: int
    term: int
    prev: EntryId
    entries: tuple[Entry, ...]
    commit_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendResponse:
    """Answer to an AppendRequest or an InstallSnapshot; acceptance leaves only after it is on disk."""

    source: int
    target: int
    term: int
    accepted: bool
    match_index: int = 0
    """If accepted: the log equals the leader's up to here, and is on disk up to here."""
    prev_index: int = 0
    """If rejected: the `prev.index` that did not match; the last index if the state was lost."""
    hint: EntryId = ZERO
    """If rejected: the conflicting term and the first index it has in this log, or
    ``EntryId(0, last_index + 1)`` if the log is too short (§5.3, fast back-off). ``EntryId(0, 0)``,
    beside the answer to a heartbeat: the state was lost, only a snapshot helps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatRequest:
    """AppendEntries without a log position: "I lead" (§5.2), and one round of ReadIndex (thesis 6.4)."""

    source: int
    target: int
    term: int
    commit_index: int
    """Never above what the target is known to match."""
    round: int
    """Counts up from 1; the answer repeats it. A read is confirmed by rounds begun after it arrived.
    0: only tells the commit index, and is not answered."""
    date: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatResponse:
    """Answer to a HeartbeatRequest."""

    source: int
    target: int
    term: int
    round: int
    date: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallSnapshot:
    """A snapshot from the leader has arrived here and is complete (§7).

    Made by the receiving driver after it staged and checked the bytes; they never enter the core.
    If the next Ready does not `install` it, the core has no use for it: discard what was staged.
    """

    source: int
    target: int
    term: int
    meta: SnapshotMeta


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutNow:
    """The leader asks its successor to campaign at once (thesis 3.10)."""

    source: int
    target: int
    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadIndexRequest:
    """A follower asks the leader which index a linearizable read needs (thesis 6.4)."""

    source: int
    target: int
    term: int
    context: int
    """Chosen by the asking core; not used again, not even after a restart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadIndexResponse:
    """The index, confirmed by a majority after the request arrived."""

    source: int
    target: int
    term: int
    context: int
    index: int
    date: int = 0


Message = (
    VoteRequest
    | VoteResponse
    | AppendRequest
    | AppendResponse
    | HeartbeatRequest
    | HeartbeatResponse
    | InstallSnapshot
    | TimeoutNow
    | ReadIndexRequest
    | ReadIndexResponse
)
