"""What members do by themselves, or for root, goes on where users are asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from connect_kv import Compacted, Replicated, command
from connect_kv.statemachine.hosted import ReplicatedMachine
from tests.auth.conftest import guarded


class Counter(Replicated):
    def __init__(self) -> None:
        self.total = 0

    @command
    def increment(self) -> int:
        self.total += 1
        return self.total


async def test_machines_begin_and_are_compared_retired_and_hosted_again(tmp_path: Path) -> None:
    async with guarded(tmp_path, {"counter": ReplicatedMachine(Counter())}) as (server, root):
        counter = root.machine("counter", Counter)
        assert await counter.call(Counter.increment) == 1
        assert await server.services.control.compare() == {}
        assert server.host.machines.measured[1]
        await root.retire_machine("counter")
        assert (await root.machine_status("counter"))[0].machines[0].retired
        await root.host_machine("counter")
        assert await counter.call(Counter.increment) == 1


async def test_history_is_compacted(tmp_path: Path) -> None:
    async with guarded(tmp_path, auto_compaction="1s") as (_, root):
        for number in range(9):
            await root.put("k", str(number))

        async def until_compacted() -> None:
            while True:
                await root.get("k", revision=2)

        with pytest.raises(Compacted):
            await asyncio.wait_for(until_compacted(), 60)
