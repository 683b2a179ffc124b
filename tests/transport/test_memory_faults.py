"""The network of one process: each fault does what it says, and a seed replays it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from random import Random

import pytest

from connect_kv.peer_protocol import PeerMessage
from connect_kv.raft.messages import AppendRequest
from connect_kv.transport.memory import Faults, MemoryNetwork
from tests.transport.helpers import Network, Node, append, connect, offer, pieces_of

COUNT = 200
LAST = append(COUNT + 1)


async def deliveries(seed: int, faults: Faults) -> list[int]:
    """The indexes that arrive of `COUNT` appends sent under `faults`, until a last one without."""
    network = Network("memory")
    network.memory = MemoryNetwork(Random(seed), faults=faults)
    one, two = await network.pair()
    for index in range(1, COUNT + 1):
        one.transport.send(append(index))
    # Later than anything the faults have put off.
    network.memory.faults = Faults(delay=(0.1, 0.1))
    one.transport.send(LAST)
    await two.recorder.until(lambda: LAST in two.recorder.messages)
    await network.close()
    return [index_of(message) for message in two.recorder.messages if message != LAST]


def index_of(message: PeerMessage) -> int:
    assert isinstance(message, AppendRequest)
    return message.entries[0].index


async def test_drop_loses_silently() -> None:
    arrived = await deliveries(3, Faults(drop=0.3))

    assert 100 < len(arrived) < 180
    assert arrived == sorted(set(arrived))


async def test_duplicates_come_again_later() -> None:
    arrived = await deliveries(3, Faults(duplicate=0.3))

    assert len(arrived) > COUNT + 30
    assert set(arrived) == set(range(1, COUNT + 1))


async def test_reordered_messages_are_overtaken_but_arrive() -> None:
    arrived = await deliveries(3, Faults(reorder=0.3))

    assert arrived != sorted(arrived)
    assert sorted(arrived) == list(range(1, COUNT + 1))


async def test_random_delay_keeps_the_order_of_a_stream() -> None:
    arrived = await deliveries(3, Faults(delay=(0.0, 0.01)))

    assert arrived == list(range(1, COUNT + 1))


async def test_a_seed_decides_what_is_lost() -> None:
    first, again, other = [await deliveries(seed, Faults(drop=0.5)) for seed in (8, 8, 9)]

    assert first == again
    assert first != other


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    made = Network("memory")
    yield made
    await made.close()


async def three_nodes(network: Network) -> list[Node]:
    nodes = [await network.node(node_id) for node_id in (1, 2, 3)]
    connect(*nodes)
    for node in nodes:
        await node.introduced(*({1, 2, 3} - {node.node_id}))
    return nodes


async def test_partition_cuts_between_groups_only_until_healed(network: Network) -> None:
    one, two, three = await three_nodes(network)
    network.memory.partition([one.transport.address], [two.transport.address, three.transport.address])

    one.transport.send(append(1))
    two.transport.send(append(2, source=2, target=3))

    await one.recorder.until(lambda: 2 in one.recorder.unreachable_ids)
    assert list(await three.recorder.received(1)) == [append(2, source=2, target=3)]
    assert not two.recorder.messages

    one.recorder.replies.clear()
    network.memory.heal()
    await one.introduced(2)
    one.transport.send(append(3))
    assert list(await two.recorder.received(1)) == [append(3)]


async def test_what_is_under_way_when_a_partition_begins_is_lost(network: Network) -> None:
    one, two, three = await three_nodes(network)
    one.transport.send(append(1))
    one.transport.send(append(1, target=3))

    network.memory.isolate(two.transport.address)

    await three.recorder.received(1)
    assert not two.recorder.messages


async def test_aborted_node_receives_nothing_more_and_can_be_replaced(network: Network) -> None:
    one, two, _ = await three_nodes(network)
    one.transport.send(append(1))
    killed = network.memory.transports()[two.transport.address]

    killed.abort()

    await one.recorder.until(lambda: 2 in one.recorder.unreachable_ids)
    assert not two.recorder.messages
    one.recorder.replies.clear()
    again = await network.node(2, two.transport.address)
    await one.introduced(2)
    one.transport.send(append(2))
    assert list(await again.recorder.received(1)) == [append(2)]


async def test_snapshot_breaks_on_both_sides_when_the_network_does(network: Network) -> None:
    one, two, _ = await three_nodes(network)
    two.recorder.may_take.clear()
    sending = asyncio.create_task(one.transport.send_snapshot(offer(), pieces_of([b"a", b"b", b"c"])))
    await two.recorder.until(lambda: bool(two.recorder.pieces))

    network.memory.cut(one.transport.address, two.transport.address)
    two.recorder.may_take.set()

    with pytest.raises(OSError, match="broke"):
        await sending
    assert two.recorder.pieces == [b"a"]
    assert not two.recorder.installed
