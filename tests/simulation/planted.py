"""Bugs to be planted into the product, each as a context manager, and where the simulator finds them."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

from connect_kv.auth.table import AuthTable
from connect_kv.kv import watch_stream
from connect_kv.kv.catch_up import Piece, read_piece
from connect_kv.kv.deadlines import LeaseDeadlines
from connect_kv.kv.lessor import Lessor
from connect_kv.kv.machine import KvMachine
from connect_kv.kv.moment import Moment
from connect_kv.kv.watch_stream import NO_WATCH, WatchAnswer, WatchStream
from connect_kv.kv.watcher_group import EventBatch
from connect_kv.node.clock import MeasuredTime
from connect_kv.node.reads import ReadBarriers
from connect_kv.raft.core import RaftCore
from connect_kv.raft.election import LeaderElection
from connect_kv.raft.follower import Follower
from connect_kv.raft.heartbeats import Heartbeats
from connect_kv.raft.membership import MembershipHistory, changed
from connect_kv.raft.quorum import committed_index
from connect_kv.raft.replication import Replication
from connect_kv.raft.state import Outbox, RaftState
from connect_kv.raft.types import Role
from connect_kv.rpc.watch_pb2 import WatchResponse
from connect_kv.services.access import Access
from connect_kv.services.kv import KvService
from connect_kv.statemachine.sessions import SessionTable
from connect_kv.storage import codec, memory
from connect_kv.storage.state_dirs import StateDatabase
from connect_kv.testing.simulation.faults import NETWORK, PROCESSES
from connect_kv.testing.simulation.simulation import RunConfig

Plant = Callable[[], Any]


@dataclass(frozen=True)
class Bug:
    """One bug, and a run in which it does harm."""

    name: str
    plant: Plant
    config: RunConfig = field(default_factory=lambda: RunConfig(seed=0, seconds=6))
    seeds: int = 20
    """How many are tried, at most."""
    first_seed: int = 1
    """Where the search begins: near a seed that finds it, to save time."""


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    with patch.object(owner, name, value):
        yield


def votes_not_persisted() -> Any:
    encode = codec.encode_hard_state
    return replaced(codec, "encode_hard_state", lambda hard: encode(replace(hard, vote=None)))


def promises_before_fsync() -> Any:
    return replaced(Outbox, "promise", Outbox.send)


def older_terms_by_counting() -> Any:
    def advance(self: Replication) -> None:
        state = self._state
        acknowledged = {node_id: progress.match_index for node_id, progress in state.progress.items()}
        acknowledged[state.node_id] = state.persisted_index
        index = committed_index(state.membership, acknowledged)
        if index > state.commit_index:
            state.commit_index = index
            state.reads.fix(index)
            if state.history.index <= index:
                self._membership_committed()

    return replaced(Replication, "advance_commit", advance)


def reads_without_quorum() -> Any:
    confirm = Heartbeats._confirm_reads

    def at_once(self: Heartbeats) -> None:
        with patch(
            "connect_kv.raft.heartbeats.committed_index", lambda membership, rounds: self._state.round
        ):
            confirm(self)

    return replaced(Heartbeats, "_confirm_reads", at_once)


def membership_while_uncommitted() -> Any:
    def propose(self: RaftCore, change: Any) -> Any:
        self._check_leads()
        return self._replication.append_membership(changed(self._state.membership, change))

    return replaced(RaftCore, "propose_membership", propose)


def membership_not_rolled_back() -> Any:
    return replaced(MembershipHistory, "truncate", lambda self, index: False)


def compacted_before_synced() -> Any:
    return replaced(StateDatabase, "make_durable", lambda self: self.last_applied)


def watch_skips_an_event() -> Any:
    read = read_piece

    def skip(*arguments: Any, **options: Any) -> Piece:
        piece = read(*arguments, **options)
        return piece._replace(changes=piece.changes[1:]) if len(piece.changes) > 1 else piece

    return replaced(watch_stream, "read_piece", skip)


def leases_restart() -> Any:
    end_some = Lessor._end_some

    async def restart(self: Lessor) -> bool:
        if self._is_leader() and self._leads_since is None:
            self.touched(list(self._table))
        return await end_some(self)

    return replaced(Lessor, "_end_some", restart)


@contextmanager
def truncates_committed() -> Iterator[None]:
    truncate_log = RaftState.truncate

    def truncate(self: RaftState, index: int) -> None:
        self.commit_index = min(self.commit_index, index - 1)
        truncate_log(self, index)

    def request(self: Follower, message: Any) -> None:
        state, prev, entries = self._state, message.prev, message.entries
        if not state.log.matches(prev):
            self._reject(message.source, prev.index, self._hint(prev.index))
            return
        if entries and prev.index < state.log.last.index:
            state.truncate(prev.index + 1)
        self._append(entries)
        self._commit(min(message.commit_index, prev.index + len(entries)))
        self._accept(message.source, prev.index + len(entries))

    with ExitStack() as stack:
        stack.enter_context(replaced(RaftState, "truncate", truncate))
        stack.enter_context(replaced(Follower, "append_request", request))
        yield


@contextmanager
def answered_twice() -> Iterator[None]:
    admit = SessionTable.admit

    def again(self: SessionTable, command: Any, *rest: Any) -> Any:
        session = self._sessions.get(command.session)
        if session is not None and (record := session.replies.pop(command.number, None)) is not None:
            session.records[record] -= 1
        return admit(self, command, *rest)

    with ExitStack() as stack:
        stack.enter_context(replaced(SessionTable, "admit", again))
        yield


def joins_a_barrier_in_flight() -> Any:
    add = ReadBarriers.add

    def join(self: ReadBarriers) -> Any:
        future = add(self)
        if self._under_way is not None:
            self._under_way.reads.append(self._next.reads.pop())
        return future

    return replaced(ReadBarriers, "add", join)


def own_vote_not_persisted() -> Any:
    def campaign(self: LeaderElection, *, transfer: bool) -> None:
        self._state.become_candidate()
        self._state.votes[self._state.node_id] = True
        with patch.object(Outbox, "promise", Outbox.send):
            self._ask(pre_vote=False, transfer=transfer)
        self._count()

    return replaced(LeaderElection, "_campaign", campaign)


@contextmanager
def chain_not_checked() -> Iterator[None]:
    """Nor is what follows a gap given up, which would leave no chain that is broken."""
    read = StateDatabase._read_chain

    def blind(self: StateDatabase) -> Any:
        floor, self._floor = self._floor, self._written[1]
        try:
            return read(self)
        finally:
            self._floor = floor

    with ExitStack() as stack:
        stack.enter_context(replaced(StateDatabase, "_read_chain", blind))
        stack.enter_context(replaced(memory._Directory, "drop_after_gap", lambda self: None))
        yield


def votes_for_shorter_logs() -> Any:
    request = LeaderElection.vote_request

    def careless(self: LeaderElection, message: Any) -> None:
        request(self, replace(message, last=max(message.last, self._state.log.last)))

    return replaced(LeaderElection, "vote_request", careless)


def expiry_forgets_renewals() -> Any:
    from connect_kv.kv.leases import LeaseTable

    return replaced(LeaseTable, "outlived", lambda self, lease, renewal: self.get(lease) is not None)


def durations_by_the_wall_clock() -> Any:
    """As if what has passed could be read from it."""
    return replaced(MeasuredTime, "stamp", lambda self: self._clock.wall())


@contextmanager
def leases_by_the_wall_clock() -> Iterator[None]:
    """They alone: what is left to them after a restart."""
    apply, load = KvMachine.apply, KvMachine.load

    def dated(at: Moment) -> Moment:
        return at._replace(elapsed=at.log_time)

    with ExitStack() as stack:
        stack.enter_context(
            replaced(
                KvMachine,
                "apply",
                lambda self, command, index, at, *rest: apply(self, command, index, dated(at), *rest),
            )
        )
        stack.enter_context(
            replaced(KvMachine, "load", lambda self, source, at: load(self, source, dated(at)))
        )
        yield


@contextmanager
def deadline_of_an_earlier_lease() -> Iterator[None]:
    """An id that is granted again is looked at when its predecessor would have ended."""

    def put(self: LeaseDeadlines, id: int, time: float) -> None:
        self._times[id] = time
        if id not in self._queued:
            self._queue(id, time)

    with ExitStack() as stack:
        stack.enter_context(replaced(LeaseDeadlines, "set", put))
        stack.enter_context(
            replaced(LeaseDeadlines, "remove", lambda self, id: self._times.update({id: math.inf}))
        )
        yield


def two_leaders_votes() -> Any:
    def request(self: LeaderElection, message: Any) -> None:
        if self._state.role is not Role.LEADER:
            self._state.vote = None
        original(self, message)

    original = LeaderElection.vote_request
    return replaced(LeaderElection, "vote_request", request)


def progress_too_early() -> Any:
    """Whoever asks is told that all has been sent, while some of it still waits."""

    def request(self: WatchStream) -> None:
        self._parts.append(WatchAnswer.of(WatchResponse(watch_id=NO_WATCH), self._hub.revision))
        self.wake()

    return replaced(WatchStream, "request_progress", request)


def revision_split() -> Any:
    """What one transaction changed arrives in two responses."""
    events = WatchStream._events

    def half(self: WatchStream, watch: Any, batch: EventBatch, revision: int) -> WatchAnswer:
        middle = len(batch.changes) // 2
        if not middle:
            return events(self, watch, batch, revision)
        second = WatchAnswer(
            revision, watch.fields, EventBatch(batch.changes[middle:]).encoded(prev_kv=watch.prev_kv)
        )
        self._parts.append(second)
        return events(self, watch, EventBatch(batch.changes[:middle]), revision)

    return replaced(WatchStream, "_events", half)


def rights_judged_stale() -> Any:
    """What was judged when it came is not judged again, whatever has changed until it is applied."""
    return replaced(AuthTable, "judge_again", lambda self, judged: False)


def reads_by_old_rights() -> Any:
    """A member that is behind judges a read before its barrier only."""

    async def before(
        self: Access, wait: Callable[[], Awaitable[object]], judge: Callable[[], object]
    ) -> None:
        judge()
        await wait()

    async def ranged(self: KvService, request: Any, caller: Any) -> None:
        self._access.range(caller, request)
        await self._executor.barrier()

    stack = ExitStack()
    stack.enter_context(replaced(Access, "behind", before))
    stack.enter_context(replaced(KvService, "_judged", ranged))
    return stack


def run(seconds: float = 6, **options: Any) -> RunConfig:
    return RunConfig(seed=0, seconds=seconds, **options)


POWER = ("power", "power-all", "crash-in-write")
BUGS = [
    Bug("a right judged when it was stale", rights_judged_stale, run(10, mean=0.4, pause=0.05, rights=True)),
    Bug(
        "reads by rights that were old",
        reads_by_old_rights,
        run(10, faults=("slow-network",), mean=0.4, pause=0.03, rights=True),
        seeds=30,
        first_seed=42,
    ),
    Bug("votes not persisted", votes_not_persisted, run(faults=("kill", "power"), mean=0.4)),
    Bug("acknowledged before the fsync", promises_before_fsync, run(faults=POWER, mean=0.3)),
    Bug(
        "an older term's entries committed by counting",
        older_terms_by_counting,
        run(10, faults=(*NETWORK, *PROCESSES), mean=0.15, pause=0.05),
        seeds=60,
    ),
    Bug(
        "reads without a quorum",
        reads_without_quorum,
        run(8, faults=("partition",), mean=0.6, pause=0.01, readers=6),
    ),
    Bug(
        "a membership proposed while one is uncommitted",
        membership_while_uncommitted,
        # Two changes must meet: a change often, and now and then a direction that is cut.
        run(20, faults=("members", "members", "one-way"), mean=0.1),
        seeds=40,
    ),
    Bug(
        "a membership not rolled back with the tail",
        membership_not_rolled_back,
        run(20, faults=("members", "partition", "kill", "one-way"), mean=0.3),
        seeds=40,
    ),
    Bug("log compacted before the state is synced", compacted_before_synced, run(12, faults=POWER, mean=0.5)),
    Bug(
        "a watch skips an event at catch-up", watch_skips_an_event, run(faults=("kill", "clients"), mean=0.5)
    ),
    Bug(
        "leases restart on leader change",
        leases_restart,
        run(40, faults=("transfer",), mean=4, overdue=12.0),
    ),
    Bug(
        "a committed entry is truncated", truncates_committed, run(faults=("lossy", "slow-network"), mean=0.4)
    ),
    Bug("a session's request answered twice", answered_twice, run(faults=("clients", "kill"), mean=0.3)),
    Bug(
        "a read joins a barrier in flight",
        joins_a_barrier_in_flight,
        run(faults=("slow-network",), mean=0.4, pause=0.02, readers=6),
    ),
    Bug(
        "one's own vote counted before it is on disk",
        own_vote_not_persisted,
        run(faults=("kill", "slow-disk"), mean=0.4),
    ),
    Bug("the chain of the state not checked", chain_not_checked, run(12, faults=POWER, mean=0.3), seeds=60),
    Bug("votes for shorter logs", votes_for_shorter_logs, run(12, faults=NETWORK, mean=0.3)),
    Bug(
        "an expiry forgets renewals",
        expiry_forgets_renewals,
        run(15, faults=("slow-network", "pause"), mean=0.5),
        seeds=40,
    ),
    Bug(
        "what is left to leases is read from the wall clock",
        leases_by_the_wall_clock,
        run(15, faults=("wall-clock", "power-all"), mean=0.7),
    ),
    Bug(
        "sessions end by the wall clock",
        durations_by_the_wall_clock,
        run(faults=("wall-clock",), mean=0.5),
    ),
    Bug(
        "a lease granted again under its id keeps an old deadline",
        deadline_of_an_earlier_lease,
        run(25, faults=("kill",), mean=8, overdue=12.0),
    ),
    Bug("two votes in one term", two_leaders_votes, run(faults=("kill", "lossy"), mean=0.3)),
    Bug(
        "progress of a watch told too early",
        progress_too_early,
        run(faults=("kill", "pause"), mean=0.5),
        seeds=40,
    ),
    Bug("a revision split over two responses", revision_split, run(faults=("kill",), mean=0.5)),
]
