"""Read barriers: which reads may share one, and what a reader may rely on (thesis 6.4)."""

import asyncio
import random

import pytest

from connect_kv.errors import NodeStopped, NoLeader
from connect_kv.events import FEW
from connect_kv.node.reads import IndexWaiters, ReadBarriers
from connect_kv.raft.ready import ReadState
from connect_kv.testing.simulation.clock import VirtualClock
from tests.node.cluster import Trio, eventually, put


class AskedCore:
    """Counts the requests; a test answers them."""

    leader_id: int | None = 1

    def __init__(self) -> None:
        self.asked: list[int] = []

    def read_index(self, context: int) -> None:
        self.asked.append(context)


@pytest.fixture
def core() -> AskedCore:
    return AskedCore()


@pytest.fixture
async def barriers(core: AskedCore) -> ReadBarriers:
    return ReadBarriers(
        core=core,  # type: ignore[arg-type]  # the two members that barriers use
        clock=VirtualClock(),
        rng=random.Random(1),
        retry_seconds=0.5,
        applied=IndexWaiters(),
    )


async def test_reads_that_wait_share_one_request(core: AskedCore, barriers: ReadBarriers) -> None:
    reads = [barriers.add() for _ in range(3)]
    barriers.pump()
    assert len(core.asked) == 1
    barriers.answered(ReadState(context=core.asked[0], index=7), applied=7)
    assert [await read for read in reads] == [7, 7, 7]


async def test_a_read_never_joins_a_request_that_has_left(core: AskedCore, barriers: ReadBarriers) -> None:
    """Its index may be older than a write acknowledged before the read began."""
    first = barriers.add()
    barriers.pump()
    second = barriers.add()
    barriers.pump()
    assert len(core.asked) == 1
    barriers.answered(ReadState(context=core.asked[0], index=7), applied=7)
    assert first.done()
    assert not second.done()
    barriers.pump()
    barriers.answered(ReadState(context=core.asked[1], index=9), applied=9)
    assert await second == 9


async def test_an_abandoned_request_is_asked_again_with_the_next_tick(
    core: AskedCore, barriers: ReadBarriers
) -> None:
    read = barriers.add()
    barriers.pump()
    barriers.answered(ReadState(context=core.asked[0], index=None), applied=0)
    barriers.pump()
    assert len(core.asked) == 1
    barriers.tick(leaderless=False)
    barriers.pump()
    barriers.answered(ReadState(context=core.asked[1], index=3), applied=3)
    assert await read == 3


async def test_a_lost_request_is_asked_again_and_its_late_answer_ignored(
    core: AskedCore, barriers: ReadBarriers
) -> None:
    read = barriers.add()
    barriers.pump()
    await asyncio.sleep(0.6)
    barriers.tick(leaderless=False)
    barriers.pump()
    barriers.answered(ReadState(context=core.asked[0], index=3), applied=9)
    assert not read.done()
    barriers.answered(ReadState(context=core.asked[1], index=5), applied=9)
    assert await read == 5


async def test_a_read_waits_until_its_index_is_applied_here(core: AskedCore) -> None:
    applied = IndexWaiters()
    barriers = ReadBarriers(
        core=core,  # type: ignore[arg-type]
        clock=VirtualClock(),
        rng=random.Random(1),
        retry_seconds=0.5,
        applied=applied,
    )
    read = barriers.add()
    barriers.pump()
    barriers.answered(ReadState(context=core.asked[0], index=7), applied=5)
    applied.applied(6)
    assert not read.done()
    applied.applied(7)
    assert await read == 7


async def test_after_a_barrier_every_acknowledged_write_is_visible_on_any_node(trio: Trio) -> None:
    await trio.start()
    for number in range(30):
        writer, reader = trio.hosts[number % 3], trio.hosts[(number + 1) % 3]
        await put(writer, number)
        index = await reader.node.read_barrier()
        assert reader.node.last_applied >= index
        assert reader.state.numbers == list(range(number + 1))


async def test_a_leader_cut_off_serves_no_read(trio: Trio) -> None:
    """It still believes that it leads when the read comes."""
    leader = await trio.start()
    trio.network.isolate(leader.address)
    read = asyncio.create_task(leader.node.read_barrier())
    others = trio.followers(leader)
    await trio.agreed(others)
    await put(others[0], 1)
    assert not read.done() or read.exception() is not None
    trio.network.heal()
    try:
        await read
        assert leader.state.numbers == [1]
    except NoLeader:
        pass


async def test_without_a_leader_a_read_fails_after_an_election_timeout(trio: Trio) -> None:
    leader = await trio.start()
    for host in trio.followers(leader):
        await host.kill()
    with pytest.raises(NoLeader):
        await leader.node.read_barrier()


async def test_a_read_on_a_stopped_node_is_told_so(trio: Trio) -> None:
    leader = await trio.start()
    follower = trio.followers(leader)[0]
    trio.network.isolate(follower.address)
    read = asyncio.create_task(follower.node.read_barrier())
    await asyncio.sleep(0)
    await follower.stop()
    with pytest.raises(NodeStopped):
        await read
    with pytest.raises(NodeStopped):
        await follower.node.read_barrier()


async def test_reads_survive_a_change_of_leader(trio: Trio) -> None:
    leader = await trio.start()
    await put(leader, 1)
    followers = trio.followers(leader)
    reads = [asyncio.create_task(host.node.read_barrier()) for host in followers]
    await leader.node.transfer_leadership(followers[0].id)
    await asyncio.gather(*reads)
    await eventually(lambda: all(host.state.numbers == [1] for host in followers))


async def test_for_readers_who_have_gone_nothing_is_asked(core: AskedCore, barriers: ReadBarriers) -> None:
    barriers.add().cancel()
    barriers.pump()
    assert core.asked == []
    read = barriers.add()
    barriers.pump()
    barriers.answered(ReadState(context=core.asked[0], index=7), applied=7)
    assert await read == 7


async def test_readers_who_have_gone_are_not_told_that_there_is_no_leader(barriers: ReadBarriers) -> None:
    gone, waits = barriers.add(), barriers.add()
    gone.cancel()
    barriers.expire(1e9)
    with pytest.raises(NoLeader):
        await waits
    assert gone.cancelled()


async def test_many_readers_without_a_leader_are_told_a_few_in_each_turn(barriers: ReadBarriers) -> None:
    reads = [barriers.add() for _ in range(2 * FEW + 1)]
    barriers.expire(before=1e9)
    done: list[int] = []
    while not done or done[-1] < len(reads):
        done.append(sum(read.done() for read in reads))
        await asyncio.sleep(0)
    assert done == [FEW, 2 * FEW, 2 * FEW + 1]
    assert {type(read.exception()) for read in reads} == {NoLeader}
    assert barriers.failed == len(reads)
