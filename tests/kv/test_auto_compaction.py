"""History that is forgotten by itself."""

import asyncio
import contextlib
from collections.abc import Sequence

import pytest

from connect_kv.errors import NotProposed
from connect_kv.kv.auto_compaction import AutoCompactor, Retention
from connect_kv.rpc.command_pb2 import CommandBatch, Result
from tests.kv.conftest import Kv, ManualClock


class Member:
    def __init__(self, kv: Kv, retention: Retention) -> None:
        self.kv = kv
        self.clock = ManualClock()
        self.leads = True
        self.fails = False
        self.compactor = AutoCompactor(
            retention,
            clock=self.clock,
            revision=lambda: kv.machine.revision,
            propose=self.propose,
            is_leader=lambda: self.leads,
        )
        self.task = asyncio.create_task(self.compactor.run())

    async def propose(self, payload: bytes, count: int) -> Sequence[Result]:
        if self.fails:
            raise NotProposed("the leader is gone")
        return self.kv.apply(*CommandBatch.FromString(payload).commands)

    async def write_for(self, seconds: int) -> None:
        for _ in range(seconds):
            self.kv.put(b"a")
            await self.clock.advance(1)

    async def stop(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


async def test_a_period_of_history_is_kept(kv: Kv) -> None:
    member = Member(kv, Retention(seconds=20))
    await member.write_for(19)
    assert kv.machine.compact_revision == -1
    await member.write_for(61)
    assert kv.machine.revision - 45 <= kv.machine.compact_revision <= kv.machine.revision - 19
    await member.stop()


async def test_a_number_of_revisions_is_kept(kv: Kv) -> None:
    member = Member(kv, Retention(revisions=10))
    for _ in range(50):
        kv.put(b"a")
    await member.clock.advance(301)
    assert kv.machine.compact_revision == kv.machine.revision - 10
    await member.stop()


async def test_only_the_leader_compacts_and_a_new_one_knows_the_past(kv: Kv) -> None:
    member = Member(kv, Retention(seconds=20))
    member.leads = False
    await member.write_for(60)
    assert kv.machine.compact_revision == -1
    member.leads = True
    await member.write_for(3)
    assert kv.machine.compact_revision > 30
    await member.stop()


async def test_a_failed_proposal_is_tried_again(kv: Kv) -> None:
    member = Member(kv, Retention(seconds=20))
    member.fails = True
    await member.write_for(60)
    member.fails = False
    await member.write_for(3)
    assert kv.machine.compact_revision > 30
    await member.stop()


def test_a_retention_is_one_of_the_two() -> None:
    for seconds, revisions in ((0, 0), (5, 5)):
        with pytest.raises(ValueError, match="either"):
            Retention(seconds=seconds, revisions=revisions)
