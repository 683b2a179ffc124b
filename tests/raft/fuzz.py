"""A cluster under random faults, and Figure 3's five properties checked after each step."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress

from connect_kv.errors import MembershipRefused, NotLeader, Overloaded
from connect_kv.raft.membership import MembershipChange
from connect_kv.raft.types import Entry, EntryId, Role
from tests.raft.harness import Cluster, Node, Snapshot, header, member

MOST_NODES = 7


class Figure3:
    """Everything that was ever seen to be true, and the check that it stays so."""

    def __init__(self) -> None:
        self.leaders: dict[int, int] = {}
        self.entries: dict[EntryId, tuple[EntryId | None, Entry]] = {}
        self.committed: dict[int, EntryId] = {}
        self.highest = EntryId(0, 0)
        self.led: dict[int, tuple[int, EntryId]] = {}
        self.applied: dict[int, Entry] = {}

    def check(self, node: Node) -> None:
        core = node.core
        self._log_matching(node)
        if core.role is Role.LEADER:
            self._leader(node)
        commit = core.entry_id(core.commit_index)
        assert commit is not None
        if commit.index > self.highest.index:
            for index in range(self.highest.index + 1, commit.index + 1):
                id = core.entry_id(index)
                assert id is not None
                self.committed[index] = id
            self.highest = commit
        elif commit.index:
            assert self.committed[commit.index] == commit, "state machine safety: commits differ"

    def check_state(self, node: Node) -> None:
        """State machine safety: nobody applies another entry at an index."""
        assert [entry.id.index for entry in node.state] == list(range(1, len(node.state) + 1))
        for entry in node.state[-8:]:
            assert self.applied.setdefault(entry.id.index, entry) == entry
            assert self.committed[entry.id.index] == entry.id

    def _log_matching(self, node: Node) -> None:
        """The same EntryId is the same entry after the same predecessor: by induction the same log."""
        for ready in node.readies:
            previous = None
            for entry in ready.entries:
                known = self.entries.setdefault(entry.id, (previous, entry))
                assert known[1] == entry, "log matching: one id, two entries"
                if known[0] is None:
                    self.entries[entry.id] = (previous, entry)
                else:
                    assert previous in (None, known[0]), "log matching: two predecessors"
                previous = entry.id
        node.readies.clear()

    def _leader(self, node: Node) -> None:
        core, node_id = node.core, node.config.node_id
        assert self.leaders.setdefault(core.term, node_id) == node_id, "election safety"
        last = core.entry_id(core.last_index)
        assert last is not None
        term, before = self.led.get(node_id, (0, last))
        if term == core.term:
            assert core.first_index > before.index or core.entry_id(before.index) == before, (
                "leader append-only"
            )
        elif self.highest.term < core.term and self.highest.index >= core.first_index:
            assert core.entry_id(self.highest.index) == self.highest, "leader completeness"
        self.led[node_id] = (core.term, last)


class Fuzz:
    """One seed: the same actions, always."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        count = self.rng.choice((1, 3, 3, 5))
        limits = {
            "window_entries": self.rng.choice((4, 1000)),
            "max_append_bytes": self.rng.choice((64, 1 << 20)),
            "small_append_bytes": self.rng.choice((1, 100, 1 << 16)),
            "max_uncommitted_bytes": 2000,
        }
        self.cluster = Cluster(count, seed=seed, limits=limits)
        self.properties = Figure3()
        self.context = 0
        self.reads: dict[tuple[int, int], int] = {}
        self.answered = 0
        self.next_id = count + 1
        for node in self.cluster.nodes.values():
            self._slow_down(node)
        self.actions: list[tuple[Callable[[Node], None], float]] = [
            (self.deliver, 40),
            (self.tick, 14),
            (self.persist, 14),
            (self.apply, 8),
            (self.propose, 8),
            (self.duplicate, 3),
            (self.read, 3),
            (self.drop, 2),
            (self.restart, 0.7),
            (self.crash, 0.5),
            (self.compact, 1),
            (self.change, 0.6),
            (self.transfer, 0.3),
            (self.partition, 0.15),
            (self.heal, 0.3),
            (self.unreachable, 0.3),
            (self.campaign, 0.3),
        ]

    def run(self, steps: int) -> None:
        actions = [action for action, _ in self.actions]
        weights = [weight for _, weight in self.actions]
        for action in self.rng.choices(actions, weights, k=steps):
            node = self.rng.choice(list(self.cluster.nodes.values()))
            action(node)
            for touched in self.cluster.nodes.values():
                if touched.alive:
                    self._collect(touched)

    def settle(self) -> None:
        """Without faults, the cluster comes to rest: one leader, and everybody has everything."""
        self.cluster.heal()
        for node in self.cluster.nodes.values():
            if not node.alive:
                node.start()
            node.slow_disk, node.applies = False, True
        for _ in range(400):
            self.cluster.tick()
            # Who has the longest log first: a snapshot takes others past entries nobody has looked at.
            for node in sorted(self.cluster.nodes.values(), key=lambda node: node.core.first_index):
                self._collect(node)
            if self._settled():
                return
        assert not self.cluster.leaders, "a leader does not bring everybody up to date"
        assert self._only_the_stateless_could_lead(), "the cluster does not recover"

    def _only_the_stateless_could_lead(self) -> bool:
        """Who lost its state never campaigns: if no other log is as good, an operator has to help."""
        return any(node.core.status().needs_snapshot for node in self.cluster.nodes.values())

    def _settled(self) -> bool:
        if len(self.cluster.leaders) != 1:
            return False
        leader = self.cluster[self.cluster.leaders[0]]
        members = [self.cluster[node_id] for node_id in leader.core.membership.node_ids]
        return (
            not leader.core.membership.joint
            and leader.core.commit_index == leader.core.last_index >= self.properties.highest.index
            and all(node.last_applied == leader.core.last_index for node in members)
            and all(node.state == leader.state for node in members)
        )

    def _slow_down(self, node: Node) -> None:
        node.slow_disk, node.applies = True, False

    def _collect(self, node: Node) -> None:
        node.run()
        self.properties.check(node)
        self.cluster.packets.extend(node.outgoing)
        node.outgoing.clear()
        for read in node.reads:
            least = self.reads.pop((node.config.node_id, read.context))
            if read.index is not None:
                self.answered += 1
                assert read.index >= least, "a read misses what was committed before it"
        node.reads.clear()
        while len(self.cluster.packets) > 300:
            self._lose(0)

    def _packet(self) -> int | None:
        """The oldest or any: mostly in order."""
        count = len(self.cluster.packets)
        if not count:
            return None
        return self.rng.randrange(count) if self.rng.random() < 0.3 else 0

    def deliver(self, _: Node) -> None:
        position = self._packet()
        if position is not None:
            self.cluster.deliver(self.cluster.packets.pop(position))

    def duplicate(self, _: Node) -> None:
        position = self._packet()
        if position is not None:
            self.cluster.deliver(self.cluster.packets[position])

    def drop(self, _: Node) -> None:
        position = self._packet()
        if position is not None:
            self._lose(position)

    def _lose(self, position: int) -> None:
        packet = self.cluster.packets.pop(position)
        sender = self.cluster[header(packet).source]
        if isinstance(packet, Snapshot) and sender.alive:
            sender.sending.discard(header(packet).target)
            sender.core.report_snapshot(header(packet).target, False)

    def tick(self, node: Node) -> None:
        if node.alive:
            for _ in range(self.rng.choice((1, 1, 2, 8))):
                node.core.tick()

    def persist(self, node: Node) -> None:
        if node.alive:
            node.persist(self.rng.choice((1, 2, None)))

    def apply(self, node: Node) -> None:
        if node.alive:
            node.apply()
            self.properties.check_state(node)
            if self.rng.random() < 0.3:
                node.make_durable()

    def propose(self, node: Node) -> None:
        leaders = self.cluster.leaders
        if leaders:
            node = self.cluster[self.rng.choice(leaders)]
        if node.alive:
            sizes = self.rng.choices((1, 60), k=self.rng.choice((1, 3)))
            with suppress(NotLeader, Overloaded):
                node.core.propose([self.rng.randbytes(size) for size in sizes])

    def read(self, node: Node) -> None:
        if node.alive:
            self.context += 1
            self.reads[node.config.node_id, self.context] = self.properties.highest.index
            node.core.read_index(self.context)

    def crash(self, node: Node) -> None:
        """Some of what was being written may be on disk, always a beginning of it."""
        if node.alive:
            for ready in node.writing[: self.rng.randrange(3)]:
                if ready.install is not None:
                    break
                node.disk.write(ready)
            node.crash()
            for key in [key for key in self.reads if key[0] == node.config.node_id]:
                del self.reads[key]

    def restart(self, node: Node) -> None:
        if not node.alive:
            if self.rng.random() < 0.15 and len(self.cluster.nodes) > 1:
                node.lose_state()
            node.start(recent=self.rng.choice((0, 3, 1000)))

    def compact(self, node: Node) -> None:
        if node.alive and node.last_applied:
            node.compact(max(node.disk.durable - self.rng.randrange(4), 0))

    def transfer(self, node: Node) -> None:
        for leader in self.cluster.leaders:
            with suppress(MembershipRefused):
                self.cluster[leader].core.transfer_leadership(node.config.node_id)

    def partition(self, _: Node) -> None:
        nodes = sorted(self.cluster.nodes)
        self.cluster.isolate(*self.rng.sample(nodes, len(nodes) // 2))

    def heal(self, _: Node) -> None:
        self.cluster.heal()

    def unreachable(self, node: Node) -> None:
        for leader in self.cluster.leaders:
            self.cluster[leader].core.report_unreachable(node.config.node_id)

    def campaign(self, node: Node) -> None:
        if node.alive:
            node.core.campaign()

    def change(self, _: Node) -> None:
        for leader in self.cluster.leaders:
            core = self.cluster[leader].core
            with suppress(MembershipRefused, NotLeader):
                core.propose_membership(self._some_change(core.membership.voters, core.membership.learners))

    def _some_change(self, voters: frozenset[int], learners: frozenset[int]) -> MembershipChange:
        change = MembershipChange()
        for _ in range(self.rng.choice((1, 1, 2))):
            kind = self.rng.choice(("add", "learn", "promote", "demote", "remove"))
            if kind in ("add", "learn") and len(voters | learners) < MOST_NODES:
                self._slow_down(self.cluster.add(self.next_id))
                new = member(self.next_id)
                change = change.add_voter(new) if kind == "add" else change.add_learner(new)
                self.next_id += 1
            elif kind == "promote" and learners:
                change = change.promote(self.rng.choice(sorted(learners)))
            elif kind == "demote" and len(voters) > 2:
                change = change.demote(self.rng.choice(sorted(voters)))
            elif kind == "remove" and len(voters) > 2:
                change = change.remove(self.rng.choice(sorted(voters | learners)))
        return change
