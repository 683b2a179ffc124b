"""One snapshot is received at a time, and that of a leader which is gone does not block the next leader's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace

import pytest

from connect_kv.node.snapshots import SnapshotReceiver, SnapshotRefused
from connect_kv.peer_protocol import Hello, SnapshotOffer
from connect_kv.raft.errors import RaftInvariantError
from connect_kv.raft.types import EntryId, Membership, SnapshotMeta


class State:
    """Stages as slowly as chunks come; notes what it was doing."""

    def __init__(self) -> None:
        self.events: list[str] = []

    async def stage(self, meta: SnapshotMeta, chunks: AsyncIterator[bytes]) -> str:
        self.events.append(f"begin {meta.last.term}")
        try:
            async for _ in chunks:
                pass
        finally:
            self.events.append(f"end {meta.last.term}")
        return "2"


def a_receiver(state: State) -> SnapshotReceiver[int]:
    """Of a node in term 1 that has applied ten entries, and takes no snapshot it was offered."""
    parts = SimpleNamespace(
        state=state, core=SimpleNamespace(term=1), history=SimpleNamespace(applied=EntryId(1, 10))
    )
    return SnapshotReceiver(
        parts, None, None, step=lambda _: None, before_switch=None, jumped=None  # type: ignore[arg-type]
    )  # fmt: skip


def offer(term: int) -> SnapshotOffer:
    hello = Hello(
        cluster_id=1,
        source=term,
        target=9,
        directory_id=b"d",
        protocol=1,
        oldest_protocol=1,
        highest_command=1,
    )
    return SnapshotOffer(
        hello=hello,
        term=term,
        meta=SnapshotMeta(EntryId(term, 100), Membership()),
        snapshot_id=term,
        approximate_bytes=1,
    )


async def never_more() -> AsyncIterator[bytes]:
    """A stream whose sender died, and might come back to go on."""
    yield b"first"
    await asyncio.Event().wait()


async def whole() -> AsyncIterator[bytes]:
    yield b"all"


async def test_a_later_leaders_snapshot_ends_the_half_of_an_earlier_one() -> None:
    state = State()
    receiver = a_receiver(state)
    first = asyncio.create_task(receiver.receive(offer(2), never_more()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(SnapshotRefused, match="no need"):  # it was staged, and offered to the core
        await receiver.receive(offer(3), whole())
    with pytest.raises(SnapshotRefused, match="later term"):
        await first
    assert state.events == ["begin 2", "end 2", "begin 3", "end 3"]


async def test_within_a_term_the_first_is_finished() -> None:
    receiver = a_receiver(State())
    first = asyncio.create_task(receiver.receive(offer(2), never_more()))
    await asyncio.sleep(0)
    with pytest.raises(SnapshotRefused, match="another snapshot"):
        await receiver.receive(offer(2), whole())
    assert not first.done()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    with pytest.raises(SnapshotRefused, match="no need"):
        await receiver.receive(offer(2), whole())


async def test_an_older_leaders_snapshot_is_refused_at_once() -> None:
    state = State()
    with pytest.raises(SnapshotRefused, match="term 0"):
        await a_receiver(state).receive(offer(0), whole())
    assert state.events == []


async def test_what_is_applied_already_is_refused_at_once() -> None:
    state = State()
    late = offer(2)
    late = replace(late, meta=SnapshotMeta(EntryId(1, 10), Membership()))
    with pytest.raises(SnapshotRefused, match="index 10 is applied here already"):
        await a_receiver(state).receive(late, whole())
    assert state.events == []


async def test_only_what_is_staged_is_installed() -> None:
    meta = SnapshotMeta(EntryId(2, 100), Membership())
    receiver = a_receiver(State())
    with pytest.raises(RaftInvariantError, match="none is staged at"):
        receiver.install_requested(meta)
    with pytest.raises(RaftInvariantError, match="none is staged at"):
        await receiver.install(meta)
