"""A watch sees every revision once and in order, on whichever member it runs."""

from __future__ import annotations

import asyncio

import pytest

from connect_kv import errors
from connect_kv.client import watch as watches
from connect_kv.client.client import connect
from connect_kv.client.watch import Watch
from connect_kv.rpc.watch_pb2 import WatchResponse
from tests.client.fake_server import FakeCluster, FakeMember, every


async def take(watch: Watch, count: int) -> list[int]:
    async with asyncio.timeout(60):
        return [(await anext(watch)).kv.mod_revision for _ in range(count)]


async def confirmed(watch: Watch, revision: int) -> None:
    """Wait until the watch goes on from there."""
    async with asyncio.timeout(60):
        while watch.next_revision != revision:  # noqa: ASYNC110  # it has no event for it
            await asyncio.sleep(0.001)


async def test_an_iteration_that_is_given_up_costs_no_event(endpoints: str) -> None:
    async with connect(endpoints) as client, client.watch("k") as events:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.05)
        await client.put("k", "one")
        assert (await asyncio.wait_for(anext(events), 60)).kv.value == b"one"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(events)
        await client.put("k", "two")
        assert (await asyncio.wait_for(anext(events), 60)).kv.value == b"two"


async def test_sees_what_is_written_after_it_is_in_force(cluster: FakeCluster, endpoints: str) -> None:
    async with connect(endpoints) as client:
        await client.put("before", "1")
        async with client.watch("k", prefix=True) as watch:
            await client.put("k1", "1")
            await client.put("k2", "2")
            events = [await anext(watch), await anext(watch)]
    assert [(event.kv.key, event.kv.value) for event in events] == [(b"k1", b"1"), (b"k2", b"2")]


@pytest.mark.parametrize("point", ["head", "before event", "after event"])
async def test_resumes_without_gap_or_duplicate(
    cluster: FakeCluster, members: list[FakeMember], endpoints: str, point: str
) -> None:
    for member in members:
        member.fault = every(point, 2 if point == "head" else 3)
    async with connect(endpoints) as client, client.watch("k", prefix=True, start_revision=2) as watch:
        writer = asyncio.ensure_future(asyncio.gather(*(client.put(f"k{i}", "v") for i in range(60))))
        seen = await take(watch, 60)
        await writer
    assert seen == list(range(2, 62))


async def test_a_watch_from_now_resumes_from_then(
    cluster: FakeCluster, members: list[FakeMember], endpoints: str
) -> None:
    """What was written between the confirmation and the resumption is not lost, though no event came yet."""
    async with connect(endpoints) as client, client.watch("k", prefix=True) as watch:
        waiting = asyncio.ensure_future(take(watch, 1))
        for member in members[:1]:
            await member.stop()
        await client.put("k", "1")
        assert await waiting == [2]
        assert watch.next_revision == 3


async def test_survives_the_member_it_runs_on(
    cluster: FakeCluster, members: list[FakeMember], endpoints: str
) -> None:
    async with connect(endpoints) as client, client.watch("k", prefix=True) as watch:
        await client.put("k1", "1")
        await members[0].stop()
        await client.put("k2", "2")
        await members[1].stop()
        await client.put("k3", "3")
        assert await take(watch, 3) == [2, 3, 4]


async def test_compaction_raises_its_own_error(cluster: FakeCluster, endpoints: str) -> None:
    async with connect(endpoints) as client:
        for i in range(5):
            await client.put("k", str(i))
        cluster.compacted = 4
        async with client.watch("k", start_revision=2) as watch:
            with pytest.raises(errors.Compacted) as caught:
                await anext(watch)
            assert caught.value.revision == 4
            with pytest.raises(StopAsyncIteration):
                await anext(watch)


async def test_fragments_of_one_revision_come_out_whole(cluster: FakeCluster, endpoints: str) -> None:
    """Half a revision is never given out: a watch resumed after it would miss the other half."""
    async with connect(endpoints) as client:
        for i in range(4):
            await client.put(f"k{i}", "v")
        watch = client.watch("k", start_revision=2)
        half = WatchResponse(fragment=True, events=cluster.history[:2])
        watch._take(half)
        assert not watch._ready
        assert watch.next_revision == 2
        watch._take(WatchResponse(events=cluster.history[2:]))
        assert [event.kv.mod_revision for event in watch._ready] == [2, 3, 4, 5]
        assert watch.next_revision == 6


async def test_progress_moves_the_point_of_resumption(cluster: FakeCluster, endpoints: str) -> None:
    async with connect(endpoints) as client, client.watch("k") as watch:
        cluster.revision = 90
        watch._take(WatchResponse(header=cluster.header()))
        assert watch.next_revision == 91


async def test_a_quiet_watch_goes_on_where_it_was_confirmed_to_be(
    cluster: FakeCluster, members: list[FakeMember], endpoints: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It missed nothing, though all it could have missed is compacted since."""
    monkeypatch.setattr(watches, "PROGRESS_SECONDS", 0.01)
    async with connect(endpoints) as client, client.watch("k") as watch:
        waiting = asyncio.ensure_future(take(watch, 1))
        cluster.revision = 90  # by keys that it does not watch
        await confirmed(watch, 91)
        cluster.compacted = 90
        await members[0].stop()
        await client.put("k", "v")
        assert await waiting == [91]


async def test_who_does_not_iterate_asks_nothing(
    cluster: FakeCluster, endpoints: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that nobody reads would only gather."""
    monkeypatch.setattr(watches, "PROGRESS_SECONDS", 0.0)
    async with connect(endpoints) as client, client.watch("k") as idle, client.watch("k") as other:
        waiting = asyncio.ensure_future(take(other, 1))
        cluster.revision = 90
        await confirmed(other, 91)
        assert idle.next_revision == 2
        await client.put("k", "v")
        assert await waiting == [91]
        assert await take(idle, 1) == [91]


async def test_closing_ends_the_iteration(endpoints: str) -> None:
    async with connect(endpoints) as client, client.watch("k") as watch:
        waiting = asyncio.ensure_future(take(watch, 1))
        await asyncio.sleep(0)
        await watch.close()
        with pytest.raises((StopAsyncIteration, RuntimeError)):
            await waiting


async def test_nobody_there_is_said_in_time(members: list[FakeMember], endpoints: str) -> None:
    for member in members:
        await member.stop()
    async with connect(endpoints, timeout=0.3) as client:
        with pytest.raises(errors.Unavailable):
            await anext(client.watch("k"))
