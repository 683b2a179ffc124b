"""The typed clients, against a simulated cluster: as the containers, and nothing stays with who vanished."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from connect_kv import errors, types
from connect_kv.client.client import Client
from connect_kv.testing.simulated import SimCluster

NAMES = [name for name in types.__all__ if f"{name}Client" in types.__all__]
Scenario = Callable[[Client, SimCluster], Awaitable[None]]
Run = Callable[[Scenario], None]


BIG = 1 << 62


@dataclass
class Job:
    name: str
    size: int = 1


@pytest.fixture
def run() -> Run:
    """Run a scenario with a client; the machines go by the lower-case names of their classes."""
    cluster = SimCluster({name.lower(): getattr(types, name) for name in NAMES}, seed=3)

    def run(scenario: Scenario) -> None:
        async def whole() -> None:
            async with cluster.client() as client:
                await scenario(client, cluster)

        cluster.run(whole())

    return run


def test_a_counter_counts(run: Run) -> None:
    async def scenario(client: Client, _: SimCluster) -> None:
        counter = types.CounterClient(client, "counter")
        assert [await counter.add(), await counter.add(by=BIG), await counter.add(-1)] == [1, 1 + BIG, BIG]
        assert await counter.value() == BIG
        assert await counter.reset() == BIG
        assert await counter.value() == 0

    run(scenario)


def test_a_dict_is_one(run: Run) -> None:
    async def scenario(client: Client, _: SimCluster) -> None:
        jobs = types.DictClient(client, "dict", Job)
        await jobs.set("b", Job("build", 3))
        await jobs.update({"a": Job("all"), "c": Job("check")})
        assert await jobs.get("b") == Job("build", 3)
        assert (await jobs.get("x"), await jobs.get("x", default=0)) == (None, 0)
        assert await jobs.keys() == ["b", "a", "c"]
        assert await jobs.setdefault("a", Job("other")) == Job("all")
        assert not await jobs.replace("a", Job("other"), Job("new"))
        assert await jobs.replace("a", Job("all"), Job("new"))
        assert await jobs.pop("a") == Job("new")
        with pytest.raises(KeyError):
            await jobs.pop("a")
        assert [await jobs.discard("a"), await jobs.discard("c")] == [False, True]
        assert not await jobs.contains("c")
        assert await jobs.items() == {"b": Job("build", 3)}
        assert (await jobs.size(), await jobs.clear(), await jobs.size()) == (1, 1, 0)

    run(scenario)


def test_a_list_is_one(run: Run) -> None:
    async def scenario(client: Client, _: SimCluster) -> None:
        names = types.ListClient(client, "list", str)
        assert [await names.append("a"), await names.extend(["b", "d"])] == [0, 3]
        await names.insert(2, "c")
        await names.set(0, "A")
        assert await names.slice() == ["A", "b", "c", "d"]
        assert (await names.slice(1, -1), await names.get(-1), await names.index("c")) == (["b", "c"], "d", 2)
        await names.remove("b")
        assert (await names.pop(), await names.pop(0), await names.size()) == ("d", "A", 1)
        with pytest.raises(IndexError):
            await names.get(5)
        with pytest.raises(ValueError, match="x"):
            await names.index("x")
        assert await names.clear() == 1
        with pytest.raises(IndexError):
            await names.pop()

    run(scenario)


def test_a_set_is_one(run: Run) -> None:
    async def scenario(client: Client, _: SimCluster) -> None:
        tags = types.SetClient(client, "set")
        assert [await tags.add("b"), await tags.add("b"), await tags.update("abc")] == [True, False, 2]
        assert (await tags.contains("a"), await tags.size()) == (True, 3)
        assert await tags.members() == {"a", "b", "c"}
        assert [await tags.pop(), await tags.discard("b"), await tags.discard("c")] == ["b", False, True]
        assert await tags.clear() == 1
        with pytest.raises(KeyError):
            await tags.pop()

    run(scenario)


def test_a_queue_is_first_in_first_out(run: Run) -> None:
    async def scenario(client: Client, _: SimCluster) -> None:
        async with types.QueueClient(client, "queue", Job) as jobs:
            await jobs.put_all([Job("a"), Job("b"), Job("c")])
            assert await jobs.qsize() == 3
            async with jobs.take() as first:
                assert first == Job("a")
                assert (await jobs.held(), await jobs.qsize()) == (1, 2)
            with pytest.raises(RuntimeError, match="failed"):
                async with jobs.take() as second:
                    raise RuntimeError(f"{second.name} failed")
            assert [await jobs.get(), await jobs.get_nowait()] == [Job("b"), Job("c")], "it is first again"
            with pytest.raises(asyncio.QueueEmpty):
                await jobs.get_nowait()
            with pytest.raises(TimeoutError):
                await jobs.get(timeout=2)
            assert await jobs.empty()
            waits = asyncio.ensure_future(jobs.get())
            await jobs.put(Job("d"))
            assert await waits == Job("d")

    run(scenario)


def test_a_priority_queue_gives_the_lowest_first(run: Run) -> None:
    async def scenario(client: Client, _: SimCluster) -> None:
        async with types.PriorityQueueClient(client, "priorityqueue", str) as jobs:
            for name, priority in [("later", 5), ("first", -1), ("second", 0), ("also later", 5)]:
                await jobs.put(name, priority)
            with pytest.raises(RuntimeError):
                async with jobs.take():
                    raise RuntimeError
            assert [await jobs.get() for _ in range(4)] == ["first", "second", "later", "also later"]

    run(scenario)


async def abandoned(client: Client) -> None:
    """Its process ends without a word: nobody renews its leases."""
    await client.close()


def test_what_a_vanished_taker_had_comes_back(run: Run) -> None:
    async def scenario(client: Client, cluster: SimCluster) -> None:
        other = await cluster.client().open()
        theirs = types.QueueClient(other, "queue", str, ttl=5)
        mine = types.QueueClient(client, "queue", str, ttl=5)
        await mine.put("work")
        taking = theirs.take()
        assert await taking.__aenter__() == "work"
        with pytest.raises(TimeoutError):
            await mine.get(timeout=60)  # as long as its taker lives, nobody else gets it
        await abandoned(other)
        assert await mine.get(timeout=30) == "work"
        with pytest.raises(errors.ConnectKvError):
            await taking.__aexit__(None, None, None)

    run(scenario)


def test_a_lock_has_one_holder_and_growing_tokens(run: Run) -> None:
    async def scenario(client: Client, cluster: SimCluster) -> None:
        lock = types.LockClient(client, "lock", ttl=5)
        inside = 0
        tokens = []

        async def work() -> None:
            nonlocal inside
            async with lock.holding() as held:
                inside += 1
                assert inside == 1
                tokens.append(held.token)
                await asyncio.sleep(0.1)
                inside -= 1

        await asyncio.gather(*(work() for _ in range(5)))
        assert tokens == [1, 2, 3, 4, 5]
        assert not await lock.locked()
        other = await cluster.client().open()
        theirs = types.LockClient(other, "lock", ttl=5).holding()
        assert (await theirs.__aenter__()).token == 6
        with pytest.raises(TimeoutError):
            async with lock.holding(timeout=1):
                pass
        await abandoned(other)
        async with lock.holding(timeout=30) as held:
            assert held.token == 7

    run(scenario)


def test_a_semaphore_lets_so_many_in_and_none_starve(run: Run) -> None:
    async def scenario(client: Client, cluster: SimCluster) -> None:
        permits = types.SemaphoreClient(client, "semaphore", ttl=5)
        await permits.resize(3)
        out = 0
        order = []

        async def work(wanted: int) -> None:
            nonlocal out
            async with permits.holding(wanted):
                order.append(wanted)
                out += wanted
                assert out <= 3
                await asyncio.sleep(0.2)
                out -= wanted

        tasks = [asyncio.ensure_future(work(1))]
        await asyncio.sleep(0.1)
        for wanted in (3, 1, 1):
            tasks.append(asyncio.ensure_future(work(wanted)))
            await asyncio.sleep(0.01)
        await asyncio.gather(*tasks)
        assert order[:2] == [1, 3], "who wants all of them is not passed by"
        assert await permits.free() == 3
        with pytest.raises(ValueError, match="from 1 to 3"):
            async with permits.holding(4):
                pass
        other = await cluster.client().open()
        await types.SemaphoreClient(other, "semaphore", ttl=5).holding(3).__aenter__()
        await abandoned(other)
        async with permits.holding(2, timeout=30):
            assert await permits.free() == 1

    run(scenario)


def test_a_barrier_opens_when_all_have_come(run: Run) -> None:
    async def scenario(client: Client, cluster: SimCluster) -> None:
        barrier = types.BarrierClient(client, "barrier", ttl=5)
        await barrier.resize(3)
        first = asyncio.ensure_future(barrier.wait())
        with pytest.raises(TimeoutError):
            await barrier.wait(timeout=1)
        assert not first.done(), "who gave up does not count"
        assert list(await asyncio.gather(first, barrier.wait(), barrier.wait())) == [1, 1, 1]
        assert await asyncio.gather(*(barrier.wait() for _ in range(3))) == [2, 2, 2]

    run(scenario)


def test_a_rate_limiter_limits(run: Run) -> None:
    async def scenario(client: Client, cluster: SimCluster) -> None:
        limit = types.RateLimiterClient(client, "ratelimiter")
        await limit.configure(rate=2, burst=3)
        assert [await limit.acquire("a") for _ in range(4)] == [True, True, True, False]
        assert await limit.acquire("b", tokens=3)
        await cluster.advance(1)
        assert [await limit.acquire("a") for _ in range(3)] == [True, True, False]
        await cluster.advance(20)
        assert [await limit.acquire("a") for _ in range(4)] == [True, True, True, False]
        assert await limit.available("a") == 0
        with pytest.raises(ValueError, match="from 1 to 3"):
            await limit.acquire("a", tokens=4)

    run(scenario)
