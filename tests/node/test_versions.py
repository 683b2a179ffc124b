"""Two neighbouring versions work together, so that a cluster is upgraded member by member."""

from __future__ import annotations

from connect_kv.node.membership import OLDEST_PROTOCOL, PROTOCOL
from connect_kv.peer_protocol import HelloVerdict
from tests.node.cluster import Trio, eventually, put

NEXT = {"protocol": PROTOCOL + 1, "oldest_protocol": PROTOCOL, "highest_command": 50}
"""What the version after this one says of itself."""
AFTER_NEXT = {"protocol": PROTOCOL + 2, "oldest_protocol": PROTOCOL + 1, "highest_command": 51}


def test_the_version_before_is_understood() -> None:
    assert max(1, PROTOCOL - 1) == OLDEST_PROTOCOL


async def test_a_cluster_is_upgraded_member_by_member_while_it_works() -> None:
    """New commands become possible when the last member understands them, and not before."""
    trio = Trio()
    await trio.start()
    written: list[int] = []
    for number, host in enumerate(list(trio.hosts), 1):
        await host.stop()
        await host.start(**NEXT)
        leader = await trio.agreed()
        await put(leader, number)
        written.append(number)
        await trio.same_state(written)
        expected = 50 if number == 3 else 49
        await eventually(lambda: leader.node.common_highest_command == expected)  # noqa: B023
    await trio.kill_all()


async def test_versions_too_far_apart_do_not_talk() -> None:
    trio = Trio()
    one, two, three = trio.hosts
    await one.start()
    await two.start()
    await three.start(**AFTER_NEXT)
    leader = await trio.agreed([one, two])
    await put(leader, 1)
    await trio.same_state([1], [one, two])
    reply = await one.node._driver.peers.hello(three.node._driver.peers.introduce(one.id))
    assert reply.verdict is HelloVerdict.INCOMPATIBLE
    assert f"versions {OLDEST_PROTOCOL} to {PROTOCOL}" in reply.detail
    assert not three.state.numbers
    await trio.kill_all()
