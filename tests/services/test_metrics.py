"""What a member counts for dashboards, and what it says these numbers are."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from pathlib import Path

import pytest

import connect_kv
from connect_kv import Replicated, command, errors, query
from connect_kv.frontend.http.probes import Health
from connect_kv.metrics import MOST_VERSIONS, ClientRequests, Metrics
from connect_kv.rpc.kv_pb2 import RangeRequest
from connect_kv.rpc.maintenance_pb2 import NOSPACE, AlarmRequest, AlarmResponse
from connect_kv.server.server_metrics import _health_families
from connect_kv.services.executor import CommandExecutor
from connect_kv.statemachine.hosted import ReplicatedMachine
from connect_kv.statemachine.machine_counts import MachineCounts
from connect_kv.statemachine.space import CleanupHistogram
from tests.services.cluster import Member, configs, running
from tests.services.conftest import FakeNode, streaming, unary, until


class Books(Replicated):
    """Titles, each once."""

    def __init__(self) -> None:
        self.titles: list[str] = []

    @command
    def add(self, title: str) -> None:
        if title in self.titles:
            raise ValueError(title)
        self.titles.append(title)

    @query
    def count(self) -> int:
        return len(self.titles)


def samples(member: Member) -> dict[str, float]:
    """Each line by what stands before its value."""
    text = member.server.metrics.text().decode()
    return {name: float(value) for name, value in re.findall(r"^(\w+(?:\{.*\})?) (\S+)$", text, re.MULTILINE)}


def test_a_counter_may_have_a_name_that_the_library_would_not_give_it() -> None:
    metrics = Metrics(process=False)
    metrics.bare_counter("etcd_server_health_success", "Healthy answers.", lambda: 3)
    metrics.gauge("etcd_server_health_success_share", "Another.", lambda: 1)
    text = metrics.text().decode()
    assert "# TYPE etcd_server_health_success counter\netcd_server_health_success 3.0\n" in text
    assert "# TYPE etcd_server_health_success_share gauge\n" in text


def test_clients_cannot_make_as_many_labels_as_they_like() -> None:
    requests = ClientRequests("unary")
    for number in range(100):
        requests.of(f"3.{number}").times += 1
    requests.of("3.1").times += 1
    assert len(requests.counts) == MOST_VERSIONS + 1
    assert requests.counts["3.1"] == 2
    assert requests.counts["other"] == 100 - MOST_VERSIONS


def test_durations_are_counted_by_the_bound_they_stay_below() -> None:
    histogram = CleanupHistogram((1.0, 2.0))
    for seconds in (0.5, 1.0, 1.5, 9.0):
        histogram.add(seconds)
    assert (histogram.counts, histogram.seconds) == ([2, 1, 1], 12.0)


async def test_each_check_is_counted_by_its_outcome() -> None:
    node = FakeNode()
    executor = CommandExecutor(node, cluster_id=1, member_id=1, revision=lambda: 1)
    learner = [False]
    health = Health(executor, alarms=frozenset, is_learner=lambda: learner[0])
    for is_learner in (False, True, True):
        learner[0] = is_learner
        await health.ready["non_learner"]()
    await health.live["serializable_read"]()
    last, asked = _health_families(health)
    assert {tuple(one.labels.values()): one.value for one in last.samples} == {
        ("readyz", "non_learner"): 0.0,
        ("livez", "serializable_read"): 1.0,
    }
    counted = {tuple(one.labels.values()): one.value for one in asked.samples}
    assert counted["readyz", "non_learner", "success"] == 1
    assert counted["readyz", "non_learner", "error"] == 2


async def test_calls_of_machines_are_counted_by_method_and_outcome(tmp_path: Path) -> None:
    machines = [{"books": ReplicatedMachine(Books())}]
    async with (
        running(configs(tmp_path, 1), machines) as (only,),
        connect_kv.connect(only.server.client_address) as client,
    ):
        books = client.machine("books", Books)
        for title in ("a", "b", "a"):
            with suppress(errors.CommandFailed):
                await books.call(Books.add, title=title)
        assert await books.call(Books.count) == 2
        for strange in ("no_such", "another"):
            with pytest.raises(errors.ConnectKvError):
                await client.call_json("books", strange)
        found, text = samples(only), only.server.metrics.text().decode()
    commands, queries = "connect_kv_machine_commands_total", "connect_kv_machine_queries_total"
    assert found[f'{commands}{{machine="books",method="add",outcome="returned"}}'] == 2
    assert found[f'{commands}{{machine="books",method="add",outcome="raised"}}'] == 1
    assert found[f'{queries}{{machine="books",method="count",outcome="returned"}}'] == 1
    assert "no_such" not in text
    assert not re.findall(r"^\w+_created\b.*", text, re.MULTILINE), "Prometheus stores each as a series"


def test_what_clients_write_makes_no_labels() -> None:
    counts = MachineCounts({"books": frozenset({"add"})})
    for number in range(100):
        one = counts.command("books", f"made-up-{number}")
        assert one is not None
        one.not_run += 1
    assert counts.command("unheard-of", "add") is None
    assert [(machine, method, one.not_run) for machine, method, one in counts.commands] == [
        ("books", "other", 100)
    ]


async def test_what_dashboards_ask_for_grows_with_what_is_done(tmp_path: Path) -> None:
    async with (
        running(configs(tmp_path, 1)) as (only,),
        connect_kv.connect(only.server.client_address, session=False) as client,
    ):
        async with client.watch("k", prefix=True) as watch:
            for number in range(10):
                put = await client.put("k", str(number))
            async with asyncio.timeout(60):
                for _ in range(10):
                    await anext(watch)
        await client.compact(put.header.revision, physical=True)
        ask = unary(only.channel, "/etcdserverpb.KV/Range")
        await ask(RangeRequest(key=b"k").SerializeToString(), metadata=(("client-api-version", "3.6"),))
        streaming(only.channel, "/etcdserverpb.Watch/Watch", ("client-api-version", "3.6"))
        alarm = AlarmRequest(
            action=AlarmRequest.ACTIVATE, memberID=only.server.node.identity.node_id, alarm=NOSPACE
        )
        await only.call("/etcdserverpb.Maintenance/Alarm", alarm, AlarmResponse)
        stream = 'etcd_server_client_requests_total{client_api_version="3.6",type="stream"}'
        compaction = "etcd_debugging_mvcc_db_compaction"
        await until(lambda: samples(only).get(stream) and samples(only)[f"{compaction}_last"])
        found = samples(only)
    assert found['etcd_server_client_requests_total{client_api_version="3.6",type="unary"}'] == 1
    assert found['etcd_server_client_requests_total{client_api_version="unknown",type="unary"}'] > 10
    assert found["etcd_debugging_mvcc_events_total"] == 10
    assert found["etcd_debugging_mvcc_pending_events_total"] == 0
    assert found[f"{compaction}_keys_total"] == 9
    assert found[f"{compaction}_total_duration_milliseconds_count"] == 1
    assert found[f"{compaction}_pause_duration_milliseconds_count"] >= 1
    id = f"{only.server.node.identity.node_id:x}"
    assert found[f'etcd_debugging_server_alarms{{alarm_type="NOSPACE",server_id="{id}"}}'] == 1
    assert sum(value for name, value in found.items() if "apply_duration_seconds_count" in name) > 10
