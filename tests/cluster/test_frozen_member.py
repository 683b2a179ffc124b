"""A member that stands still without closing anything is left: by locks, watches and sessions alike."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import connect_kv
from connect_kv.testing.processes import ProcessCluster, until

PATIENCE = 30.0
"""Seconds: 10 until the connection is asked, 3 for its answer, and time to begin again elsewhere."""


async def test_a_waiting_lock_and_a_watch_leave_a_frozen_member(tmp_path: Path) -> None:
    async with ProcessCluster(tmp_path) as cluster:
        leader = await cluster.leader()
        frozen, *others = sorted(cluster.nodes, key=lambda node: node is leader)
        through_frozen = ",".join(node.client_address for node in (frozen, *others))
        async with (
            connect_kv.connect(through_frozen) as client,
            connect_kv.connect(leader.client_address) as other,
            client.watch("watched") as events,
        ):
            entered = asyncio.Event()

            async def wait_for_lock() -> None:
                async with client.lock("name"):
                    entered.set()

            async def both_stand_in_line() -> bool:
                return len(await other.get_prefix("name/")) == 2

            async with other.lock("name"):
                waiting = asyncio.create_task(wait_for_lock())
                await until(both_stand_in_line, 10, "the second in line")
                frozen.signal(signal.SIGSTOP)
                await other.put("watched", "v")
            try:
                async with asyncio.timeout(PATIENCE):
                    event = await anext(events)
                    await entered.wait()
                    await waiting
                assert event.kv.key == b"watched"
            finally:
                frozen.signal(signal.SIGCONT)
