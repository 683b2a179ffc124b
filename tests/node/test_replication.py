"""Proposals through every node, and what their callers are told."""

import asyncio

import pytest

from connect_kv.errors import NoLeader, NotProposed, OutcomeUnknown, RequestTooLarge
from connect_kv.node.proposals import PendingProposal, join
from connect_kv.raft.types import EntryKind
from connect_kv.rpc.command_pb2 import CommandBatch
from tests.node.cluster import Trio, eventually, put
from tests.node.fakes import payload


async def test_a_command_through_any_node_is_applied_on_all(trio: Trio) -> None:
    await trio.start()
    for number, host in enumerate(trio.hosts, 1):
        assert await put(host, number) == [number]
    await trio.same_state([1, 2, 3])


async def test_concurrent_proposals_share_entries_and_each_gets_its_own_results(trio: Trio) -> None:
    leader = await trio.start()
    before = leader.node.last_applied
    calls = [put(host, 10 * i, 10 * i + 1) for i in range(50) for host in trio.hosts]
    results = await asyncio.gather(*calls)
    for (first, second), call in zip(results, [10 * i for i in range(50) for _ in trio.hosts], strict=True):
        assert second == first + 1
        assert leader.state.numbers[first - 1 : second] == [call, call + 1]
    assert leader.node.last_applied - before < 20


async def test_while_an_entry_is_on_its_way_the_next_gathers(trio: Trio) -> None:
    leader = await trio.start(gather_seconds=60.0)
    proposed = leader.core.last_index
    leader.state.gate.clear()
    first = asyncio.create_task(put(leader, 1))
    await eventually(lambda: leader.core.commit_index == proposed + 1)
    others = [asyncio.create_task(put(leader, number)) for number in range(2, 8)]
    await asyncio.sleep(1)
    assert leader.core.last_index == proposed + 1
    leader.state.gate.set()
    assert await asyncio.gather(first, *others) == [[number] for number in range(1, 8)]
    assert leader.core.last_index == proposed + 2


async def test_what_is_no_longer_small_does_not_wait(trio: Trio) -> None:
    leader = await trio.start(gather_seconds=60.0, small_entry=5)
    proposed = leader.core.last_index
    leader.state.gate.clear()
    calls = [asyncio.create_task(put(leader, 1))]
    await eventually(lambda: leader.core.commit_index == proposed + 1)
    calls.append(asyncio.create_task(put(leader, 2, 3, 4, 5, 6)))
    await eventually(lambda: leader.core.commit_index == proposed + 2)
    leader.state.gate.set()
    await asyncio.gather(*calls)


async def test_an_entry_that_takes_long_does_not_hold_up_the_next(trio: Trio) -> None:
    leader = await trio.start()
    proposed = leader.core.last_index
    leader.state.gate.clear()
    calls = [asyncio.create_task(put(leader, 1))]
    await eventually(lambda: leader.core.commit_index == proposed + 1)
    calls.append(asyncio.create_task(put(leader, 2)))
    await eventually(lambda: leader.core.commit_index == proposed + 2, within=1.0)
    await asyncio.sleep(0.1)
    calls.append(asyncio.create_task(put(leader, 3)))
    await asyncio.sleep(0.002)  # less than anything gathers for
    assert leader.core.last_index == proposed + 3
    leader.state.gate.set()
    await asyncio.gather(*calls)


async def test_each_entry_carries_the_wall_clock_of_the_leader(trio: Trio) -> None:
    leader = await trio.start()
    await put(leader, 1)
    await put(trio.followers(leader)[0], 2)
    times = leader.state.log_times
    assert times == sorted(times)
    assert times[0] > 1_700_000_000_000_000_000


@pytest.mark.parametrize("stamp", [0, 1, 127, 128, 1_700_000_000_123_456_789])
def test_the_stamps_are_fields_of_a_command_batch(stamp: int) -> None:
    waiting: list[PendingProposal[int]] = [
        PendingProposal(payload(7, 8), 2, 0.0),
        PendingProposal(payload(9), 1, 0.0),
    ]
    batch = CommandBatch.FromString(join(waiting, stamp, stamp))
    assert (batch.log_time, batch.elapsed) == (stamp, stamp)
    assert [command.number for command in batch.commands] == [7, 8, 9]


async def test_after_the_leader_dies_the_others_go_on(trio: Trio) -> None:
    leader = await trio.start()
    await put(leader, 1)
    await leader.kill()
    others = trio.running
    await trio.agreed()
    assert await put(others[0], 2) == [2]
    await leader.start()
    await trio.same_state([1, 2])


async def test_acknowledged_commands_survive_power_loss_of_all(trio: Trio) -> None:
    await trio.start()
    for number in range(20):
        await put(trio.hosts[number % 3], number)
    for host in list(trio.hosts):
        await host.kill(power=True)
    await trio.start()
    await trio.same_state(range(20))


async def test_a_follower_that_restarts_catches_up_from_the_log(trio: Trio) -> None:
    leader = await trio.start()
    follower = trio.followers(leader)[0]
    await follower.kill()
    for number in range(10):
        await put(leader, number)
    await follower.start()
    await trio.same_state(range(10))
    assert follower.metrics.snapshots_installed == 0


async def test_nothing_is_acknowledged_before_a_majority_has_it_on_disk(trio: Trio) -> None:
    """Followers' disks are blocked: the leader alone must not answer."""
    leader = await trio.start()
    for host in trio.followers(leader):
        host.worker.block()
    call = asyncio.create_task(put(leader, 1))
    await asyncio.sleep(0.5)
    assert not call.done()
    trio.followers(leader)[0].worker.unblock()
    assert await call == [1]


async def test_the_leader_needs_not_its_own_disk_but_applies_only_what_it_holds(trio: Trio) -> None:
    """Committed by the two others, yet not persisted here: it is neither applied nor answered."""
    leader = await trio.start()
    leader.worker.block()
    call = asyncio.create_task(put(leader, 1))
    await eventually(lambda: leader.node.status().raft.commit_index > leader.node.last_applied)
    assert not call.done()
    assert leader.state.numbers == []
    leader.worker.unblock()
    assert await call == [1]


async def test_without_a_leader_a_proposal_fails_after_an_election_timeout(trio: Trio) -> None:
    leader = await trio.start()
    for host in trio.followers(leader):
        await host.kill()
    await eventually(lambda: leader.node.leader_id is None)
    began = asyncio.get_running_loop().time()
    with pytest.raises(NoLeader):
        await put(leader, 1)
    assert 0.9 <= asyncio.get_running_loop().time() - began <= 1.2


async def test_a_replaced_entry_is_certainly_not_proposed(trio: Trio) -> None:
    """An old leader cut off: its entry is replaced when it comes back, and its caller is told so."""
    leader = await trio.start()
    trio.network.isolate(leader.address)
    call = asyncio.create_task(put(leader, 1))
    await trio.agreed(trio.followers(leader))
    trio.network.heal()
    with pytest.raises(NotProposed):
        await call
    await trio.agreed()
    assert await put(leader, 2) == [1]


async def test_a_forwarded_proposal_without_an_answer_is_of_unknown_outcome(trio: Trio) -> None:
    leader = await trio.start()
    follower = trio.followers(leader)[0]
    trio.network.cut(leader.address, follower.address)
    with pytest.raises(OutcomeUnknown):
        await put(follower, 1)


async def test_many_followers_proposals_survive_duplicated_messages(trio: Trio) -> None:
    """A message delivered twice is proposed once."""
    leader = await trio.start()
    trio.network.faults.duplicate = 0.5
    follower = trio.followers(leader)[0]
    numbers = list(range(100))
    for number in numbers:
        await put(follower, number)
    assert follower.state.numbers == numbers


async def test_a_request_beyond_the_limit_is_refused(trio: Trio) -> None:
    leader = await trio.start(max_request_bytes=100)
    with pytest.raises(RequestTooLarge):
        await leader.node.propose(b"x" * 101)


async def test_a_caller_that_gives_up_before_its_proposal_left_leaves_no_trace(trio: Trio) -> None:
    leader = await trio.start()
    call = asyncio.create_task(put(leader, 1))
    await asyncio.sleep(0)
    call.cancel()
    await put(leader, 2)
    await trio.same_state([2])


async def test_every_entry_kind_is_applied_in_order(trio: Trio) -> None:
    leader = await trio.start()
    await put(leader, 1)
    entries = leader.log.entries(1, leader.node.last_applied + 1, 1 << 20)
    assert [entry.index for entry in entries] == list(range(1, leader.node.last_applied + 1))
    assert entries[0].kind is EntryKind.NOOP
