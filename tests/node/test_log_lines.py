"""What an operator reads in the log: one line per event that matters, its values as fields."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from connect_kv.node.membership import Refusals, log_changes
from connect_kv.peer_protocol import HelloVerdict
from connect_kv.raft.membership import MembershipChange
from connect_kv.raft.types import Member, Membership
from connect_kv.server.logs import fields_of
from connect_kv.server.node_metrics import PrometheusNodeMetrics
from connect_kv.testing.simulation.clock import VirtualClock, VirtualLoop
from tests.node.cluster import Trio, eventually, put


class Lines(logging.Handler):
    """Everything said from `level` on, as (message, fields)."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def of(self, message: str) -> list[dict[str, object]]:
        return [fields_of(record) for record in self.records if record.getMessage() == message]


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, logger = Lines(), logging.getLogger("connect_kv")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel("INFO")
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


async def test_one_line_on_each_member_when_the_leader_changes(trio: Trio, lines: Lines) -> None:
    leader = await trio.start()
    lines.records.clear()
    others = trio.followers(leader)
    await leader.stop()
    new = await trio.agreed(others)
    assert lines.of("this member leads") == [{"term": new.node.term}]
    told = lines.of("the leader changed")
    assert told.count({"term": new.node.term, "leader": f"{new.id:x}"}) == 1
    assert all(line["leader"] in ("none", f"{new.id:x}") for line in told)


async def test_one_line_on_each_member_for_each_change_of_membership(trio: Trio, lines: Lines) -> None:
    leader = await trio.start()
    lines.records.clear()
    fourth = trio.host("n4")
    added = await trio.add_learner(leader, fourth)
    await fourth.join(*trio.hosts[:3])
    id = f"{added:x}"
    await eventually(lambda: len(lines.of("a member was added")) >= 3)
    assert {"member": id, "address": "n4:2380", "kind": "learner"} in lines.of("a member was added")
    await eventually(lambda: fourth.state.last_applied >= leader.state.last_applied)
    await leader.node.change_membership(MembershipChange().promote(added))
    await eventually(lambda: len(lines.of("a learner was promoted")) == 4)
    moved = Member(node_id=added, name="n4", peer_address="n5:2380")
    await leader.node.change_membership(MembershipChange().update(moved))
    await eventually(lambda: len(lines.of("a member has another address")) >= 3)
    await leader.node.change_membership(MembershipChange().remove(added))
    await eventually(lambda: len(lines.of("a member was removed")) >= 3)
    assert {str(line) for line in lines.of("a learner was promoted")} == {
        str({"member": id, "address": "n4:2380"})
    }
    assert {str(line) for line in lines.of("a member has another address")} == {
        str({"member": id, "address": "n5:2380"})
    }
    assert {str(line) for line in lines.of("a member was removed")} == {str({"member": id})}


def test_what_did_not_change_is_not_said(lines: Lines) -> None:
    one = Member(node_id=1, name="n1", peer_address="n1:2380")
    two = Member(node_id=2, name="n2", peer_address="n2:2380")
    before = Membership(members=(one, two), voters=frozenset({1, 2}))
    log_changes(before, before)
    assert not lines.records
    log_changes(before, Membership(members=(one, two), voters=frozenset({1}), learners=frozenset({2})))
    assert lines.of("a voter became a learner") == [{"member": "2", "address": "n2:2380"}]
    assert len(lines.records) == 1


async def test_snapshots_are_told_by_who_sends_and_by_who_installs(trio: Trio, lines: Lines) -> None:
    leader = await trio.start(keep_entries=1, durable_seconds=0.1)
    late = trio.followers(leader)[0]
    await late.kill()
    for number in range(50):
        await put(leader, number)
    await eventually(lambda: leader.node.status().raft.first_index > 40)
    await late.start()
    await trio.same_state(range(50))
    (sent,) = lines.of("sending a snapshot")
    assert sent["member"] == f"{late.id:x}"
    (installed,) = lines.of("installed a snapshot")
    assert installed == {"index": sent["index"], "term": sent["term"]}


async def test_a_disk_that_does_not_answer_is_told_and_that_it_answers_again(
    trio: Trio, lines: Lines
) -> None:
    leader = await trio.start()
    leader.worker.block()
    call = asyncio.create_task(put(leader, 1))
    await eventually(lambda: leader.node.status().disk_sick)
    await asyncio.sleep(10)
    assert len(lines.of("the log's disk has not answered for two election timeouts")) == 1
    leader.worker.unblock()
    await eventually(lambda: not leader.node.status().disk_sick)
    assert len(lines.of("the log's disk answers again")) == 1
    await call


async def test_slow_writes_and_slow_applies_are_told_at_most_every_ten_seconds(lines: Lines) -> None:
    metrics = PrometheusNodeMetrics(CollectorRegistry(), VirtualClock())
    for _ in range(100):
        metrics.log_written(0.4, 1)
        metrics.applied(0.09, 1)
    assert not lines.records
    for _ in range(100):
        metrics.log_written(0.6, 1)
        metrics.applied(0.2, 1)
        await asyncio.sleep(0.25)
    metrics.log_written(0.7, 1)
    await asyncio.sleep(10)
    metrics.log_written(0.6, 1)
    slow = lines.of("the log's disk is slow")
    assert slow[0] == {"seconds": 0.6, "times": 1}
    assert len(slow) == 4
    assert slow[-1]["seconds"] == 0.7, "the longest of those not told yet"
    assert sum(int(str(line["times"])) for line in slow) == 102
    assert len(lines.of("apply is slow")) == 3


async def test_a_leader_that_is_held_up_says_that_its_heartbeats_leave_late(trio: Trio, lines: Lines) -> None:
    """At most every ten seconds, however often."""
    leader = await trio.start()
    registry = CollectorRegistry()
    metrics = PrometheusNodeMetrics(registry, VirtualClock())
    leader.metrics.heartbeat_late = metrics.heartbeat_late  # type: ignore[method-assign]
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    await asyncio.sleep(1)
    assert not lines.of("heartbeats leave late: this leader is overloaded")
    for _ in range(3):
        loop.stall(0.3)
        await asyncio.sleep(0.5)
    assert registry.get_sample_value("etcd_server_heartbeat_send_failures_total") == 3
    assert len(lines.of("heartbeats leave late: this leader is overloaded")) == 1


async def test_a_refused_member_is_told_once_not_with_every_attempt(trio: Trio, lines: Lines) -> None:
    one, two, three = trio.hosts
    await one.start()
    await two.start()
    await three.start(protocol=9, oldest_protocol=9)
    await trio.agreed([one, two])
    await asyncio.sleep(60)
    refused = lines.of("a member was refused")
    assert refused.count({"member": f"{three.id:x}", "verdict": "INCOMPATIBLE"}) == 2, "by each of two"
    told = [line["verdict"] for line in lines.of("a member does not take our messages")]
    assert set(told) == {"INCOMPATIBLE"}
    assert len(told) <= 4


def test_a_refusal_is_news_after_a_welcome_and_for_another_reason() -> None:
    refusals = Refusals()
    assert refusals.news(1, HelloVerdict.INCOMPATIBLE)
    assert not refusals.news(1, HelloVerdict.INCOMPATIBLE)
    assert refusals.news(1, HelloVerdict.WRONG_CLUSTER)
    refusals.welcome(1)
    assert refusals.news(1, HelloVerdict.WRONG_CLUSTER)
    for stranger in range(2, 1000):
        assert refusals.news(stranger, HelloVerdict.WRONG_CLUSTER)
    assert len(refusals._last) <= 256


async def test_one_line_says_why_nothing_can_be_committed(trio: Trio, lines: Lines) -> None:
    """However long it lasts; and another one the next time."""
    leader = await trio.start()
    others = trio.followers(leader)
    for _ in range(2):
        lines.records.clear()
        for one in others:
            await one.kill()
        await eventually(lambda: bool(lines.of("nothing can be committed")))
        await asyncio.sleep(30)
        (said,) = lines.of("nothing can be committed")
        names = ", ".join(sorted(one.name for one in others))
        assert said["reason"] == f"no leader: 1 of 3 voters answers, 2 needed; {names} refuse connections"
        for one in others:
            await one.start()
        await trio.agreed(trio.hosts)
