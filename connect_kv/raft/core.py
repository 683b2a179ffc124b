"""RaftCore: the inputs, the term rule, the dispatch, and `ready`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import assert_never

from connect_kv.errors import MembershipRefused, NotLeader, Overloaded
from connect_kv.raft.config import RaftConfig
from connect_kv.raft.election import LeaderElection
from connect_kv.raft.errors import RaftInvariantError
from connect_kv.raft.follower import Follower
from connect_kv.raft.heartbeats import Heartbeats
from connect_kv.raft.log import ENTRY_OVERHEAD
from connect_kv.raft.membership import MembershipChange, changed
from connect_kv.raft.messages import (
    AppendRequest,
    AppendResponse,
    HeartbeatRequest,
    HeartbeatResponse,
    InstallSnapshot,
    Message,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from connect_kv.raft.reads import ReadRequest
from connect_kv.raft.ready import ReadState, Ready
from connect_kv.raft.replication import Replication
from connect_kv.raft.state import Outbox, RaftState
from connect_kv.raft.status import FollowerStatus, RaftStatus
from connect_kv.raft.types import Entry, EntryId, EntryKind, HardState, Membership, Restored, Role


class RaftCore:
    """One member's part of Raft: inputs in, a `Ready` out. No clock, disk, network, thread or log lines.

    Feed all inputs that wait, then take `ready` until it is None: what arrived together leaves
    together. Not reentrant, and for one thread only. Raises RaftInvariantError when a guarantee of
    Raft is broken: then the node must stop.
    """

    def __init__(self, config: RaftConfig, restored: Restored, rng: random.Random) -> None:
        self._state = RaftState(config, restored, rng)
        self._follower = Follower(self._state)
        self._replication = Replication(self._state)
        self._heartbeats = Heartbeats(self._state, self._replication)
        self._election = LeaderElection(self._state, self._lead)
        self._number = 0
        self._hint_due = False

    # Inputs

    def step(self, message: Message) -> None:
        """A message arrived. One that makes no sense is dropped."""
        state = self._state
        if message.target != state.node_id or message.source == state.node_id:
            return
        if message.term > state.term:
            if not self._meet_higher_term(message):
                return
        elif message.term < state.term:
            self._answer_lower_term(message)
            return
        self._dispatch(message)

    def tick(self) -> None:
        """One tick of time passed."""
        state = self._state
        state.tick_count += 1
        self._hint_due = True
        if state.role is Role.LEADER:
            self._heartbeats.tick()
        else:
            self._election.tick()

    def propose(self, commands: Sequence[bytes]) -> EntryId:
        """Append one COMMAND entry for each; returns the id of the first, the others follow it.

        Raises NotLeader (also while leadership is being handed over), and Overloaded when too many
        bytes wait to be committed; nothing was appended then.
        """
        state = self._state
        self._check_leads()
        if not commands:
            raise ValueError("commands: at least one is needed")
        size = sum(map(len, commands)) + ENTRY_OVERHEAD * len(commands)
        uncommitted = state.log.bytes_from(state.commit_index + 1)
        if uncommitted and uncommitted + size > state.config.max_uncommitted_bytes:
            raise Overloaded(f"{uncommitted} bytes wait to be committed")
        return self._replication.append(EntryKind.COMMAND, commands)

    def propose_membership(self, change: MembershipChange) -> EntryId:
        """Append a change of membership; it rules at once, but for an added voter (`RaftState.deciding`).

        A joint phase ends by itself.

        Raises NotLeader, and MembershipRefused if the change makes no sense, another is under way,
        or this leader has not committed in its term yet.
        """
        state = self._state
        self._check_leads()
        # The bug found in the thesis' one-server changes in 2015. Of A B C D, A appends "add E" on A and E
        # alone and is cut off; B, elected by C and D, removes A and commits that with C. Back again, A wins
        # with D and E, three of five, and overwrites it. An entry of B's own term, committed first by three
        # of four, would have been on D, which then refuses A.
        if not state.committed_in_term:
            raise MembershipRefused("the leader is new and has committed nothing yet; retry")
        if state.history.index > state.commit_index:
            raise MembershipRefused("an earlier change is still under way")
        return self._replication.append_membership(changed(state.membership, change))

    def read_index(self, context: int) -> None:
        """Ask which index a linearizable read needs; a ReadState with `context` answers (thesis 6.4)."""
        state = self._state
        if state.role is Role.LEADER:
            self._heartbeats.read_index(ReadRequest(state.node_id, context))
        elif state.leader_id is None:
            state.outbox.reads.append(ReadState(context=context, index=None))
        else:
            deadline = state.tick_count + state.config.election_ticks
            ticket = state.forwarded_reads.add(context, deadline)
            state.outbox.send(
                ReadIndexRequest(
                    source=state.node_id, target=state.leader_id, term=state.term, context=ticket
                )
            )

    def transfer_leadership(self, to: int) -> None:
        """Hand leadership to a voter once it has the whole log; given up after one election timeout.

        Proposals are refused meanwhile. Raises NotLeader, and MembershipRefused if `to` is not a voter.
        """
        state = self._state
        if state.role is not Role.LEADER:
            raise NotLeader(state.leader_id)
        if to not in state.membership.voters:
            raise MembershipRefused(f"member {to:x} is not a voter")
        if to in (state.node_id, state.transfer_to):
            return
        state.transfer_to, state.transfer_elapsed = to, 0
        self._replication.hand_over(to, state.progress[to])

    def campaign(self) -> None:
        """Campaign now instead of at the next timeout, if this node may."""
        self._election.campaign()

    def report_unreachable(self, to: int) -> None:
        """The connection to that member broke, or messages to it were lost."""
        self._replication.unreachable(to)
        self._heartbeats.unreachable(to)
        if to == self._state.leader_id:
            self._state.doubt_leader()

    def report_snapshot(self, to: int, ok: bool) -> None:
        """Sending a snapshot to that member ended."""
        self._replication.snapshot_ended(to, ok)

    def entries_loaded(self, target: int, entries: Sequence[Entry]) -> None:
        """Answer a LogRead; no entries if they are gone."""
        self._replication.entries_loaded(target, entries)

    def persisted(self, number: int) -> None:
        """Every Ready up to `number` is durable."""
        state = self._state
        if number > self._number:
            raise RaftInvariantError("persisted after ready", f"{number} > {self._number}")
        write = None
        # The last write counts for all before it. Its own record says how far it proves the log, lowered if a
        # tail was truncated while it was under way: the end of the log now may be another one of the same
        # length.
        while state.writes and state.writes[0].number <= number:
            write = state.writes.popleft()
            state.applied_index = max(state.applied_index, write.installs)
        if write is None:
            return
        state.persisted_index = max(state.persisted_index, write.last_index)
        state.persisted_term, state.persisted_vote = write.term, write.vote
        if state.role is Role.LEADER:
            self._replication.advance_commit()
        else:
            self._election.own_vote_persisted()
        self._trim()

    def applied(self, index: int) -> None:
        """The state machine has applied everything up to `index`."""
        state = self._state
        if index > state.commit_index:
            raise RaftInvariantError("only committed entries are applied", f"{index} > {state.commit_index}")
        state.applied_index = max(state.applied_index, index)

    def await_commit(self, index: int, by: int | None = None) -> bool:
        """Somebody at that member, or at any, waits to hear that `index` is committed: tell it with a message
        of its own. Otherwise it goes with the next append or heartbeat.

        False if nothing is to be sent now: who has it was told already, or this node does not lead.
        """
        return self._state.role is Role.LEADER and self._replication.await_commit(index, by)

    def compacted(self, compacted: EntryId) -> None:
        """The log store has dropped, or will drop, the entries up to `compacted`."""
        state = self._state
        if compacted.index <= state.log.compacted.index:
            return
        if compacted.index > state.applied_index:
            raise RaftInvariantError("only applied entries are compacted", f"{compacted}")
        state.log.compact(compacted)
        state.history.compact(compacted.index)

    def set_eligible(self, vote: bool, campaign: bool) -> None:
        """Whether this node may vote (its disk remembers what it promised), and campaign (its disk works)."""
        state = self._state
        state.may_vote, state.may_campaign = vote, campaign
        if state.role in (Role.PRE_CANDIDATE, Role.CANDIDATE) and not self._election.may_campaign:
            state.become_follower(state.term, None)

    # Output

    def ready(self) -> Ready | None:
        """The next step of work for the driver; None if there is nothing to do."""
        state = self._state
        if state.role is Role.LEADER:
            self._heartbeats.flush()
            self._replication.flush()
        outbox, entries = state.outbox, state.log.take_unstored()
        install = outbox.install
        # Term and vote before anybody hears of them; the commit index is a hint that costs no sync of its
        # own.
        promised = (state.term, state.vote) != (state.stored.term, state.stored.vote)
        must_sync = promised or bool(entries) or install is not None
        hard_state = None
        if promised or ((must_sync or self._hint_due) and state.commit_index != state.stored.commit_index):
            hard_state = state.stored = HardState(state.term, state.vote, state.commit_index)
        self._hint_due = False
        if not (must_sync or hard_state or outbox.any):
            return None
        self._number += 1
        if must_sync:
            state.wrote(
                self._number,
                term=state.term,
                vote=state.vote,
                installs=install.last.index if install else 0,
            )
        state.outbox = Outbox()
        return Ready(
            number=self._number,
            messages=tuple(outbox.messages),
            messages_after_persist=tuple(outbox.after_persist),
            hard_state=hard_state,
            entries=entries,
            install=install,
            must_sync=must_sync,
            reads=tuple(outbox.reads),
            log_reads=tuple(outbox.log_reads),
            snapshots=tuple(outbox.snapshots),
        )

    def entries(self, start: int, end: int, max_bytes: int) -> tuple[Entry, ...] | None:
        """Entries of ``[start, end)``: the first, and more while they fit; None if not in memory."""
        return self._state.log.entries(start, end, max_bytes)

    def entry_id(self, index: int) -> EntryId | None:
        """The id of the entry at `index`, or of the last one compacted; None beyond either end."""
        term = self._state.log.term_at(index)
        return None if term is None else EntryId(term, index)

    def membership_at(self, index: int) -> Membership:
        """The membership in force after the entries up to `index`, which is not yet compacted."""
        return self._state.history.at(index)

    @property
    def term(self) -> int:
        """The latest term seen."""
        return self._state.term

    @property
    def role(self) -> Role:
        """What this node is at the moment."""
        return self._state.role

    @property
    def leader_id(self) -> int | None:
        """Who leads, as far as this node knows."""
        return self._state.leader_id

    @property
    def commit_index(self) -> int:
        """Up to here the log is committed."""
        return self._state.commit_index

    @property
    def apply_index(self) -> int:
        """Up to here entries may be applied: committed, and on disk here."""
        return self._state.apply_index

    @property
    def first_index(self) -> int:
        """The first entry that is not compacted; ``last_index + 1`` if there is none."""
        return self._state.log.first_index

    @property
    def last_index(self) -> int:
        """The last entry of the log."""
        return self._state.log.last.index

    @property
    def membership(self) -> Membership:
        """The membership in force, committed or not."""
        return self._state.membership

    @property
    def membership_index(self) -> int:
        """Where it was appended; it is committed once `commit_index` gets there."""
        return self._state.history.index

    def status(self) -> RaftStatus:
        """Everything an operator may want to see."""
        state = self._state
        followers = tuple(
            FollowerStatus(
                node_id=node_id,
                state=progress.state,
                match_index=progress.match_index,
                next_index=progress.next_index,
                recent_active=progress.recent_active,
                inflight=progress.inflight,
            )
            for node_id, progress in state.progress.items()
        )
        return RaftStatus(
            node_id=state.node_id,
            role=state.role,
            term=state.term,
            vote=state.vote,
            leader_id=state.leader_id,
            first_index=state.log.first_index,
            last_index=state.log.last.index,
            persisted_index=state.persisted_index,
            commit_index=state.commit_index,
            applied_index=state.applied_index,
            membership=state.membership,
            membership_index=state.history.index,
            followers=followers,
            transfer_to=state.transfer_to,
            needs_snapshot=state.needs_snapshot,
        )

    # Rules that belong to no role

    def _check_leads(self) -> None:
        state = self._state
        if state.role is not Role.LEADER:
            raise NotLeader(state.leader_id)
        if state.transfer_to is not None:
            raise NotLeader(None)

    def _lead(self) -> None:
        """The election is won: begin the term with an entry of it (§5.4.2, §8)."""
        self._state.become_leader()
        self._replication.append(EntryKind.NOOP, [b""])

    def _trim(self) -> None:
        state = self._state
        keep_from = min(state.persisted_index, state.commit_index) + 1
        state.log.trim(keep_from, state.config.window_entries, state.config.window_bytes)

    def _meet_higher_term(self, message: Message) -> bool:
        """§5.1: a higher term makes a follower. Whether the message is still to be handled."""
        state = self._state
        match message:
            case VoteRequest():
                if self._election.hears_leader and not message.transfer:
                    return False  # thesis 4.2.3: a removed or cut-off member must not depose a live leader
                # A pre-vote asks about a term that nobody is in yet: taking it over would let a member behind
                # a broken link raise everybody's term again and again, which is what pre-votes are to
                # prevent.
                if not message.pre_vote:
                    state.become_follower(message.term, None)
            case VoteResponse(pre_vote=True, granted=True):
                pass  # carries the term asked for, in which nobody is yet
            case AppendRequest() | HeartbeatRequest() | InstallSnapshot():
                state.become_follower(message.term, message.source)
            case _:
                state.become_follower(message.term, None)
        return True

    def _answer_lower_term(self, message: Message) -> None:
        """Tell a leader or candidate of an older term about this one; drop everything else."""
        state = self._state
        match message:
            case VoteRequest():
                self._election.vote_request(message)
            case AppendRequest() | HeartbeatRequest() | InstallSnapshot():
                state.outbox.send(
                    AppendResponse(
                        source=state.node_id,
                        target=message.source,
                        term=state.term,
                        accepted=False,
                        hint=EntryId(0, state.log.last.index + 1),
                    )
                )
            case _:
                pass

    def _dispatch(self, message: Message) -> None:
        """Hand a message of this term (or a pre-vote) to the rules of the role."""
        state, leads = self._state, self._state.role is Role.LEADER
        match message:
            case AppendResponse():
                if leads:
                    self._replication.append_response(message)
            case AppendRequest():
                if self._follow(message.source):
                    self._follower.append_request(message)
            case HeartbeatRequest():
                if self._follow(message.source):
                    self._follower.heartbeat_request(message)
            case HeartbeatResponse():
                if leads:
                    self._heartbeats.response(message)
            case ReadIndexRequest():
                if leads:
                    self._heartbeats.read_index_request(message)
            case ReadIndexResponse():
                context = state.forwarded_reads.answered(message.context)
                if context is not None:
                    state.outbox.reads.append(ReadState(context=context, index=message.index))
            case VoteRequest():
                self._election.vote_request(message)
            case VoteResponse():
                self._election.vote_response(message)
            case InstallSnapshot():
                if self._follow(message.source):
                    self._follower.install_snapshot(message)
            case TimeoutNow():
                if message.source == state.leader_id:
                    self._election.campaign_by_transfer()
            case _:
                assert_never(message)

    def _follow(self, leader_id: int) -> bool:
        """The leader of this term spoke. False for an impostor: a term has one leader (§5.2)."""
        state = self._state
        # A candidate gives way as well (§5.2): in its own term somebody else has won.
        if state.leader_id is None:
            state.become_follower(state.term, leader_id)
        elif state.leader_id != leader_id:
            return False
        state.hear_leader()
        return True
