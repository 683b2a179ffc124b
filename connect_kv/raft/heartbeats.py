"""The leader's heartbeats, and what they prove: that it still leads (thesis 6.2), for reads as well (6.4)."""

from __future__ import annotations

from connect_kv.raft.messages import HeartbeatRequest, HeartbeatResponse, ReadIndexRequest, ReadIndexResponse
from connect_kv.raft.quorum import VoteResult, committed_index, vote_result
from connect_kv.raft.reads import ReadRequest
from connect_kv.raft.ready import ReadState
from connect_kv.raft.replication import Replication
from connect_kv.raft.state import RaftState
from connect_kv.raft.types import Role


class Heartbeats:
    """A leader's clockwork."""

    def __init__(self, state: RaftState, replication: Replication) -> None:
        self._state = state
        self._replication = replication
        self._term = 0
        self._for_all = 0
        """The last round that went to every member in this term,"""
        self._answered: list[int] = []
        """who has answered it, in order of the answers,"""
        self._nearest: list[int] = []
        """and these before those who answered one before it."""

    def tick(self) -> None:
        """One tick of a leader."""
        state = self._state
        state.heartbeat_elapsed += 1
        state.election_elapsed += 1
        if state.transfer_to is not None:
            state.transfer_elapsed += 1
            if state.transfer_elapsed >= state.config.election_ticks:
                state.transfer_to = None  # the successor did not make it: lead on (thesis 3.10)
        if state.election_elapsed >= state.config.election_ticks:
            state.election_elapsed = 0
            if not self._quorum_is_active():
                state.become_follower(state.term, None)
                return
            self._replication.recover_snapshots()
        if state.heartbeat_elapsed >= state.config.heartbeat_ticks:
            state.heartbeat_elapsed = 0
            self._begin_round(frozenset(state.progress))

    def flush(self) -> None:
        """Begin a round if reads wait for one.

        For one member that asks, only those are asked whose answers it takes, who answered first when all
        were asked: to ask the others as well costs each of them a turn, and their answers come when the read
        is gone. Should one not answer, the next heartbeat asks all, and confirms what an earlier round would
        have. Where several ask, a round serves many, and all members are busy: the first to answer counts.
        """
        state = self._state
        if state.reads.wants_round:
            self._begin_round((state.reads.lone and self._majority()) or self._voters())

    def unreachable(self, node_id: int) -> None:
        """Messages to or from that member were lost: reads that may wait for its answer ask all."""
        if node_id in self._nearest:
            self._nearest.remove(node_id)
            if self._state.role is Role.LEADER and self._state.reads.under_way:
                self._begin_round(self._voters())

    def response(self, message: HeartbeatResponse) -> None:
        """A member answered a round."""
        state = self._state
        progress = state.progress.get(message.source)
        if progress is None or message.round > state.round:
            return
        progress.recent_active = True
        if message.round == self._for_all and message.source not in self._answered:
            self._answered.append(message.source)
            others = [node_id for node_id in self._nearest if node_id not in self._answered]
            self._nearest = self._answered + others
        if message.round > progress.acknowledged_round:
            progress.acknowledged_round = message.round
            self._confirm_reads()
        self._replication.recover(message.source, progress)

    def read_index(self, request: ReadRequest) -> None:
        """A read arrived: what is committed now is what it must see."""
        state = self._state
        # Fixed now, not when the round is confirmed: then it would be later than needed, and the reader waits
        # for entries that came after it. And not before a commit in this term: a new leader's commit index
        # may lie behind a write that its predecessor acknowledged (thesis 6.4, step 1).
        state.reads.add(request, state.commit_index if state.committed_in_term else None)

    def read_index_request(self, message: ReadIndexRequest) -> None:
        """A follower asks for the index at which its reads may be answered (thesis 6.4)."""
        self.read_index(ReadRequest(message.source, message.context))

    def _voters(self) -> frozenset[int]:
        membership = self._state.membership
        return membership.voters | membership.voters_outgoing

    def _majority(self) -> frozenset[int]:
        """The nearest members that with this one are a majority; none if that cannot be said."""
        state = self._state
        voters = state.membership.voters
        if self._term != state.term or state.membership.joint or len(state.deciding) > 1:
            return frozenset()
        needed = len(voters) // 2 + 1 - (state.node_id in voters)
        nearest = [node_id for node_id in self._nearest if node_id in voters][:needed]
        return frozenset(nearest) if len(nearest) == needed else frozenset()

    def _begin_round(self, targets: frozenset[int]) -> None:
        state = self._state
        if self._term != state.term:
            self._term, self._nearest = state.term, []
        # The number first, so that reads which arrive from here on are not confirmed by it: an answer to a
        # heartbeat sent before the read arrived proves that this node led then, not that nobody wrote
        # elsewhere since.
        state.round += 1
        state.reads.begin_round(state.round)
        if targets.issuperset(state.progress):
            self._for_all, self._answered = state.round, []
        for node_id, progress in state.progress.items():
            if node_id in targets:
                # Never beyond what it acknowledged: its log behind that may differ from ours (see
                # `Follower.heartbeat_request`, which commits without comparing).
                known = min(state.commit_index, progress.match_index)
                progress.told_commit = max(progress.told_commit, known)
                state.outbox.send(
                    HeartbeatRequest(
                        source=state.node_id,
                        target=node_id,
                        term=state.term,
                        commit_index=known,
                        round=state.round,
                    )
                )
        # A voter alone hears from nobody: whatever began its round, it is confirmed now or never.
        self._confirm_reads()

    def _confirm_reads(self) -> None:
        state = self._state
        if not state.reads.under_way:
            return
        rounds = {node_id: progress.acknowledged_round for node_id, progress in state.progress.items()}
        rounds[state.node_id] = state.round
        confirmed = max(committed_index(one, rounds) for one in state.deciding)
        for request, index in state.reads.confirmed(confirmed):
            if request.source == state.node_id:
                state.outbox.reads.append(ReadState(context=request.context, index=index))
            else:
                state.outbox.send(
                    ReadIndexResponse(
                        source=state.node_id,
                        target=request.source,
                        term=state.term,
                        context=request.context,
                        index=index,
                    )
                )
                # A learner is asked nothing in the round, and a follower may have had less of the log.
                self._replication.await_commit(index, request.source)

    def _quorum_is_active(self) -> bool:
        """Check-quorum: a majority answered since the last time (thesis 6.2)."""
        state = self._state
        active = {node_id: progress.recent_active for node_id, progress in state.progress.items()}
        active[state.node_id] = True
        for progress in state.progress.values():
            progress.recent_active = False
        return any(vote_result(one, active) is VoteResult.WON for one in state.deciding)
