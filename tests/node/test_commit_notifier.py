"""Followers hear of a commit soon, and by a message of its own only if nothing else told them."""

import asyncio
from typing import cast

import pytest

from connect_kv.node import pipeline
from connect_kv.node.pipeline import CommitNotifier
from connect_kv.raft.core import RaftCore
from tests.node.cluster import Trio, eventually, put

HEARTBEAT_SECONDS = 0.1


class Asked:
    """In place of a core: notes what it is asked to tell, and says whether that is news."""

    def __init__(self) -> None:
        self.news = True
        self.indexes: list[int] = []

    def await_commit(self, index: int) -> bool:
        self.indexes.append(index)
        return self.news


async def test_what_is_committed_within_a_pause_is_told_together_and_news_wakes() -> None:
    core = Asked()
    woken: list[int] = []
    told = CommitNotifier(cast(RaftCore, core), lambda: woken.append(len(core.indexes)))
    told.committed(4)
    told.committed(5)
    await eventually(lambda: 5 in core.indexes)
    core.news = False
    told.committed(6)
    await eventually(lambda: 6 in core.indexes)

    # The pause of 5 began with 4: what came in it has one of its own.
    assert core.indexes == [4, 5, 6]
    assert woken == [1, 2]


async def test_nothing_is_told_after_the_end() -> None:
    core = Asked()
    told = CommitNotifier(cast(RaftCore, core), lambda: None)
    told.committed(4)
    told.end()
    await asyncio.sleep(3 * pipeline.COMMIT_PAUSE_SECONDS)
    assert core.indexes == []


async def test_a_follower_hears_of_what_its_callers_wait_for_before_the_next_heartbeat(
    trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "COMMIT_PAUSE_SECONDS", 3600.0)
    leader = await trio.start()
    follower, clock = trio.followers(leader)[0], asyncio.get_running_loop()
    begun = clock.time()

    for number in range(10):
        await put(follower, number)

    assert clock.time() - begun < 3 * HEARTBEAT_SECONDS
