"""RaftState: Figure 2's fields, what is on disk of them, and the outbox. Shared by all rules of one core."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from connect_kv.raft.config import RaftConfig
from connect_kv.raft.errors import RaftInvariantError
from connect_kv.raft.log import RaftLog
from connect_kv.raft.membership import MembershipHistory
from connect_kv.raft.messages import AppendResponse, Message
from connect_kv.raft.progress import Progress
from connect_kv.raft.reads import ForwardedReads, ReadQueue
from connect_kv.raft.ready import LogRead, ReadState
from connect_kv.raft.types import Entry, EntryKind, HardState, Membership, Restored, Role, SnapshotMeta


@dataclass(slots=True)
class Outbox:
    """What the next Ready will hold, beside the log and the hard state."""

    messages: list[Message] = field(default_factory=list)
    after_persist: list[Message] = field(default_factory=list)
    reads: list[ReadState] = field(default_factory=list)
    log_reads: list[LogRead] = field(default_factory=list)
    snapshots: list[int] = field(default_factory=list)
    install: SnapshotMeta | None = None

    @property
    def any(self) -> bool:
        """Whether anything is in it."""
        return bool(
            self.messages
            or self.after_persist
            or self.reads
            or self.log_reads
            or self.snapshots
            or self.install
        )

    def send(self, message: Message) -> None:
        """Send it at once: it promises nothing."""
        self.messages.append(message)

    def promise(self, message: Message) -> None:
        """Send it once everything up to now is on disk."""
        last = self.after_persist[-1] if self.after_persist else None
        if (
            isinstance(message, AppendResponse)
            and isinstance(last, AppendResponse)
            and message.accepted
            and last.accepted
            and (last.target, last.term) == (message.target, message.term)
            and last.match_index <= message.match_index
        ):
            self.after_persist.pop()  # the later acknowledgement says all the earlier one did
        self.after_persist.append(message)


@dataclass(slots=True)
class _Write:
    """A Ready the disk has not reported yet, and what it will prove."""

    number: int
    last_index: int
    """The log in memory and on disk will agree up to here. Lowered when that tail is truncated
    meanwhile: a rewritten tail must not be counted by mistake."""
    term: int
    vote: int | None
    installs: int
    """Last index of the snapshot it installs, or 0."""


class RaftState:
    """The fields of Figure 2 and what goes with each role. The rules are in the other modules."""

    def __init__(self, config: RaftConfig, restored: Restored, rng: random.Random) -> None:
        self.config = config
        self.node_id = config.node_id
        self._rng = rng

        self.term = restored.hard_state.term
        self.vote = restored.hard_state.vote
        self.log = RaftLog(restored.compacted, restored.last, restored.term_starts, restored.recent)
        self.history = MembershipHistory(restored.memberships)
        known = min(restored.hard_state.commit_index, restored.last.index)
        self.commit_index = max(known, restored.compacted.index, restored.last_applied)
        self.applied_index = restored.last_applied
        self.needs_snapshot = restored.needs_snapshot
        if restored.last_applied > restored.last.index:
            raise RaftInvariantError(
                "applied is logged", f"applied {restored.last_applied}, but the log ends at {restored.last}"
            )

        self.persisted_index = restored.last.index
        self.persisted_term = self.term
        self.persisted_vote = self.vote
        self.stored = HardState(self.term, self.vote, self.commit_index)
        """The hard state last handed to the disk."""
        self.writes: deque[_Write] = deque()

        self.role = Role.FOLLOWER
        self.leader_id: int | None = None
        self.may_vote = True
        self.may_campaign = True
        self.tick_count = 0
        self.election_elapsed = 0
        self.election_timeout = 0
        self.doubt: int | None = None
        """The connection to the leader broke: ticks of silence after which it counts as gone."""
        self._fresh = config.first_election_ticks is not None
        """This process has known no leader and has not voted."""
        self.reset_election_timer()

        self.votes: dict[int, bool] = {}

        self.progress: dict[int, Progress] = {}
        self.term_start = 0
        """Index of the leader's first entry (§5.4.2)."""
        self.heartbeat_elapsed = 0
        self.round = 0
        self.reads = ReadQueue()
        self.transfer_to: int | None = None
        self.transfer_elapsed = 0

        self.forwarded_reads = ForwardedReads(rng.getrandbits(62))
        self.outbox = Outbox()

    @property
    def membership(self) -> Membership:
        """The membership in force."""
        return self.history.current

    @property
    def deciding(self) -> tuple[Membership, ...]:
        """The memberships of which a majority of any one decides what this leader commits and reads.

        While a voter that this leader adds is not committed, that is also the membership before it. By the
        new one alone (thesis 4.1) a lone voter could add another only if that runs already, and until then
        could do nothing else. Why it is safe, and why for an addition alone, is in
        docs/decisions/an-added-voter-counts-once-committed.md. Elections always need the last one.
        """
        membership, before = self.membership, self.history.before
        if (
            before is not None
            and self.history.index > self.commit_index
            and self.history.index >= self.term_start
            and not membership.joint
            and not before.joint
            and before.voters < membership.voters
        ):
            return (before, membership)
        return (membership,)

    @property
    def committed_in_term(self) -> bool:
        """Whether the leader has committed an entry of its own term: only then it knows what is committed."""
        return self.commit_index >= self.term_start

    @property
    def may_lead(self) -> bool:
        """Whether this node is a voter, or may still be needed as one.

        While a membership that leaves it out is not known to be committed, only the nodes it leaves
        out may have that entry, and then only they can be elected (thesis 4.2.2).
        """
        if self.node_id in self.membership.voters or self.node_id in self.membership.voters_outgoing:
            return True
        before = self.history.before
        return (
            before is not None
            and self.history.index > self.commit_index
            and self.node_id in before.voters | before.voters_outgoing
        )

    @property
    def apply_index(self) -> int:
        """Up to here entries may be applied: committed, and on disk here."""
        if self.needs_snapshot:
            return self.applied_index
        # Committed by others' disks but not on this one: applied now and lost with the power, the state would
        # be ahead of the log after the start.
        return min(self.commit_index, self.persisted_index)

    def reset_election_timer(self) -> None:
        """Wait a full random timeout again (§5.2)."""
        self.election_elapsed = 0
        first = self.config.first_election_ticks if self._fresh else None
        ticks = self.config.election_ticks
        self.election_timeout = (ticks if first is None else first) + self._rng.randrange(ticks)

    def take_part(self) -> None:
        """A leader is known, or a vote given: from now on the usual timeouts hold."""
        if self._fresh:
            self._fresh = False
            self.reset_election_timer()

    def doubt_leader(self) -> None:
        """The connection to it broke, as when its process dies. It may have another, and be heard on."""
        if self.doubt is None:
            missed = 2 * self.config.heartbeat_ticks
            self.doubt = missed + self._rng.randrange(self.config.election_ticks // 2)

    def hear_leader(self) -> None:
        """The leader of this term was heard: the election timeout begins anew (§5.2)."""
        self.election_elapsed = 0
        self.doubt = None

    def become_follower(self, term: int, leader_id: int | None) -> None:
        """Follow `leader_id`, if one is known, in `term` (§5.1)."""
        if term < self.term:
            raise RaftInvariantError("term grows", f"from {self.term} to {term}")
        if term > self.term:
            # The vote goes with its term, and only with it: forgetting it within a term would allow a second
            # one.
            self._leave_role(None)
            self.term, self.vote = term, None
        self._leave_role(leader_id)

    def become_pre_candidate(self) -> None:
        """Ask whether a campaign would succeed; the term stays (thesis 9.6)."""
        self._leave_role(None, Role.PRE_CANDIDATE)
        self.reset_election_timer()

    def become_candidate(self) -> None:
        """Campaign in the next term, with one's own vote (§5.2)."""
        self._leave_role(None, Role.CANDIDATE)
        self.take_part()
        self.term += 1
        self.vote = self.node_id
        self.reset_election_timer()

    def become_leader(self) -> None:
        """Lead this term, beginning with an entry of it (§5.4.2)."""
        self._leave_role(self.node_id, Role.LEADER)
        self.heartbeat_elapsed = self.election_elapsed = 0
        self.term_start = self.log.last.index + 1
        self.track_members()

    def track_members(self) -> None:
        """Give every other member a Progress, and nobody else."""
        for node_id in self.membership.node_ids:
            if node_id != self.node_id and node_id not in self.progress:
                self.progress[node_id] = Progress(next_index=self.log.last.index + 1)
        members = frozenset(self.membership.node_ids)
        self.progress = {
            node_id: self.progress[node_id] for node_id in sorted(self.progress) if node_id in members
        }

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries to the log; a membership among them rules at once (thesis 4.1)."""
        memberships = [
            (entry.id.index, Membership.decode(entry.data))
            for entry in entries
            if entry.kind == EntryKind.MEMBERSHIP
        ]
        self.log.append(entries)
        for index, membership in memberships:
            self.history.append(index, membership)

    def truncate(self, index: int) -> None:
        """Drop the log from `index` on; what a write under way proves ends before it."""
        if index <= self.commit_index:
            raise RaftInvariantError("committed entries stay", f"{index} <= {self.commit_index}")
        self.log.truncate(index)
        self.history.truncate(index)
        self._forget_persisted(index - 1)

    def install(self, meta: SnapshotMeta) -> None:
        """Replace the log by a snapshot that is staged (§7). Nothing is applied until it is current."""
        self.log.reset(meta.last)
        self.history = MembershipHistory(((meta.last.index, meta.membership),))
        self._forget_persisted(self.applied_index)
        self.commit_index = max(self.commit_index, meta.last.index)
        self.needs_snapshot = False
        self.outbox.install = meta

    def wrote(self, number: int, *, term: int, vote: int | None, installs: int) -> None:
        """The disk was given Ready `number`."""
        self.writes.append(_Write(number, self.log.last.index, term, vote, installs))

    def _forget_persisted(self, index: int) -> None:
        # Term 2 wrote 5..7 and waits for the disk; a leader of term 3 truncates from 6. When that first write
        # returns it proves 5, not 7: there are other entries at 6 and 7 now, which nobody has written yet.
        self.persisted_index = min(self.persisted_index, index)
        for write in self.writes:
            write.last_index = min(write.last_index, index)

    def _leave_role(self, leader_id: int | None, role: Role = Role.FOLLOWER) -> None:
        """Clear what belongs to the present role; reads that waited for another leader are abandoned."""
        if self.role is Role.LEADER:
            self.reset_election_timer()
            self._abandon_led()
        elif leader_id != self.leader_id:
            self.outbox.reads.extend(
                ReadState(context=context, index=None) for context in self.forwarded_reads.abandoned()
            )
        if leader_id is not None:
            self.take_part()
        if leader_id != self.leader_id:
            self.doubt = None
        self.role, self.leader_id = role, leader_id
        self.votes = {}

    def _abandon_led(self) -> None:
        for request in self.reads.abandoned():
            if request.source == self.node_id:
                self.outbox.reads.append(ReadState(context=request.context, index=None))
        self.progress = {}
        self.transfer_to = None
        self.outbox.log_reads.clear()
        self.outbox.snapshots.clear()
