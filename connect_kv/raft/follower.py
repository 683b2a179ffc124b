"""The follower's side of replication: appends, heartbeats, snapshots (§5.3, §7)."""

from __future__ import annotations

from collections.abc import Sequence

from connect_kv.raft.errors import RaftInvariantError
from connect_kv.raft.messages import (
    AppendRequest,
    AppendResponse,
    HeartbeatRequest,
    HeartbeatResponse,
    InstallSnapshot,
)
from connect_kv.raft.state import RaftState
from connect_kv.raft.types import ZERO, Entry, EntryId, EntryKind, Membership


class Follower:
    """What a follower does with the messages of the leader of its term."""

    def __init__(self, state: RaftState) -> None:
        self._state = state

    def append_request(self, message: AppendRequest) -> None:
        """Append what is new, drop what conflicts, and acknowledge once it is on disk."""
        state, prev, entries = self._state, message.prev, message.entries
        if not _well_formed(message):
            return
        last_index = prev.index + len(entries)
        if prev.index < state.commit_index:
            # What is committed here is in every leader's log (§5.4.3): no need to compare, and after
            # compaction no way to.
            entries = entries[state.commit_index - prev.index :]
            last_index = max(last_index, state.commit_index)
        elif not state.log.matches(prev):
            if prev.index == state.commit_index:
                raise RaftInvariantError("leader completeness", f"{prev} differs from what is committed")
            self._reject(message.source, prev.index, self._hint(prev.index))
            return
        self._append(entries)
        # Not what the leader has committed but as far as this append proves the logs equal: what lies behind
        # may be a tail of an older leader. Follower 1 1 2 2, leader 1 1 3 3 with commit 4: a heartbeat-like
        # append with prev = 2 must not commit the two entries of term 2.
        self._commit(min(message.commit_index, last_index))
        self._accept(message.source, last_index)

    def heartbeat_request(self, message: HeartbeatRequest) -> None:
        """Note the commit index, and answer the round."""
        state = self._state
        # Safe without a comparison: the leader never tells a member more than it has acknowledged
        # (`told_commit`).
        self._commit(message.commit_index)
        if message.round:
            state.outbox.send(
                HeartbeatResponse(
                    source=state.node_id, target=message.source, term=state.term, round=message.round
                )
            )
            if state.needs_snapshot:
                self._ask_for_snapshot(message.source)

    def install_snapshot(self, message: InstallSnapshot) -> None:
        """Make a snapshot current, unless the log has all of it.

        Installing drops the log, so it must never drop entries that this node acknowledged and that
        may be committed: those after a `last` that the log agrees with. A log that goes on after
        the snapshot is kept; if the state was lost as well, a later snapshot is needed.
        Until one comes, the node goes on accepting and acknowledging entries.
        """
        state, last = self._state, message.meta.last
        if last.term > message.term:
            return
        if state.needs_snapshot:
            if last.index < state.log.first_index - 1 or (
                last.index < state.log.last.index and state.log.matches(last)
            ):
                self._ask_for_snapshot(message.source)
                return
        elif last.index <= state.commit_index:
            self._accept(message.source, state.commit_index)
            return
        elif state.log.matches(last):
            self._commit(last.index)
            self._accept(message.source, last.index)
            return
        state.install(message.meta)
        self._accept(message.source, last.index)

    def _append(self, entries: Sequence[Entry]) -> None:
        """Skip what the log has, truncate at the first conflict, append the rest."""
        state, log = self._state, self._state.log
        # Truncating at `prev` and appending everything would be wrong (§5.3, step 3): of two appends in the
        # wrong order the older one, shorter, would cut off what the newer one brought and was acknowledged
        # for.
        skip = 0
        while skip < len(entries) and log.matches(entries[skip].id):
            skip += 1
        if skip == len(entries):
            return
        if entries[skip].id.index <= log.last.index:
            state.truncate(entries[skip].id.index)
        state.append(entries[skip:])

    def _commit(self, index: int) -> None:
        state = self._state
        if state.commit_index < index <= state.log.last.index:
            state.commit_index = index

    def _hint(self, prev_index: int) -> EntryId:
        """Where the leader should look next (§5.3): the first index of the conflicting term."""
        log = self._state.log
        term = log.term_at(prev_index)
        if term is None:
            return EntryId(0, log.last.index + 1)
        # Never below the commit index: there the logs agree (§5.4.3), and terms may be compacted away.
        return EntryId(term, max(log.first_of_term_at(prev_index), self._state.commit_index + 1))

    def _accept(self, leader_id: int, match_index: int) -> None:
        state = self._state
        # A promise: it leaves after the disk has all of it. A rejection (below) promises nothing and leaves
        # at once.
        state.outbox.promise(
            AppendResponse(
                source=state.node_id,
                target=leader_id,
                term=state.term,
                accepted=True,
                match_index=match_index,
            )
        )

    def _reject(self, leader_id: int, prev_index: int, hint: EntryId) -> None:
        state = self._state
        state.outbox.send(
            AppendResponse(
                source=state.node_id,
                target=leader_id,
                term=state.term,
                accepted=False,
                prev_index=prev_index,
                hint=hint,
            )
        )

    def _ask_for_snapshot(self, leader_id: int) -> None:
        self._reject(leader_id, self._state.log.last.index, ZERO)


def _well_formed(message: AppendRequest) -> bool:
    """Whether a correct leader can have sent this."""
    prev, entries = message.prev, message.entries
    if not entries:
        return prev.term <= message.term
    first, last = entries[0].id, entries[-1].id
    if (first.index, last.index) != (prev.index + 1, prev.index + len(entries)):
        return False
    if not prev.term <= first.term <= last.term <= message.term:
        return False
    try:
        for entry in entries:
            if entry.kind == EntryKind.MEMBERSHIP:
                Membership.decode(entry.data)
    except ValueError:
        return False
    return True
