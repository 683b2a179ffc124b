"""The classes themselves: the same on every member, linearizable under faults, and listed by name."""

from __future__ import annotations

import random

import pytest

from connect_kv import Replicated, types
from connect_kv.config import MachineSpec, from_options
from connect_kv.errors import ConfigError
from connect_kv.framework.replicated import set_log_time
from connect_kv.framework.types import READY_MADE
from connect_kv.testing.simulation.determinism import check_determinism
from connect_kv.testing.simulation.machine import MachineSimulation
from connect_kv.testing.simulation.simulation import RunConfig

SHORT = (types.Queue, types.RateLimiter)
CLASSES = [getattr(types, name) for name in READY_MADE]


def test_all_are_listed() -> None:
    assert list(READY_MADE) == sorted(name for name in types.__all__ if f"{name}Client" in types.__all__)


@pytest.mark.long
@pytest.mark.parametrize(
    "machine",
    [one if one in SHORT else pytest.param(one, marks=pytest.mark.cluster) for one in CLASSES],
)
def test_a_class_does_the_same_everywhere(machine: type[Replicated]) -> None:
    check_determinism(machine)


@pytest.mark.parametrize("machine", CLASSES)
def test_a_cluster_of_it_answers_as_one_object(machine: type[Replicated]) -> None:
    report = MachineSimulation(RunConfig(seed=11, seconds=3), machine).run()
    assert report.violation is None
    assert report.answered > 20


def test_a_name_alone_is_enough() -> None:
    config = from_options({"name": "n1", "machines": ["jobs=Queue", "own=shop:Shop"]}, {})
    assert config.machines == (
        MachineSpec(name="jobs", module="connect_kv.types", attribute="Queue"),
        MachineSpec(name="own", module="shop", attribute="Shop"),
    )
    with pytest.raises(ConfigError, match="jobs=Stack: expected NAME=module:Class, or one of Barrier"):
        from_options({"name": "n1", "machines": ["jobs=Stack"]}, {})


def test_an_item_is_never_lost_and_never_at_two_takers() -> None:
    rng = random.Random(5)
    queue = types.PriorityQueue()
    waiting: list[tuple[int, int]] = []
    held: dict[int, tuple[int, int]] = {}
    for _ in range(5000):
        match rng.randrange(5):
            case 0:
                priority = rng.randrange(3)
                waiting.append((priority, queue.put("x", priority)))
            case 1:
                lease = rng.randint(1, 4)
                taken = queue.take(lease)
                assert (taken and taken.number) == (min(waiting)[1] if waiting else None)
                if taken:
                    first = min(waiting)
                    waiting.remove(first)
                    held[taken.number] = (lease, first[0])
            case 2 | 3 if held:
                number = rng.choice(list(held))
                lease = rng.randint(1, 4)
                right = held[number][0] == lease
                if rng.random() < 0.5:
                    assert queue.done(number, lease) is right
                else:
                    assert queue.give_back(number, lease) is right
                    if right:
                        waiting.append((held[number][1], number))
                if right:
                    del held[number]
            case 4:
                lease = rng.randint(1, 4)
                back = [number for number, (holder, _) in held.items() if holder == lease]
                assert queue.forget([lease]) == len(back)
                waiting += [(held.pop(number)[1], number) for number in back]
        assert (queue.size(), queue.held(), len(queue.values)) == (
            len(waiting),
            len(held),
            len(waiting) + len(held),
        )
        assert set(queue.leases()) == {lease for lease, _ in held.values()}


def test_a_step_of_the_clock_fills_a_bucket_once() -> None:
    limiter = types.RateLimiter()
    limiter.configure(rate=1, burst=5)
    now = 10**18
    set_log_time(limiter, now)
    assert [limiter.acquire("a") for _ in range(6)] == [True] * 5 + [False]
    set_log_time(limiter, now + 10**18)
    assert [limiter.acquire("a") for _ in range(6)] == [True] * 5 + [False]
    set_log_time(limiter, now)
    assert not limiter.acquire("a")
    for key in map(str, range(1000)):
        set_log_time(limiter, limiter.log_time + 10 * 10**9)
        limiter.acquire(key)
    assert len(limiter.buckets) < 10, "full buckets are forgotten"


def test_a_lock_goes_to_who_asked_first() -> None:
    lock = types.Lock()
    assert [lock.acquire(1), lock.acquire(2), lock.acquire(3), lock.acquire(1)] == [1, 0, 0, 1]
    assert not lock.release(9)
    assert lock.forget([1, 2]) == 2
    assert lock.acquire(3) == 3, "2 had it in between"
    assert lock.leases() == [3]


def test_permits_are_served_in_order() -> None:
    semaphore = types.Semaphore()
    semaphore.resize(2)
    assert [semaphore.acquire(1), semaphore.acquire(2, 2), semaphore.acquire(3)] == [True, False, False]
    assert semaphore.release(1)
    assert [semaphore.acquire(2, 2), semaphore.acquire(3)] == [True, False]
    semaphore.resize(3)
    assert semaphore.acquire(3)
    semaphore.resize(1)
    assert semaphore.free() == 0
    with pytest.raises(ValueError, match="at least one"):
        semaphore.resize(0)


def test_who_vanished_has_not_arrived() -> None:
    barrier = types.Barrier()
    assert [barrier.arrive(1), barrier.forget([1, 7]), barrier.arrive(2), barrier.opened()] == [1, 1, 1, 0]
    assert [barrier.arrive(3), barrier.opened(), barrier.arrive(4)] == [1, 1, 2]
    barrier.resize(1)
    assert barrier.opened() == 2
