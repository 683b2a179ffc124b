"""Turns of the driver: taken when there is something to do, and who waits hears of it at once."""

import asyncio
import random

import pytest

from connect_kv.errors import NodeStopped
from connect_kv.transport.memory import Faults
from tests.node.cluster import Trio, eventually, put
from tests.node.fakes import payload


async def test_who_leads_is_told_when_it_changes(trio: Trio) -> None:
    leader = await trio.start()
    follower = trio.followers(leader)[0]
    known: list[int | None] = []
    follower.node.leader_changed.subscribe(lambda: known.append(follower.node.leader_id))
    members: list[int] = []
    follower.node.membership_changed.subscribe(lambda: members.append(len(follower.node.membership.members)))
    for host in trio.hosts:
        if host is not follower:
            await host.kill()
    await eventually(lambda: known == [None])
    for host in trio.hosts:
        if host is not follower:
            await host.start()
    leader = await trio.agreed()
    assert known[-1] == leader.id
    await trio.add_learner(leader, trio.host("n4"))
    await eventually(lambda: members == [4])


async def test_reads_that_gathered_behind_a_barrier_do_not_wait_for_a_tick(trio: Trio) -> None:
    """The answer is one message, and nothing else may come for a while."""
    leader = await trio.start(tick_seconds=1.0)
    await trio.followers(leader)[0].kill()
    loop = asyncio.get_running_loop()
    trio.network.faults = Faults(delay=(0.001, 0.001))
    begun = loop.time()
    first = leader.node.submit_read()
    await asyncio.sleep(0.0005)
    second = leader.node.submit_read()
    await first
    assert not second.done()
    await second
    assert loop.time() - begun < 0.02


async def test_proposals_that_only_gather_take_no_turns(trio: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk writes, nothing can be done about them but count them."""
    leader = await trio.start()
    await put(leader, 0)
    turns = 0
    turn = leader.node._driver._turn

    def counted() -> None:
        nonlocal turns
        turns += 1
        turn()

    monkeypatch.setattr(leader.node._driver, "_turn", counted)
    leader.worker.block()
    begun = asyncio.get_running_loop().time()
    futures = []
    for number in range(200):
        futures.append(leader.node.submit(payload(number)))
        await asyncio.sleep(0)
    assert asyncio.get_running_loop().time() == begun
    assert turns < 10
    leader.worker.unblock()
    await asyncio.gather(*futures)


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_gathers_goes_on_by_itself(seed: int) -> None:
    """On every member, under load that comes and goes: nobody waits for the next tick."""
    trio = Trio(seed)
    rng = random.Random(seed)
    await trio.start(tick_seconds=1.0)
    loop = asyncio.get_running_loop()
    for _ in range(30):
        begun = loop.time()
        host = rng.choice(trio.hosts)
        waiting = []
        for number in range(rng.choice([1, 2, 70, 200])):
            waiting.append(host.node.submit(payload(number)))
            if rng.random() < 0.1:
                waiting.append(host.node.submit_read())  # type: ignore[arg-type]
            await asyncio.sleep(rng.choice([0, 0, 0, 0.0005, 0.003]))
        sent = loop.time()
        await asyncio.gather(*waiting)
        assert loop.time() - sent < 0.5, f"seed {seed}: {loop.time() - begun}"
    await trio.kill_all()


async def test_a_condition_is_looked_at_after_each_turn(trio: Trio) -> None:
    leader = await trio.start()
    looks: list[int] = []

    def applied() -> bool:
        looks.append(leader.node.last_applied)
        return leader.node.last_applied >= before + 3

    before = leader.node.last_applied
    waiting = asyncio.create_task(leader.node.until(applied))
    gone = asyncio.create_task(leader.node.until(lambda: False))
    await asyncio.sleep(0)
    gone.cancel()
    for number in range(3):
        await put(leader, number)
    await waiting
    assert len(looks) > 3
    never = asyncio.create_task(leader.node.until(lambda: False))
    await asyncio.sleep(0)
    await leader.stop()
    with pytest.raises(NodeStopped):
        await never
