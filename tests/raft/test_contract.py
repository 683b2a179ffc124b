"""What a driver must not do is refused at once, by name: whoever goes on after it would break a promise."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from connect_kv.raft.config import RaftConfig
from connect_kv.raft.core import RaftCore
from connect_kv.raft.errors import RaftInvariantError
from connect_kv.raft.log import RaftLog
from connect_kv.raft.state import RaftState
from connect_kv.raft.types import ZERO, EntryId, HardState, Restored
from tests.raft.harness import Cluster, config_for, entries_of, membership_of


def log_of(*terms: int) -> RaftLog:
    log = RaftLog(ZERO, ZERO, (), ())
    log.append(entries_of(terms))
    return log


def restored(**changes: object) -> Restored:
    entries = tuple(entries_of([1, 1, 2]))
    good = Restored(
        hard_state=HardState(2, None, 2),
        last=EntryId(2, 3),
        memberships=((0, membership_of([1, 2, 3])),),
        term_starts=((1, 1), (3, 2)),
        recent=entries,
        last_applied=2,
    )
    return replace(good, **changes)  # type: ignore[arg-type]


def started(with_what: Restored) -> RaftCore:
    return RaftCore(config_for(1), with_what, random.Random(1))


@pytest.mark.parametrize(
    "changes",
    [
        {"last": EntryId(2, 4)},
        {"last": EntryId(3, 3)},
        {"compacted": EntryId(1, 1)},
        {"compacted": EntryId(1, 4)},
        {"recent": tuple(entries_of([1, 2], 1))},
        {"recent": (*entries_of([1]), *entries_of([2], 3))},
        {"term_starts": ()},
        {"term_starts": ((2, 1), (3, 2))},
        {"term_starts": ((1, 2), (3, 1))},
        {"term_starts": ((1, 1), (3, 2), (3, 2))},
    ],
    ids=str,
)
def test_a_log_that_does_not_fit_together_is_not_taken_up(changes: dict[str, object]) -> None:
    """§5.3: a log has one entry at each index and terms that never fall; one restored otherwise is
    refused.
    """
    assert started(restored()).last_index == 3
    with pytest.raises(RaftInvariantError, match="restored log"):
        started(restored(**changes))


def test_what_is_applied_is_in_the_log() -> None:
    """§5.3: what is applied was committed, so a log that ends before it has lost something and is refused."""
    with pytest.raises(RaftInvariantError, match="applied is logged"):
        started(restored(last_applied=4))


def test_a_log_has_no_gap() -> None:
    """§5.3: indexes are consecutive; an entry beyond the next one is never appended."""
    with pytest.raises(RaftInvariantError, match="log contiguity"):
        log_of(1).append(entries_of([1], 3))


@pytest.mark.parametrize("index", [0, 4])
def test_only_what_is_there_is_truncated(index: int) -> None:
    """§5.3: a conflict deletes an entry and all that follow it, so it begins at an entry the log has."""
    with pytest.raises(RaftInvariantError, match="log truncation"):
        log_of(1, 1, 1).truncate(index)


@pytest.mark.parametrize("compacted", [EntryId(1, 4), EntryId(2, 2)])
def test_only_what_is_there_is_compacted(compacted: EntryId) -> None:
    """§7: compaction ends at an entry the log has, of the term it has there."""
    with pytest.raises(RaftInvariantError, match="log compaction"):
        log_of(1, 1, 1).compact(compacted)


def test_committed_entries_stay_and_the_term_grows() -> None:
    """§5.4, §5.1: a committed entry is never removed, and a server's term never falls."""
    state = RaftState(config_for(1), restored(), random.Random(1))
    with pytest.raises(RaftInvariantError, match="committed entries stay"):
        state.truncate(2)
    with pytest.raises(RaftInvariantError, match="term grows"):
        state.become_follower(1, None)
    state.truncate(3)
    assert state.log.last == EntryId(1, 2)


def test_only_what_was_handed_out_is_persisted_and_only_what_is_committed_applied() -> None:
    """§5.3: a server applies only committed entries, and counts as stored only what it was given to store."""
    core = started(restored())
    with pytest.raises(RaftInvariantError, match="persisted after ready"):
        core.persisted(1)
    with pytest.raises(RaftInvariantError, match="only committed entries are applied"):
        core.applied(3)


def test_compacting_again_changes_nothing() -> None:
    """§7: the log begins after the latest compaction; one up to an earlier entry, or the same, leaves it
    so.
    """
    core = started(restored())
    core.compacted(EntryId(1, 2))
    core.compacted(EntryId(1, 1))
    core.compacted(EntryId(1, 2))
    assert core.first_index == 3


def test_a_proposal_has_commands() -> None:
    """§5.3: an entry carries a command for the state machine; a proposal without one is a mistake of the
    caller.
    """
    cluster = Cluster(1)
    leader = cluster.elect(1)
    with pytest.raises(ValueError, match="at least one"):
        leader.propose()


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"node_id": 0}, "node_id"),
        ({"heartbeat_ticks": 0}, "heartbeat_ticks"),
        ({"heartbeat_ticks": 4, "election_ticks": 11}, "heartbeat_ticks"),
        ({"max_append_bytes": 0}, "max_append_bytes"),
        ({"first_election_ticks": 0}, "first_election_ticks"),
        ({"window_entries": -1}, "window_entries"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, int], what: str) -> None:
    """§5.6: heartbeats come far more often than elections time out; settings that break this, or bounds
    of zero, are refused by name.
    """
    with pytest.raises(ValueError, match=what):
        RaftConfig(**{"node_id": 1, **changes})
