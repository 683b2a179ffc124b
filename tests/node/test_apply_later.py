"""A follower that nobody asks applies between two writes of its log; whatever waits for it is not kept."""

import asyncio
from collections.abc import Sequence

import pytest

from connect_kv.raft.types import Entry
from tests.node.cluster import Host, Trio, eventually, put


def notes_writes(host: Host, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the log was being written, each time something begins to be applied there."""
    apply, found = host.state.apply, []

    async def noting(entries: Sequence[Entry]) -> list[Sequence[int]]:
        found.append(host.worker.busy)
        return await apply(entries)

    monkeypatch.setattr(host.state, "apply", noting)
    return found


async def test_it_is_not_in_the_way_of_the_write_that_a_lone_caller_waits_for(
    trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = await trio.start()
    follower = trio.followers(leader)[0]
    writing = notes_writes(follower, monkeypatch)

    for number in range(20):
        await put(leader, number)

    await eventually(lambda: follower.state.last_applied == leader.state.last_applied)
    assert writing.count(True) == 0


async def test_who_waits_at_the_follower_does_not_wait_for_its_next_write(
    trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = await trio.start()
    follower = trio.followers(leader)[0]
    writing = notes_writes(follower, monkeypatch)

    await asyncio.gather(
        *(put(leader, number) for number in range(20)), *(put(follower, 1) for _ in range(20))
    )
    for number in range(20):
        await asyncio.gather(put(leader, number), put(follower, number))

    assert any(writing)


async def test_a_write_that_does_not_return_keeps_nothing_that_is_committed(trio: Trio) -> None:
    leader = await trio.start()
    follower = trio.followers(leader)[0]
    await put(leader, 1)
    await eventually(lambda: follower.state.last_applied == leader.state.last_applied)
    await put(leader, 2)
    follower.worker.block()
    second = leader.state.last_applied
    await put(leader, 3)  # tells the follower of the second, and hangs there

    await eventually(lambda: follower.state.last_applied >= second)

    assert follower.worker.busy
    follower.worker.unblock()
