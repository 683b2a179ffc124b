"""Opening and closing; how long a call may take; what counts as bytes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

import pytest

from connect_kv import errors
from connect_kv.client import txn
from connect_kv.client.client import Client, connect
from connect_kv.framework.replicated import Replicated, command
from tests.client.fake_server import FakeCluster, FakeMember


class Counter(Replicated):
    @command
    def add(self) -> int:
        return 1


async def test_open_and_close_do_what_a_with_does(cluster: FakeCluster, endpoints: str) -> None:
    client = connect(endpoints)
    with pytest.raises(errors.ClientNotOpen, match="not open"):
        await client.get("a")
    assert await client.open() is client
    await client.open()
    await client.put("a", "1")
    await client.close()
    await client.close()
    with pytest.raises(errors.ClientNotOpen, match="not open"):
        await client.get("a")
    async with client, client:
        await client.put("a", "2")
    assert cluster.executed == {b"a": 2}


def test_not_open_is_a_mistake_of_the_program_and_not_unavailable() -> None:
    assert issubclass(errors.ClientNotOpen, RuntimeError)
    assert not issubclass(errors.ClientNotOpen, errors.Unavailable)


async def test_what_outlives_the_client_says_so_and_does_not_connect_again(
    members: list[FakeMember], endpoints: str
) -> None:
    async with connect(endpoints, session=False) as client:
        watch, lock = client.watch("a"), client.lock("l")
        cluster, machine = client.cluster, client.machine("m", Counter)
        members[0].freeze()
        waiting = asyncio.create_task(client.get("a"))
        await members[0].asked.wait()
    calls: list[Awaitable[object]] = [
        *(waiting, anext(watch), watch.__aenter__(), lock.__aenter__()),
        *(cluster.members(), machine.call(Counter.add)),
    ]
    for call in calls:
        with pytest.raises(errors.ClientNotOpen):
            await call
    with pytest.raises(errors.NotHeld):
        await lock.wait_lost()


CALLS: list[Callable[[Client, float], Awaitable[object]]] = [
    lambda client, timeout: client.put("a", "1", timeout=timeout),
    lambda client, timeout: client.get("a", timeout=timeout),
    lambda client, timeout: client.range("a", timeout=timeout),
    lambda client, timeout: client.renew_lease(1, timeout=timeout),
    lambda client, timeout: client.members(timeout=timeout),
    lambda client, timeout: client.status(client.endpoints[0], timeout=timeout),
    lambda client, timeout: client.maintenance.defragment(client.endpoints[0], timeout=timeout),
    lambda client, timeout: client.machine("m", Counter).within(timeout, Counter.add),
]


@pytest.mark.parametrize("session", [True, False])
@pytest.mark.parametrize("call", CALLS)
async def test_zero_does_not_wait_and_less_is_a_mistake(
    call: Callable[[Client, float], Awaitable[object]], session: bool, cluster: FakeCluster, endpoints: str
) -> None:
    async with connect(endpoints, session=session) as client:
        await client.put("ready", "")
        with pytest.raises(errors.Unavailable):
            await call(client, 0)
        for wrong in (-1, math.nan):
            with pytest.raises(ValueError, match="timeout"):
                await call(client, wrong)
    assert cluster.executed == {b"ready": 1}


@pytest.mark.parametrize("session", [True, False])
async def test_for_ever_is_a_time_too(session: bool, endpoints: str) -> None:
    async with connect(endpoints, session=session, timeout=math.inf) as client:
        await client.put("a", "1")
        assert await client.get("a", timeout=math.inf) is not None
    with pytest.raises(ValueError, match="timeout"):
        connect(endpoints, timeout=-1)


@pytest.mark.parametrize("session", [True, False])
async def test_what_is_like_bytes_is_taken_and_the_rest_is_refused_by_name(
    session: bool, endpoints: str
) -> None:
    async with connect(endpoints, session=session) as client:
        value = bytearray(b"value")
        await client.put(memoryview(b"key"), value)
        found = await client.get(bytearray(b"key"))
        assert found is not None
        assert found.value == b"value"
        assert txn.put(bytearray(b"a"), memoryview(b"b")).request_put.value == b"b"
        for wrong in (5, None, ["a"]):
            with pytest.raises(TypeError, match=f"got {type(wrong).__name__}"):
                await client.put("key", wrong)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match=f"got {type(wrong).__name__}"):
                await client.delete(wrong)  # type: ignore[arg-type]
