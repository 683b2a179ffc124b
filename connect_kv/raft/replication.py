"""The leader's side of replication: append, send, acknowledge, commit (§5.3, §5.4.2, §7)."""

from __future__ import annotations

from collections.abc import Sequence

from connect_kv.raft.log import entry_bytes
from connect_kv.raft.membership import left_joint
from connect_kv.raft.messages import AppendRequest, AppendResponse, HeartbeatRequest, TimeoutNow
from connect_kv.raft.progress import Progress, ProgressState
from connect_kv.raft.quorum import committed_index
from connect_kv.raft.ready import LogRead
from connect_kv.raft.state import RaftState
from connect_kv.raft.types import ZERO, Entry, EntryId, EntryKind, Membership


class Replication:
    """What a leader does to have its log accepted by a majority."""

    def __init__(self, state: RaftState) -> None:
        self._state = state

    def append(self, kind: EntryKind, payloads: Sequence[bytes]) -> EntryId:
        """Add entries of this term to the leader's log; they leave with the next Ready."""
        state = self._state
        term, next_index = state.term, state.log.last.index + 1
        state.append(
            [Entry(EntryId(term, index), kind, data) for index, data in enumerate(payloads, next_index)]
        )
        return EntryId(term, next_index)

    def append_membership(self, membership: Membership) -> EntryId:
        """Change the membership: from now on the new one rules (thesis 4.1; `RaftState.deciding`)."""
        id = self.append(EntryKind.MEMBERSHIP, [membership.encode()])
        self._state.track_members()
        return id

    def flush(self) -> None:
        """Send every member what it may have now."""
        last_index = self._state.log.last.index
        for node_id, progress in self._state.progress.items():
            if not progress.has_all(last_index):
                self._feed(node_id, progress)

    def append_response(self, message: AppendResponse) -> None:
        """A member accepted or rejected an append, or installed a snapshot."""
        progress = self._state.progress.get(message.source)
        if progress is None:
            return
        progress.recent_active = True
        if not message.accepted:
            self._rejected(message, progress)
        elif message.match_index <= self._state.log.last.index:
            self._accepted(message, progress)

    def advance_commit(self) -> None:
        """Commit what a majority has on disk, if it is of this term (§5.4.2, Figure 8).

        What came before is committed along with it. The leader's own copy counts once persisted.
        """
        state = self._state
        acknowledged = {node_id: progress.match_index for node_id, progress in state.progress.items()}
        # Not the end of the log in memory: a leader of three that counted what it has not written yet, and
        # one follower, would acknowledge an entry that a power failure leaves on one disk.
        acknowledged[state.node_id] = state.persisted_index
        index = max(committed_index(one, acknowledged) for one in state.deciding)
        # An entry of an older term is never committed by counting copies (Figure 8): S1 of term 4 has 2/2 on
        # a majority and dies; S5, whose log ends with term 3, can still win that majority's votes and
        # overwrite it. Once an entry of this term has a majority S5 cannot win, and all that lies before is
        # safe with it.
        if index <= state.commit_index or index < state.term_start:
            return
        state.commit_index = index
        # Reads that came before the first commit of the term get this index, not the one of their arrival:
        # what an earlier leader had acknowledged may lie anywhere up to `term_start`.
        state.reads.fix(index)
        if state.history.index <= index:
            self._membership_committed()

    def await_commit(self, index: int, node_id: int | None) -> bool:
        """A member, or every one, is to hear of the commit of `index`; whether that is news to one."""
        news = False
        for follower, progress in self._state.progress.items():
            if node_id in (None, follower):
                progress.awaited_commit = max(progress.awaited_commit, index)
                news = news or progress.told_commit < min(index, progress.match_index)
        return news

    def recover(self, node_id: int, progress: Progress) -> None:
        """A member answered a heartbeat: it lives, so whatever it did not answer may be lost."""
        state = self._state
        progress.paused = False
        waited = state.tick_count - progress.heard_tick
        # Only after a heartbeat's time without an acknowledgement: a member that is merely slow would get a
        # probe for each heartbeat it answers, each of which it must answer too.
        if progress.inflight and waited >= state.config.heartbeat_ticks:
            progress.heard_tick = state.tick_count
            prev_term = state.log.term_at(progress.next_index - 1)
            if prev_term is None:
                # Compacted meanwhile. While its window is full nothing else would find out that it
                # needs a snapshot now.
                progress.become_probe(progress.match_index + 1)
            else:
                self._probe_at(node_id, EntryId(prev_term, progress.next_index - 1))
        self.hand_over(node_id, progress)

    def recover_snapshots(self) -> None:
        """Ask members whose snapshot takes long: the news of its end may be lost."""
        for node_id, progress in self._state.progress.items():
            if progress.state is ProgressState.SNAPSHOT and progress.lost_state_at is None:
                self._probe_at(node_id, self._state.log.compacted)

    def unreachable(self, node_id: int) -> None:
        """Messages to a member were lost: begin again from what it acknowledged, once it is back."""
        progress = self._state.progress.get(node_id)
        if progress is not None and progress.state is ProgressState.REPLICATE:
            # Paused until it answers a heartbeat: to a machine that is off, every Ready would otherwise send
            # the same append into a connection that is not there.
            progress.become_probe(progress.match_index + 1, paused=True)

    def snapshot_ended(self, node_id: int, ok: bool) -> None:
        """The driver sent a snapshot, or could not."""
        progress = self._state.progress.get(node_id)
        if progress is None or progress.state is not ProgressState.SNAPSHOT:
            return
        if ok:
            # It stands somewhere after what is compacted; the entries in between are in the log.
            progress.become_probe(self._state.log.first_index)
        else:
            progress.become_probe(progress.match_index + 1, paused=True)

    def entries_loaded(self, node_id: int, entries: Sequence[Entry]) -> None:
        """The driver read older entries for a member; send them if they are still what it needs."""
        progress, log = self._state.progress.get(node_id), self._state.log
        if progress is None or not progress.loading:
            return
        progress.loading = False
        # Between the request and this answer the member may have been probed back, or the tail rewritten
        # after a lost leadership won again: entries that do not join to `next_index`, or that are no longer
        # in the log, would be acknowledged as something they are not.
        if not entries:
            progress.become_probe(progress.next_index, paused=True)
        elif entries[0].id.index == progress.next_index and log.matches(entries[-1].id):
            prev_term = log.term_at(progress.next_index - 1)
            if prev_term is not None:
                self._send(node_id, progress, prev_term, tuple(entries))

    def hand_over(self, node_id: int, progress: Progress) -> None:
        """Tell the successor to campaign, once it has the whole log (thesis 3.10)."""
        state = self._state
        # The whole log, committed or not: proposals are refused meanwhile, so it ends. A successor that lacks
        # the last entry loses against every voter that has it, and the cluster stands still for a timeout.
        if state.transfer_to == node_id and progress.match_index == state.log.last.index:
            state.outbox.send(TimeoutNow(source=state.node_id, target=node_id, term=state.term))

    def _feed(self, node_id: int, progress: Progress) -> None:
        state, log = self._state, self._state.log
        if progress.lost_state_at is not None and state.committed_in_term:
            self._await_snapshot(node_id, progress, progress.lost_state_at)
            return
        while progress.next_index <= log.last.index or progress.unknown_below(log.last.index):
            in_memory = progress.next_index >= log.window_start
            pending = log.bytes_from(progress.next_index) if in_memory else state.config.small_append_bytes
            if not progress.may_send(state.config, pending) or not self._send_next(node_id, progress):
                return
        # Unless it is awaited, the next append carries it, or the next heartbeat. Not before it is applied
        # here: whoever waits at the leader comes first, and under load an append goes by then.
        known = min(state.commit_index, progress.match_index)
        if progress.told_commit < min(known, progress.awaited_commit) and known <= state.applied_index:
            self._tell_commit(node_id, progress, known)

    def _send_next(self, node_id: int, progress: Progress) -> bool:
        """Send the next append; False if that needs the driver first."""
        log, config = self._state.log, self._state.config
        prev_term = log.term_at(progress.next_index - 1)
        if prev_term is None:
            self._want_snapshot(node_id, progress)
            return False
        entries = log.entries(progress.next_index, log.last.index + 1, config.max_append_bytes)
        if entries is None:
            if not progress.loading:
                progress.loading = True
                self._state.outbox.log_reads.append(
                    LogRead(
                        target=node_id,
                        start=progress.next_index,
                        end=log.window_start,
                        max_bytes=config.max_append_bytes,
                    )
                )
            return False
        self._send(node_id, progress, prev_term, entries)
        return True

    def _send(self, node_id: int, progress: Progress, prev_term: int, entries: tuple[Entry, ...]) -> None:
        state, last_index = self._state, progress.next_index + len(entries) - 1
        state.outbox.send(
            AppendRequest(
                source=state.node_id,
                target=node_id,
                term=state.term,
                prev=EntryId(prev_term, progress.next_index - 1),
                entries=entries,
                commit_index=state.commit_index,
            )
        )
        # The follower commits no further than the append reaches (`Follower.append_request`), so it has been
        # told no more than that, whatever the message says.
        progress.told_commit = min(state.commit_index, last_index)
        progress.sent(last_index, sum(map(entry_bytes, entries)), state.tick_count)

    def _probe_at(self, node_id: int, prev: EntryId) -> None:
        """An append without entries, only to hear where the member stands."""
        state = self._state
        state.outbox.send(
            AppendRequest(
                source=state.node_id,
                target=node_id,
                term=state.term,
                prev=prev,
                entries=(),
                commit_index=state.commit_index,
            )
        )

    def _tell_commit(self, node_id: int, progress: Progress, commit_index: int) -> None:
        """Nothing else is going to the member soon, and its readers wait."""
        state = self._state
        progress.told_commit = commit_index
        state.outbox.send(
            HeartbeatRequest(
                source=state.node_id, target=node_id, term=state.term, commit_index=commit_index, round=0
            )
        )

    def _accepted(self, message: AppendResponse, progress: Progress) -> None:
        state, match_index = self._state, message.match_index
        # Before `acknowledged`, which moves it: an old or repeated answer must not count as news.
        advanced = match_index > progress.match_index
        progress.acknowledged(match_index, state.tick_count)
        # An answer older than the probe acknowledges less than is known; it says nothing about where the logs
        # agree now. After a snapshot only an index the log still has lets replication go on from there.
        if progress.state is ProgressState.PROBE:
            agrees = match_index >= progress.match_index
        else:
            agrees = (
                progress.state is ProgressState.SNAPSHOT
                and progress.lost_state_at is None
                and match_index >= state.log.compacted.index
            )
        if agrees:
            progress.become_replicate()
        if not advanced:
            return
        if match_index > state.commit_index:
            self.advance_commit()
        self.hand_over(message.source, progress)

    def _rejected(self, message: AppendResponse, progress: Progress) -> None:
        """Go back to where the logs may agree, unless the answer is an old one."""
        if progress.state is ProgressState.SNAPSHOT:
            return
        if message.hint == ZERO:
            progress.lost_state_at = message.prev_index
            return
        # A rejection of an append sent before the last move back would move back a second time for nothing;
        # one below what is acknowledged was overtaken. Obeying them is not unsafe, but with a long queue of
        # appends under way each would throw away all that was sent after it.
        if progress.state is ProgressState.PROBE:
            stale = message.prev_index != progress.next_index - 1
        else:
            stale = message.prev_index <= progress.match_index
        if not stale:
            # At least one back, whatever the hint says: a follower that lies or errs cannot make this stand
            # still.
            next_index = min(self._next_after(message.hint), message.prev_index)
            progress.become_probe(next_index)

    def _next_after(self, hint: EntryId) -> int:
        """§5.3: skip the whole conflicting term, or go to where it ends in the leader's own log.

        ::

            leader    4 4 4 4 5 5 6 6      prev = 6/8, conflicts with 4/8; hint = 4/1
            follower  4 4 4 4 4 4 4 4      the leader has term 4 up to 4: next = 5 agrees at once
        """
        own = self._state.log.last_of_term(hint.term) if hint.term else None
        return hint.index if own is None else own + 1

    def _await_snapshot(self, node_id: int, progress: Progress, lost_at: int) -> None:
        """Begin a snapshot for a member that lost its state, as soon as it can use it.

        It keeps the entries it acknowledged, so it refuses a snapshot that ends before them. Hence
        nothing more is sent to it until everything it has is applied here, and the snapshot has arrived.
        """
        state = self._state
        needed = min(max(lost_at, progress.match_index), state.log.last.index)
        if (
            progress.state is not ProgressState.SNAPSHOT
            and not progress.inflight
            and state.applied_index >= needed
        ):
            self._want_snapshot(node_id, progress)

    def _want_snapshot(self, node_id: int, progress: Progress) -> None:
        progress.become_snapshot()
        self._state.outbox.snapshots.append(node_id)

    def _membership_committed(self) -> None:
        """The membership in force is committed: end its joint phase, or leave if it leaves this node out."""
        membership = self._state.membership
        # Not before: while the joint membership is only appended, a crash may truncate it at some, and the
        # new majority alone could decide beside the old one (thesis 4.3). A leader that is left out goes on
        # leading until the change is committed, for nobody else may have that entry (thesis 4.2.2).
        if membership.joint:
            self.append_membership(left_joint(membership))
        elif self._state.node_id not in membership.voters:
            self._abdicate()

    def _abdicate(self) -> None:
        """Step down (thesis 4.2.2): say what is committed, and let the fullest log campaign at once."""
        state = self._state
        self.flush()
        for node_id, progress in state.progress.items():
            known = min(state.commit_index, progress.match_index)
            if progress.told_commit < known:
                self._tell_commit(node_id, progress, known)
        fullest = max(
            (node_id for node_id in state.progress if node_id in state.membership.voters),
            key=lambda node_id: state.progress[node_id].match_index,
        )
        state.outbox.send(TimeoutNow(source=state.node_id, target=fullest, term=state.term))
        state.become_follower(state.term, None)
