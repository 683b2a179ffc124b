"""The session door: each command executed exactly once, wherever streams break."""

from __future__ import annotations

import asyncio

import pytest

from connect_kv import errors
from connect_kv.client.client import connect
from connect_kv.rpc.command_pb2 import Command, Failure
from tests.client.fake_server import FakeCluster, FakeMember, every, once

POINTS = ["head", "opened", "received", "executed", "half answered", "answered"]


async def test_concurrent_calls_travel_in_few_batches(cluster: FakeCluster, endpoints: str) -> None:
    async with connect(endpoints) as client:
        await client.put("first", "opens the session")
        before = len(cluster.batches)
        await asyncio.gather(*(client.put(f"k{i}", "v") for i in range(1000)))
        assert len(cluster.batches) - before <= 20
    assert cluster.opened == 1


async def test_callers_that_go_on_and_on_do_not_end_up_in_batches_of_one(
    cluster: FakeCluster, endpoints: str
) -> None:
    async def caller(name: str) -> None:
        for _ in range(10):
            await client.put(name, "v")

    async with connect(endpoints) as client:
        await asyncio.gather(*(caller(f"k{i}") for i in range(200)))
    assert len(cluster.batches) <= 400


async def test_many_callers_travel_in_two_batches_so_that_both_sides_work_at_once(
    cluster: FakeCluster, endpoints: str
) -> None:
    async def caller(name: str) -> None:
        for _ in range(5):
            await client.put(name, "v")

    async with connect(endpoints) as client:
        await client.put("first", "opens the session")
        await asyncio.gather(*(caller(f"k{i}") for i in range(1000)))
    assert max(cluster.batches) == 500


async def test_few_callers_travel_in_one_batch(cluster: FakeCluster, endpoints: str) -> None:
    async with connect(endpoints) as client:
        await client.put("first", "opens the session")
        await asyncio.gather(*(client.put(f"k{i}", "v") for i in range(100)))
    assert max(cluster.batches) == 100


@pytest.mark.parametrize("point", POINTS)
async def test_a_stream_broken_once_anywhere_executes_each_command_once(
    cluster: FakeCluster, members: list[FakeMember], endpoints: str, point: str
) -> None:
    for member in members:
        member.fault = once(point)
    async with connect(endpoints) as client:
        await asyncio.gather(*(client.put(f"k{i}", f"v{i}") for i in range(200)))
        found = await client.get("k7")
    assert found is not None
    assert found.value == b"v7"
    assert set(cluster.executed.values()) == {1}
    assert len(cluster.executed) == 200


@pytest.mark.parametrize("point", POINTS[2:])
async def test_streams_that_keep_breaking_still_execute_each_command_once(
    cluster: FakeCluster, members: list[FakeMember], endpoints: str, point: str
) -> None:
    for member in members:
        member.window = 16
        member.fault = every(point, 23 if point == "executed" else 3)
    async with connect(endpoints, timeout=30) as client:
        await asyncio.gather(*(client.put(f"k{i}", "v") for i in range(100)))
    assert set(cluster.executed.values()) == {1}
    assert len(cluster.executed) == 100


async def test_no_more_than_the_window_is_unanswered(
    cluster: FakeCluster, members: list[FakeMember], endpoints: str
) -> None:
    for member in members:
        member.window = 8
    async with connect(endpoints) as client:
        await asyncio.gather(*(client.put(f"k{i}", "v") for i in range(100)))
    assert max(cluster.batches) <= 8  # the fake refuses a larger one


async def test_replies_are_forgotten_once_acknowledged(cluster: FakeCluster, endpoints: str) -> None:
    async with connect(endpoints) as client:
        for i in range(20):
            await client.put(f"k{i}", "v")
        (session,) = cluster.sessions.values()
        assert len(session.replies) <= 2


async def test_a_dead_member_is_skipped(
    cluster: FakeCluster, members: list[FakeMember], endpoints: str
) -> None:
    async with connect(endpoints) as client:
        await client.put("a", "1")
        await members[0].stop()
        await client.put("b", "2")
        await members[1].stop()
        await client.put("c", "3")
    assert cluster.opened == 1
    assert set(cluster.executed.values()) == {1}


async def test_a_silent_member_is_left(
    cluster: FakeCluster, members: list[FakeMember], endpoints: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connect_kv.client.session.STALL_TIMEOUT", 0.1)
    monkeypatch.setattr("connect_kv.client.session.OPEN_TIMEOUT", 0.1)
    async with connect(endpoints) as client:
        await client.put("a", "1")
        members[0].freeze()
        members[1].freeze()
        await client.put("b", "2")
        members[0].thaw()
        members[1].thaw()
    assert cluster.executed[b"b"] == 1
    assert cluster.opened == 1


async def test_an_idle_session_that_expired_is_replaced_unnoticed(
    cluster: FakeCluster, endpoints: str
) -> None:
    async with connect(endpoints) as client:
        await client.put("a", "1")
        cluster.expire_sessions()
        await asyncio.gather(*(client.put(f"b{i}", "2") for i in range(10)))
    assert cluster.opened == 2
    assert set(cluster.executed.values()) == {1}


async def test_a_command_of_unknown_fate_in_an_expired_session_is_reported(
    cluster: FakeCluster, members: list[FakeMember], endpoints: str
) -> None:
    async with connect(endpoints) as client:
        await client.put("a", "1")

        strike = once("received")

        def expire_then_drop(point: str) -> bool:
            struck = strike(point)
            if struck:
                cluster.expire_sessions()
            return struck

        for member in members:
            member.fault = expire_then_drop
        put = asyncio.ensure_future(client.put("b", "2"))
        get = asyncio.ensure_future(client.get("a"))
        with pytest.raises(errors.SessionExpired):
            await put
        found = await get
        assert found is not None
        for member in members:
            member.fault = lambda point: False
        await client.put("c", "3")
    assert cluster.executed == {b"a": 1, b"c": 1}
    assert cluster.opened >= 2


async def test_a_refusal_reaches_only_its_caller(cluster: FakeCluster, endpoints: str) -> None:
    def refuse(command: Command) -> Failure | None:
        if command.put.key == b"bad":
            return Failure(code=3, message="etcdserver: key is not provided")
        return None

    cluster.refuse = refuse
    async with connect(endpoints) as client:
        bad, good = await asyncio.gather(
            client.put("bad", "1"), client.put("good", "2"), return_exceptions=True
        )
    assert isinstance(bad, errors.Refused)
    assert (bad.code, bad.message) == (3, "etcdserver: key is not provided")
    assert not isinstance(good, BaseException)


async def test_a_member_without_a_leader_is_left_for_another(
    cluster: FakeCluster, members: list[FakeMember], endpoints: str
) -> None:
    refusals = 3

    def refuse(command: Command) -> Failure | None:
        nonlocal refusals
        refusals -= 1
        return Failure(code=14, message="etcdserver: no leader") if refusals >= 0 else None

    cluster.refuse = refuse
    async with connect(endpoints) as client:
        await client.put("a", "1")
    assert cluster.executed == {b"a": 1}


async def test_a_write_that_was_sent_and_not_answered_has_an_unknown_outcome(
    members: list[FakeMember], endpoints: str
) -> None:
    async with connect(endpoints) as client:
        await client.put("a", "1")
        for member in members:
            member.freeze()
        put = asyncio.ensure_future(client.put("b", "2", timeout=0.2))
        get = asyncio.ensure_future(client.get("a", timeout=0.2))
        with pytest.raises(errors.OutcomeUnknown):
            await put
        with pytest.raises(errors.Unavailable):
            await get
        for member in members:
            member.thaw()
        await client.put("c", "3")


async def test_a_write_that_was_never_sent_certainly_did_nothing(
    cluster: FakeCluster, members: list[FakeMember], endpoints: str
) -> None:
    for member in members:
        await member.stop()
    async with connect(endpoints) as client:
        with pytest.raises(errors.Unavailable):
            await client.put("a", "1", timeout=0.3)
    assert not cluster.executed


async def test_a_cancelled_caller_does_not_disturb_the_others(cluster: FakeCluster, endpoints: str) -> None:
    async with connect(endpoints) as client:
        puts = [asyncio.ensure_future(client.put(f"k{i}", "v")) for i in range(10)]
        await asyncio.sleep(0)
        puts[3].cancel()
        results = await asyncio.gather(*puts, return_exceptions=True)
        await client.put("after", "v")
    assert sum(isinstance(result, BaseException) for result in results) == 1
    assert cluster.executed[b"after"] == 1


async def test_a_command_too_large_is_refused_before_it_harms_the_stream(endpoints: str) -> None:
    async with connect(endpoints) as client:
        with pytest.raises(errors.RequestTooLarge):
            await client.put("k", b"x" * (3 << 20))
        await client.put("k", b"x" * (1 << 20))


async def test_calls_after_close_say_so(endpoints: str) -> None:
    client = connect(endpoints)
    with pytest.raises(errors.ClientNotOpen, match="not open"):
        await client.put("a", "1")
    async with client:
        await client.put("a", "1")
    with pytest.raises(errors.ClientNotOpen, match="not open"):
        await client.put("a", "1")
