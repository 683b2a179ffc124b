"""What the core asks of its driver, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

from connect_kv.raft.messages import Message
from connect_kv.raft.types import Entry, HardState, SnapshotMeta


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadState:
    """A read may be served once the state machine has applied `index`."""

    context: int
    index: int | None
    """None: the read was abandoned (leadership lost, or no leader); ask again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRead:
    """Entries that `target` needs and that are no longer in memory.

    Answered by ``RaftCore.entries_loaded(target, entries)``.
    """

    target: int
    start: int
    end: int
    """Exclusive. Fewer may be returned: at least one, at most `max_bytes` beyond the first."""
    max_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """One step of work for the driver. Every field says what it waits for, and nothing else does."""

    number: int
    """Counts up by one. Reported with `RaftCore.persisted` when the disk part is durable."""
    messages: tuple[Message, ...] = ()
    """Send at once, in order: they promise nothing (a leader's appends, heartbeats, pre-votes)."""
    messages_after_persist: tuple[Message, ...] = ()
    """Send in order after this and every earlier Ready is durable: votes, requests for votes,
    acknowledgements."""
    hard_state: HardState | None = None
    """If set: store it, atomically with `entries`."""
    entries: tuple[Entry, ...] = ()
    """If any: store them; what the log holds at or after the first one's index is gone."""
    install: SnapshotMeta | None = None
    """If set: make the staged snapshot current and drop the log, before storing `entries`."""
    must_sync: bool = False
    """The disk part must be durable before `persisted(number)`; otherwise it is only a hint."""
    reads: tuple[ReadState, ...] = ()
    """Reads whose index is known now."""
    log_reads: tuple[LogRead, ...] = ()
    """Older entries to load and hand back."""
    snapshots: tuple[int, ...] = ()
    """Members to send a snapshot to; answered by ``RaftCore.report_snapshot``. One may be named again
    while a snapshot is on its way to it: then there is nothing more to do."""
