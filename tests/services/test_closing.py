"""Who waits for something of a member that closes is told NodeStopped, and never cancelled.

A future that is cancelled looks to its waiter like a cancellation of its own: a task of a group that waits
so ends without a word, and the group as if all were done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from typing import Any, TypeVar

import pytest

from connect_kv.errors import NodeStopped
from connect_kv.kv.machine import KvMachine
from connect_kv.services.caller import Caller
from connect_kv.services.executor import CommandExecutor
from connect_kv.services.lock_queue import LockQueue
from connect_kv.services.renewals import Renewals
from connect_kv.statemachine.queries import Queries
from tests.services.conftest import FakeNode, everybody

T = TypeVar("T")


class Silent(FakeNode):
    """Never answers."""

    async def propose(self, payload: bytes, count: int = 1) -> list[bytes]:
        await asyncio.Event().wait()
        raise AssertionError


class Stuck:
    """A worker whose call takes for ever."""

    async def run(self, call: Callable[[], T]) -> T:
        await asyncio.Event().wait()
        return call()

    async def close(self) -> None:
        """Nothing."""


def executor() -> CommandExecutor:
    return CommandExecutor(Silent(), cluster_id=1, member_id=1, revision=lambda: 1)


async def told(work: Coroutine[Any, Any, object], close: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """As a part of a group, which must hear of it."""
    with pytest.RaisesGroup(NodeStopped):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(work)
            for _ in range(5):
                await asyncio.sleep(0)
            assert not task.done()
            await close()


async def test_who_waits_for_a_cleanup() -> None:
    """``Compact(physical)``, HashKV and the corruption check wait so."""
    machine = KvMachine()

    async def close() -> None:
        machine.close()

    await told(machine.cleaned(5), close)


async def test_who_renews_a_lease_and_who_comes_behind() -> None:
    renewals = Renewals(executor())
    await told(renewals.renew(1), renewals.close)
    with pytest.raises(NodeStopped):
        await renewals.renew(1)


async def test_who_waits_for_the_next_renewal() -> None:
    renewals = Renewals(executor())
    under_way = asyncio.create_task(renewals.renew(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await told(renewals.renew(2), renewals.close)
    with pytest.raises(NodeStopped):
        await under_way


async def test_who_enters_a_lock() -> None:
    lock_queue = LockQueue(executor(), KvMachine(), everybody())
    await told(lock_queue.win(Caller(), b"lock", 7, b"", nullcontext()), lock_queue.close)


async def test_who_leaves_while_entering_is_still_cancelled() -> None:
    lock_queue = LockQueue(executor(), KvMachine(), everybody())
    entering = asyncio.create_task(lock_queue.win(Caller(), b"lock", 7, b"", nullcontext()))
    await asyncio.sleep(0)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    await lock_queue.close()


async def test_who_asks_a_machine() -> None:
    queries = Queries(Stuck(), lambda machine, method, arguments, date: b"")
    behind: list[asyncio.Task[bytes]] = []

    async def close() -> None:
        behind.append(asyncio.create_task(queries.ask("m", "q", b"", 0)))
        await asyncio.sleep(0)
        assert queries._task is not None
        queries._task.cancel()
        await asyncio.sleep(0)
        queries._task.cancel()

    await told(queries.ask("m", "q", b"", 0), close)
    with pytest.raises(NodeStopped):
        await behind[0]
