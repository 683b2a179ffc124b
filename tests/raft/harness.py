"""Cores over a disk and a network that do what a test says: no time, no threads, no surprises."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from connect_kv.raft.config import RaftConfig
from connect_kv.raft.core import RaftCore
from connect_kv.raft.messages import AppendRequest, AppendResponse, InstallSnapshot, Message
from connect_kv.raft.ready import LogRead, ReadState, Ready
from connect_kv.raft.types import (
    ZERO,
    Entry,
    EntryId,
    EntryKind,
    HardState,
    Member,
    Membership,
    Restored,
    Role,
    SnapshotMeta,
)


def member(node_id: int) -> Member:
    return Member(node_id=node_id, name=f"n{node_id}", peer_address=f"host{node_id}:2380")


def membership_of(voters: Iterable[int], learners: Iterable[int] = ()) -> Membership:
    voters, learners = frozenset(voters), frozenset(learners)
    return Membership(
        members=tuple(member(node_id) for node_id in sorted(voters | learners)),
        voters=voters,
        learners=learners,
    )


def config_for(node_id: int, *, first_election_ticks: int | None = None, **changes: int) -> RaftConfig:
    config = RaftConfig(
        node_id=node_id, election_ticks=10, first_election_ticks=first_election_ticks, heartbeat_ticks=2
    )
    return replace(config, **changes)


def entries_of(terms: Sequence[int], first_index: int = 1) -> list[Entry]:
    """One command for each term."""
    return [
        Entry(EntryId(term, index), EntryKind.COMMAND, f"{term}.{index}".encode())
        for index, term in enumerate(terms, first_index)
    ]


@dataclass
class Disk:
    """What survives a crash: written a whole Ready at a time, in order."""

    membership: Membership
    """In force at `compacted`."""
    hard_state: HardState = field(default_factory=HardState)
    compacted: EntryId = ZERO
    entries: list[Entry] = field(default_factory=list)
    state: list[Entry] = field(default_factory=list)
    """The state machine: every entry it has applied. Survives up to `durable`."""
    durable: int = 0
    state_lost: bool = False

    @property
    def last(self) -> EntryId:
        return self.entries[-1].id if self.entries else self.compacted

    def write(self, ready: Ready) -> None:
        if ready.install is not None:
            self.compacted, self.membership = ready.install.last, ready.install.membership
            self.entries, self.durable, self.state_lost = [], ready.install.last.index, False
        if ready.entries:
            first = ready.entries[0].id.index
            assert self.compacted.index < first <= self.last.index + 1, "a hole in the log"
            del self.entries[first - self.compacted.index - 1 :]
            self.entries.extend(ready.entries)
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state

    def read(self, start: int, end: int) -> list[Entry]:
        assert start > self.compacted.index
        return self.entries[start - self.compacted.index - 1 : end - self.compacted.index - 1]

    def compact(self, compacted: EntryId, membership: Membership) -> None:
        assert compacted.index <= self.durable
        del self.entries[: compacted.index - self.compacted.index]
        self.compacted, self.membership = compacted, membership

    def restored(self, recent: int = 1 << 30) -> Restored:
        memberships = [(self.compacted.index, self.membership)]
        term_starts: list[tuple[int, int]] = []
        for entry in self.entries:
            if entry.kind == EntryKind.MEMBERSHIP:
                memberships.append((entry.index, Membership.decode(entry.data)))
            if not term_starts or term_starts[-1][1] != entry.term:
                term_starts.append((entry.index, entry.term))
        return Restored(
            hard_state=self.hard_state,
            compacted=self.compacted,
            last=self.last,
            memberships=tuple(memberships),
            term_starts=tuple(term_starts),
            recent=tuple(self.entries[max(0, len(self.entries) - recent) :]),
            last_applied=self.durable,
            needs_snapshot=self.state_lost and self.compacted.index > 0,
        )


@dataclass(frozen=True)
class Snapshot:
    """A snapshot on its way: what the core hears of it, and what only drivers see."""

    message: InstallSnapshot
    state: tuple[Entry, ...]


Packet = Message | Snapshot


def header(packet: Packet) -> Message:
    return packet.message if isinstance(packet, Snapshot) else packet


class Node:
    """A core and its driver. Without `slow_disk`, whatever it writes is durable at once."""

    def __init__(self, config: RaftConfig, disk: Disk, rng: random.Random) -> None:
        self.config, self.disk, self.rng = config, disk, rng
        self.slow_disk = False
        self.applies = True
        self.tells_commits = True
        """Whether its driver asks at once that what is applied is told, instead of waiting for an append."""
        self.answers_reads = True
        self.log_reads: list[LogRead] = []
        """Not answered yet."""
        self.outgoing: list[Packet] = []
        self.reads: list[ReadState] = []
        self.writing: list[Ready] = []
        self.readies: list[Ready] = []
        self.core: RaftCore
        self.alive = False
        self.start()

    def start(self, *, recent: int = 1 << 30) -> None:
        restored = self.disk.restored(recent)
        self.state = list(self.disk.state)
        self.last_applied = restored.last_applied
        self.core = RaftCore(self.config, restored, self.rng)
        self.staged: dict[EntryId, Snapshot] = {}
        self.sending: set[int] = set()
        self.alive = True

    def crash(self) -> None:
        """Lose everything that was not durable."""
        self.alive = False
        self.writing.clear()
        self.outgoing.clear()
        self.reads.clear()
        del self.disk.state[self._state_length(self.disk.durable) :]

    def lose_state(self) -> None:
        """The state machine's database is gone; the log is whole."""
        self.disk.state, self.disk.durable, self.disk.state_lost = [], 0, True

    def step(self, packet: Packet) -> None:
        if isinstance(packet, Snapshot):
            self.staged[packet.message.meta.last] = packet
            self.core.step(packet.message)
        else:
            self.core.step(packet)
        self.run()

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            self.core.tick()
            self.run()

    def run(self) -> None:
        """Do all the work there is."""
        while self._work():
            pass

    def persist(self, count: int | None = None) -> None:
        """The disk finishes its oldest `count` writes, or all."""
        done = self.writing[:count]
        del self.writing[: len(done)]
        for ready in done:
            self.disk.write(ready)
            if ready.install is not None:
                self.state = list(self.staged[ready.install.last].state)
                self.disk.state = list(self.state)
                self.last_applied = ready.install.last.index
        if done:
            self.core.persisted(done[-1].number)
            self.outgoing.extend(message for ready in done for message in ready.messages_after_persist)

    def apply(self) -> None:
        """Apply what may be applied."""
        while self.last_applied < self.core.apply_index:
            start, end = self.last_applied + 1, self.core.apply_index + 1
            entries = self.core.entries(start, end, 1 << 20) or self.disk.read(start, end)
            assert entries[0].id.index == start
            self.state.extend(entries)
            self.disk.state.extend(entries)
            self.last_applied = entries[-1].id.index
            self.core.applied(self.last_applied)
            if self.tells_commits:
                self.core.await_commit(self.last_applied)

    def make_durable(self) -> None:
        self.disk.durable = self.last_applied
        self.disk.state_lost &= self.last_applied < self.disk.compacted.index

    def compact(self, index: int) -> None:
        """Drop the log up to `index`."""
        if self.core.first_index <= index <= self.disk.durable and index <= self.disk.last.index:
            id, membership = self.core.entry_id(index), self.core.membership_at(index)
            assert id is not None
            self.core.compacted(id)
            self.disk.compact(id, membership)

    def snapshot_for(self, target: int) -> Snapshot:
        id = self.core.entry_id(self.last_applied)
        assert id is not None
        meta = SnapshotMeta(id, self.core.membership_at(id.index))
        message = InstallSnapshot(source=self.config.node_id, target=target, term=self.core.term, meta=meta)
        return Snapshot(message, tuple(self.state))

    @property
    def log(self) -> list[Entry]:
        """All entries that are not compacted, as the core sees them."""
        core = self.core
        entries = list(core.entries(core.first_index, core.last_index + 1, 1 << 40) or ())
        return entries

    def propose(self, *commands: bytes) -> EntryId:
        id = self.core.propose(commands)
        self.run()
        return id

    def _work(self) -> bool:
        ready = self.core.ready()
        if ready is not None:
            self._take(ready)
        if not self.slow_disk:
            self.persist()
        if self.applies:
            self.apply()
        return ready is not None

    def _take(self, ready: Ready) -> None:
        self.readies.append(ready)
        self.outgoing.extend(ready.messages)
        self.reads.extend(ready.reads)
        self.writing.append(ready)
        self.log_reads.extend(ready.log_reads)
        while self.answers_reads and self.log_reads:
            read = self.log_reads.pop(0)
            self.core.entries_loaded(read.target, self.disk.read(read.start, read.end))
        for target in ready.snapshots:
            if target not in self.sending:
                self.sending.add(target)
                self.outgoing.append(self.snapshot_for(target))

    def _state_length(self, durable: int) -> int:
        return sum(1 for entry in self.disk.state if entry.index <= durable)


class Cluster:
    """Nodes 1..n and the packets between them."""

    def __init__(
        self,
        count: int,
        *,
        seed: int = 1,
        membership: Membership | None = None,
        logs: Sequence[Sequence[int]] = (),
        limits: Mapping[str, int] | None = None,
    ) -> None:
        self.rng = random.Random(seed)
        self.limits = limits or {}
        membership = membership or membership_of(range(1, count + 1))
        self.nodes: dict[int, Node] = {}
        self.packets: list[Packet] = []
        self.dropped: Callable[[Packet], bool] = lambda packet: False
        for node_id in range(1, count + 1):
            self.add(node_id, membership, logs[node_id - 1] if logs else ())

    def __getitem__(self, node_id: int) -> Node:
        return self.nodes[node_id]

    def add(self, node_id: int, membership: Membership | None = None, terms: Sequence[int] = ()) -> Node:
        """A further node, knowing nothing unless told."""
        disk = Disk(membership or Membership(), HardState(max(terms, default=0)), entries=entries_of(terms))
        node = Node(config_for(node_id, **self.limits), disk, random.Random(self.rng.random()))
        self.nodes[node_id] = node
        return node

    def collect(self) -> None:
        """Let every node work, and take what it sends."""
        for node in self.nodes.values():
            if node.alive:
                node.run()
                self.packets.extend(node.outgoing)
                node.outgoing.clear()

    def deliver(self, packet: Packet) -> None:
        """Bring one packet to its target, if it can be reached."""
        message = header(packet)
        target = self.nodes.get(message.target)
        arrives = target is not None and target.alive and not self.dropped(packet)
        if arrives and target is not None:
            target.step(packet)
        if isinstance(packet, Snapshot):
            sender = self.nodes[message.source]
            sender.sending.discard(message.target)
            if sender.alive:
                sender.core.report_snapshot(message.target, arrives)

    def stabilize(self) -> None:
        """Deliver everything until nothing is under way."""
        for _ in range(10_000):
            self.collect()
            if not self.packets:
                return
            packets, self.packets = self.packets, []
            for packet in packets:
                self.deliver(packet)
        raise AssertionError("the cluster does not come to rest")

    def tick(self, count: int = 1) -> None:
        """Ticks for every node, delivering in between."""
        for _ in range(count):
            for node in self.nodes.values():
                if node.alive:
                    node.core.tick()
            self.stabilize()

    def elect(self, node_id: int) -> Node:
        """Make a node the leader."""
        node = self.nodes[node_id]
        for other in self.nodes.values():
            other.core.tick()
        node.core.campaign()
        self.stabilize()
        assert node.core.role is Role.LEADER
        return node

    def isolate(self, *node_ids: int) -> None:
        """Cut these off from everybody."""
        self.dropped = lambda packet: header(packet).source in node_ids or header(packet).target in node_ids

    def cut(self, *pairs: tuple[int, int]) -> None:
        """Drop what goes from the first to the second of each pair."""
        self.dropped = lambda packet: (header(packet).source, header(packet).target) in pairs

    def drop(self, kind: type[Message]) -> None:
        """Drop all packets of a kind."""
        self.dropped = lambda packet: isinstance(header(packet), kind)

    def heal(self) -> None:
        self.dropped = lambda packet: False

    @property
    def leaders(self) -> list[int]:
        return [
            node_id for node_id, node in self.nodes.items() if node.alive and node.core.role is Role.LEADER
        ]


def role_of(node: Node) -> Role:
    return node.core.role


def sent(node: Node, kind: type[Message]) -> list[Message]:
    """What a node has sent of a kind and nobody took yet."""
    return [header(packet) for packet in node.outgoing if isinstance(header(packet), kind)]


def accepted(source: int, target: int, term: int, match_index: int) -> AppendResponse:
    return AppendResponse(source=source, target=target, term=term, accepted=True, match_index=match_index)


def append(
    source: int, target: int, term: int, prev: EntryId, entries: Sequence[Entry] = (), commit_index: int = 0
) -> AppendRequest:
    return AppendRequest(
        source=source, target=target, term=term, prev=prev, entries=tuple(entries), commit_index=commit_index
    )
