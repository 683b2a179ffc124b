"""The safety of Raft, checked while it runs: Figure 3 of the paper, and what a disk has promised.

The ledger sees what every node writes, sends and applies, and keeps what has been true of the whole
cluster: which entry stands at which place, what is committed, who led which term. Each check costs a
look into a dictionary, so all of them run at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from connect_kv.peer_protocol import PeerMessage
from connect_kv.raft.messages import AppendRequest, HeartbeatRequest
from connect_kv.raft.ready import Ready
from connect_kv.raft.status import RaftStatus
from connect_kv.raft.types import Entry, EntryId, EntryKind, Membership, Restored, Role, SnapshotMeta
from connect_kv.rpc.command_pb2 import Result
from connect_kv.testing.simulation.telling import told_apart

__all__ = ["Violation"]


class Violation(AssertionError):
    """Something that must never happen has happened; the text says what, and where."""


Applied = Callable[[Entry, Sequence[Result]], None]
Status = Callable[[], RaftStatus]


@dataclass(slots=True)
class _Disk:
    """What one data directory holds for sure, and may not forget."""

    term: int = 0
    vote: int | None = None
    commit_index: int = 0
    synced_commit_index: int = 0
    """Of the last hard state that was synced."""
    log: dict[int, int] = field(default_factory=dict)
    """Index to term, of what is not compacted."""
    memberships: list[int] = field(default_factory=list)
    """Indexes of the memberships among them."""
    compacted: int = 0
    last: int = 0
    applied: int = 0
    uncertain: bool = False
    """A write began and did not end."""

    def holds(self, id: EntryId) -> bool:
        return id.index <= self.compacted or self.log.get(id.index) == id.term


class Ledger:
    """What is known of a cluster. `fail` is told the first violation, and should end the run."""

    def __init__(self, fail: Callable[[Violation], None]) -> None:
        self._fail = fail
        self._leaders: dict[int, int] = {}
        self._began_at: dict[int, int] = {}
        """The commit index with which the leader of a term began."""
        self._entries: dict[tuple[int, int], tuple[int, EntryKind, bytes]] = {}
        """(index, term) to the term before it and what it holds: log matching is a property of this table."""
        self._committed: list[EntryId] = [EntryId(0, 0)]
        self._committed_by: dict[int, int] = {}
        """Index to the term of whoever said first that it is committed: it was in that term, or before."""
        self._results: list[tuple[bytes, ...]] = [()]
        self._ahead: dict[int, tuple[Entry, tuple[bytes, ...]]] = {}
        """Applied beyond a gap."""
        self._memberships: list[tuple[int, Membership]] = []
        self._disks: dict[int, _Disk] = {}
        self._status: dict[int, Status] = {}
        self._names: dict[int, str] = {}
        self._watchers: list[Applied] = []

    @property
    def commit_index(self) -> int:
        """Up to here every entry and its results are known."""
        return len(self._committed) - 1

    @property
    def applied_index(self) -> int:
        """The last index that any node has said to have applied."""
        return max(self._ahead, default=self.commit_index)

    @property
    def terms(self) -> int:
        """How many terms had a leader."""
        return len(self._leaders)

    def witness(self, node_id: int, status: Status, name: str = "") -> NodeWitness:
        """Who watches one node; `status` tells what its core holds in memory. `name` is for people."""
        self._status[node_id] = status
        self._names[node_id] = name or f"{node_id:x}"
        return NodeWitness(self, node_id)

    def on_commit(self, applied: Applied) -> None:
        """Be told of each entry once, in order, with its results."""
        self._watchers.append(applied)

    def forget(self, node_id: int) -> None:
        """Its data directory was wiped."""
        self._disks.pop(node_id, None)

    def sent(self, message: PeerMessage) -> None:
        """A node sends a message."""
        match message:
            case AppendRequest(source=source, term=term, prev=prev, entries=entries, commit_index=index):
                self._leads(source, term)
                if not (index <= self._began_at.setdefault(term, index) or (index, term) in self._entries):
                    self.violated(
                        f"{source:x} commits {index}, which is not of its term {term}, by counting (Figure 8)"
                    )
                self._leader_has(prev, term)
                for entry in entries:
                    self._leader_has(entry.id, term)
            case HeartbeatRequest(source=source, term=term):
                self._leads(source, term)

    # What a node tells, by way of its witness.

    def opened(self, node_id: int, restored: Restored) -> None:
        """A directory is opened: what was promised is still there."""
        disk = self._disks.get(node_id)
        hard = restored.hard_state
        if disk is not None:
            if hard.term < disk.term:
                self.violated(f"{node_id:x} forgot term {disk.term}: it is at {hard.term}")
            if not (hard.term > disk.term or disk.vote in (None, hard.vote)):
                self.violated(f"{node_id:x} forgot its vote for {disk.vote} in term {disk.term}")
            if hard.commit_index < disk.synced_commit_index:
                self.violated(
                    f"{node_id:x} forgot commit index {disk.synced_commit_index}: now {hard.commit_index}"
                )
            if not disk.uncertain:
                if restored.last.index != disk.last:
                    self.violated(
                        f"{node_id:x} forgot entries: its log ends at {restored.last}, not at {disk.last}"
                    )
                if not (disk.last <= disk.compacted or disk.holds(restored.last)):
                    self.violated(f"{node_id:x} changed entry {disk.last}: now of term {restored.last.term}")
        self._disks[node_id] = _restored(restored)

    def saving(self, node_id: int) -> None:
        """A write begins."""
        self._disk(node_id).uncertain = True

    def saved(self, node_id: int, readies: Sequence[Ready]) -> None:
        """Ready after Ready is stored."""
        disk = self._disk(node_id)
        disk.uncertain = False
        for ready in readies:
            if (hard := ready.hard_state) is not None:
                if hard.term < disk.term:
                    self.violated(f"{node_id:x}: term goes back to {hard.term}")
                if not (hard.term > disk.term or disk.vote in (None, hard.vote)):
                    self.violated(
                        f"{node_id:x} votes twice in term {hard.term}: for {disk.vote}, then {hard.vote}"
                    )
                if hard.commit_index < disk.commit_index:
                    self.violated(
                        f"{node_id:x}: commit index goes back from {disk.commit_index} to {hard.commit_index}"
                    )
                disk.term, disk.vote, disk.commit_index = hard.term, hard.vote, hard.commit_index
            if ready.entries:
                self._append(node_id, disk, ready.entries)
                self._may_lead_alone(node_id, ready.entries)
        hard_states = [ready.hard_state for ready in readies if ready.hard_state is not None]
        if hard_states and any(ready.must_sync for ready in readies):
            disk.synced_commit_index = hard_states[-1].commit_index

    def _may_lead_alone(self, node_id: int, entries: Sequence[Entry]) -> None:
        """A lone voter sends nothing before it has added another, whose vote it did not need."""
        status = self._status[node_id]()
        if status.role is Role.LEADER and any(
            entry.kind is EntryKind.NOOP and entry.term == status.term for entry in entries
        ):
            self._leads(node_id, status.term)

    def installed(self, node_id: int, meta: SnapshotMeta) -> None:
        """A snapshot was installed."""
        disk = self._disk(node_id)
        index = meta.last.index
        if not (index > self.commit_index or self._committed[index] == meta.last):
            self.violated(f"{node_id:x} installs a snapshot at {meta.last}, which is not committed")
        disk.uncertain = False
        disk.log.clear()
        disk.memberships.clear()
        disk.compacted = disk.last = disk.applied = index
        disk.commit_index = max(disk.commit_index, index)

    def compacted(self, node_id: int, compacted: EntryId) -> None:
        """The start of the log goes."""
        disk = self._disk(node_id)
        for index in range(disk.compacted + 1, compacted.index + 1):
            disk.log.pop(index, None)
        disk.compacted = max(disk.compacted, compacted.index)

    def applied(self, node_id: int, entries: Sequence[Entry], results: Sequence[Sequence[bytes]]) -> None:
        """State machine safety: one entry, and one result, at each index for all."""
        status = self._status[node_id]()
        index, membership = status.membership_index, status.membership
        if not index and not self._memberships:
            self._memberships.append((0, membership))
        disk = self._disk(node_id)
        # What is on its way to disk may replace what is there.
        settled = status.persisted_index == status.last_index == disk.last
        if not (not settled or not disk.compacted < index <= disk.last or index in disk.memberships):
            self.violated(f"{node_id:x} obeys a membership at {index}, which is not in its log")
        for entry, row in zip(entries, results, strict=True):
            answers = tuple(row)
            if entry.index <= self.commit_index:
                if self._committed[entry.index] != entry.id:
                    self.violated(f"{node_id:x} applies {entry.id}, others {self._committed[entry.index]}")
                if self._results[entry.index] != answers:
                    self._differs(node_id, entry, row, self._results[entry.index])
                continue
            self._check_durable(node_id, membership, entry.id)
            self._committed_by.setdefault(entry.index, status.term)
            self._check_logged(node_id, entry)
            known, before = self._ahead.setdefault(entry.index, (entry, answers))
            if known.id != entry.id:
                self.violated(f"{node_id:x} applies {entry.id}, others {known.id}")
            if before != answers:
                self._differs(node_id, entry, row, before)
            self._catch_up()

    def _differs(self, node_id: int, entry: Entry, row: Sequence[bytes], theirs: Sequence[bytes]) -> None:
        """A member answers otherwise than whoever applied the entry before."""
        self.violated(
            f"{self._names[node_id]}: applying {entry.id} had another result than on other members: "
            f"{told_apart(entry, _decoded(row), _decoded(theirs))}"
        )

    def _catch_up(self) -> None:
        """Go on in order. A member killed after it wrote a slice and before it said so leaves a gap,
        until another member applies the same.
        """
        while (found := self._ahead.pop(self.commit_index + 1, None)) is not None:
            entry, row = found
            self._committed.append(entry.id)
            self._results.append(row)
            if entry.kind is EntryKind.MEMBERSHIP:
                self._check_membership(entry)
            results = _decoded(row)
            for watcher in self._watchers:
                watcher(entry, results)

    def made_durable(self, node_id: int, index: int) -> None:
        """A state can be rebuilt."""
        if index > self._disk(node_id).last:
            self.violated(f"{node_id:x}: durable beyond its log: {index}")

    def violated(self, text: str) -> None:
        """Something that must never happen has happened."""
        self._fail(Violation(text))

    def _disk(self, node_id: int) -> _Disk:
        return self._disks.setdefault(node_id, _Disk())

    def _leads(self, node_id: int, term: int) -> None:
        leader = self._leaders.get(term)
        if leader is None:
            self._leaders[term] = node_id
            self._check_elected(node_id, term)
        if leader not in (None, node_id):
            self.violated(f"election safety: {leader} and {node_id} both lead term {term}")

    def _check_elected(self, node_id: int, term: int) -> None:
        """Nobody leads before a majority, itself included, has its vote for it on disk."""
        voted = {
            member
            for member, disk in self._disks.items()
            if (disk.term, disk.vote) == (term, node_id) or disk.term > term
        }
        if not (node_id in voted and _majority(self._status[node_id]().membership, voted)):
            self.violated(
                f"election safety: {node_id:x} leads term {term} with these votes on disk: "
                + " ".join(f"{one:x}" for one in sorted(voted))
            )

    def _leader_has(self, id: EntryId, term: int) -> None:
        """Leader completeness: no leader's log contradicts what an earlier term has committed.

        It may what a later one has: it was elected before, stood still since, and goes on for a moment.
        """
        if 0 < id.index <= self.commit_index:
            committed = self._committed[id.index]
            if not (committed == id or self._committed_by[id.index] > term):
                self.violated(
                    f"leader completeness: {committed} is committed, but the leader of term {term} has {id}"
                )

    def _append(self, node_id: int, disk: _Disk, entries: Sequence[Entry]) -> None:
        first = entries[0].index
        if first > disk.last + 1:
            self.violated(f"{node_id:x}: a gap in the log before {first}, after {disk.last}")
        if first <= disk.last:
            self._truncate(node_id, disk, entries)
        before = disk.log.get(first - 1) if first - 1 > disk.compacted else None
        for entry in entries:
            self._check_logged(node_id, entry, before)
            disk.log[entry.index] = before = entry.term
            if entry.kind is EntryKind.MEMBERSHIP:
                leads = self._leaders.get(entry.term) == node_id
                if leads and disk.memberships and disk.memberships[-1] > disk.commit_index:
                    self.violated(
                        f"{node_id:x} proposes a membership at {entry.id} while {disk.memberships[-1]} "
                        "is not committed"
                    )
                disk.memberships.append(entry.index)
        disk.last = entries[-1].index

    def _truncate(self, node_id: int, disk: _Disk, entries: Sequence[Entry]) -> None:
        first = entries[0].index
        for index in range(first, disk.last + 1):
            old = disk.log.pop(index, None)
            if old is None:
                continue
            position = index - first
            same = position < len(entries) and entries[position].term == old
            if not same and index <= self.commit_index and self._committed[index].term == old:
                self.violated(f"{node_id:x} truncates {EntryId(old, index)}, which is committed")
            if not (same or self._leaders.get(old) != node_id or disk.term > old):
                self.violated(
                    f"leader append-only: {node_id:x} removes {EntryId(old, index)} while it leads that term"
                )
        while disk.memberships and disk.memberships[-1] >= first:
            disk.memberships.pop()

    def _check_logged(self, node_id: int, entry: Entry, before: int | None = None) -> None:
        """Log matching: (index, term) names one entry, and one entry before it."""
        known = self._entries.setdefault((entry.index, entry.term), (before or 0, entry.kind, entry.data))
        if known[1:] != (entry.kind, entry.data):
            self.violated(f"log matching: {node_id:x} has another {entry.id}")
        if before is not None and known[0] not in (0, before):
            self.violated(f"log matching: before {entry.id} {node_id:x} has another term: {before}")

    def _check_durable(self, node_id: int, membership: Membership, id: EntryId) -> None:
        """What is applied is on the disks of a majority (of both, in joint consensus)."""
        ruled = [membership]
        if self._memberships:
            ruled += [one for _, one in self._memberships[-2:]]
        holders = {member for member, disk in self._disks.items() if disk.holds(id)}
        if not any(_majority(one, holders) for one in ruled):
            names = sorted(f"{one:x}" for one in holders)
            self.violated(f"{node_id:x} applies {id}, which is on too few disks: {names}")

    def _check_membership(self, entry: Entry) -> None:
        """Configuration safety: majorities of neighbours overlap."""
        after = Membership.decode(entry.data)
        if self._memberships:
            before = self._memberships[-1][1]
            simple = not before.joint and not after.joint and len(before.voters ^ after.voters) <= 1
            enters = not before.joint and after.joint and after.voters_outgoing == before.voters
            leaves = before.joint and not after.joint and after.voters == before.voters
            if not (simple or enters or leaves):
                self.violated(f"configuration safety: {entry.id} turns {before} into {after}")
        self._memberships.append((entry.index, after))


class NodeWitness:
    """The ledger's witness at one node (`observed.Witness`)."""

    def __init__(self, ledger: Ledger, node_id: int) -> None:
        self._ledger = ledger
        self._node_id = node_id

    def opened(self, restored: Restored) -> None:
        """See Ledger."""
        self._ledger.opened(self._node_id, restored)

    def saving(self) -> None:
        """See Ledger."""
        self._ledger.saving(self._node_id)

    def saved(self, readies: Sequence[Ready]) -> None:
        """See Ledger."""
        self._ledger.saved(self._node_id, readies)

    def installed(self, meta: SnapshotMeta) -> None:
        """See Ledger."""
        self._ledger.installed(self._node_id, meta)

    def compacted(self, compacted: EntryId) -> None:
        """See Ledger."""
        self._ledger.compacted(self._node_id, compacted)

    def applied(self, entries: Sequence[Entry], results: Sequence[Sequence[bytes]]) -> None:
        """See Ledger."""
        self._ledger.applied(self._node_id, entries, results)

    def made_durable(self, index: int) -> None:
        """See Ledger."""
        self._ledger.made_durable(self._node_id, index)


def _restored(restored: Restored) -> _Disk:
    hard = restored.hard_state
    disk = _Disk(
        hard.term, hard.vote, hard.commit_index, compacted=restored.compacted.index, last=restored.last.index
    )
    starts = [*restored.term_starts, (restored.last.index + 1, 0)]
    for (start, term), (end, _) in pairwise(starts):
        disk.log.update(dict.fromkeys(range(start, end), term))
    disk.memberships = [index for index, _ in restored.memberships if index > restored.compacted.index]
    return disk


def _majority(membership: Membership, holders: Iterable[int]) -> bool:
    have = frozenset(holders)
    groups = [group for group in (membership.voters, membership.voters_outgoing) if group]
    return bool(groups) and all(2 * len(group & have) > len(group) for group in groups)


def _decoded(row: Sequence[bytes]) -> list[Result]:
    return [Result.FromString(result) for result in row]
