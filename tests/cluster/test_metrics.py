"""Dashboards made for etcd work here: docs/metrics.md accounts for each of its names."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import aiohttp

import connect_kv
from connect_kv.testing.processes import ProcessCluster, until
from tests.etcd import etcd_cluster, etcd_or_skip
from tests.packaging.test_monitoring import unheard_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


def documented(heading: str) -> set[str]:
    """The names in the first column of the table under that heading."""
    _, _, rest = DOCUMENT.read_text().partition(f"## {heading}\n")
    table = rest.split("\n## ")[0]
    return {
        name
        for row in table.splitlines()
        if row.startswith("| `")
        for name in re.findall("`(.*?)`", row.split(" | ")[0])
    }


SINCE_3_6 = {
    "etcd_server_healthcheck",
    "etcd_server_healthchecks_total",
    "etcd_server_range_duration_seconds",
    "etcd_server_feature_enabled",
    "etcd_server_client_requests_total",
    "etcd_network_known_peers",
    "etcd_disk_wal_write_duration_seconds",
    "etcd_debugging_server_alarms",
    "process_network_receive_bytes_total",
    "process_network_transmit_bytes_total",
}
"""Names of etcd 3.6 that 3.5.1, which is asked, has not, or shows only once it has a sample."""


NOT_YET_SHOWN = {"etcd_network_peer_round_trip_time_seconds", "etcd_network_peer_sent_failures_total"}
"""Names of etcd 3.5.1 that it shows only once they have a sample, which a new cluster has not."""


async def types(address: str) -> dict[str, str]:
    """What each metric says it is."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}/metrics") as answer:
        return dict(re.findall(r"^# TYPE (\S+) (\S+)$", await answer.text(), re.MULTILINE))


async def fetched(address: str) -> dict[str, float]:
    """Every sample by its name, those of one name added up; names without a sample are 0."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}/metrics") as answer:
        text = await answer.text()
    found = dict.fromkeys(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE), 0.0)
    for name, value in re.findall(r"^(\w+)(?:\{.*\})? (\S+)$", text, re.MULTILINE):
        found[name] = found.get(name, 0.0) + float(value)
    return found


async def test_every_metric_of_etcd_is_here_or_said_not_to_be(tmp_path: Path) -> None:
    had, own, missing = (
        documented("Under etcd's names"), documented("Our own"), documented("What etcd has and this has not")
    )  # fmt: skip
    etcds = etcd_cluster(tmp_path / "etcd", etcd_or_skip())
    try:
        for one in etcds:
            one.fsync = False
            await one.start()
        for one in etcds:
            await one.ready()
        theirs = await fetched(etcds[0].client_address)
        their_types = await types(etcds[0].client_address)
    finally:
        for one in etcds:
            await one.kill()
    names = {re.sub("_(bucket|sum|count)$", "", name) for name in theirs}
    assert "etcd_server_has_leader" in names
    unaccounted = {
        name
        for name in names | SINCE_3_6
        if name not in had and not any(fnmatch(name, pattern) for pattern in missing)
    }
    assert not unaccounted
    ended = {name for name in had if name not in names | SINCE_3_6 | NOT_YET_SHOWN}
    assert not ended, "not names of etcd's"
    everything = ["--peer-auto-tls", "--audit-log", str(tmp_path / "audit.log")]
    machines = {"counter": "tests.cluster.machines:Counter"}
    async with ProcessCluster(tmp_path / "ours", 2, machines=machines, arguments=everything) as cluster:
        async with cluster.client() as client:
            await client.call_json("counter", "increment")
            await client.call_json("counter", "value")
        address = f"127.0.0.1:{(await cluster.leader()).http_port}"
        async with aiohttp.ClientSession() as session, session.get(f"http://{address}/readyz"):
            pass  # its checks have samples then
        ours, our_types = await fetched(address), await types(address)
    other = {name: kind for name, kind in our_types.items() if their_types.get(name, kind) != kind}
    assert not other, "a dashboard takes rate() of counters only"
    assert (had | own) <= ours.keys()
    assert not unheard_of(our_types), "what the dashboard and the alerts ask for"
    assert not [name for name in ours if any(fnmatch(name, pattern) for pattern in missing)]
    assert not [name for name in ours if name.endswith("_created")]
    silent = {name for name in ours if not name.startswith("python_")} - had - own
    assert not {re.sub("_(bucket|sum|count)$", "", name) for name in silent} - had - own, "not in the tables"


async def test_what_is_counted_grows_with_what_is_done(tmp_path: Path) -> None:
    async with ProcessCluster(tmp_path) as cluster:
        leader = await cluster.leader()
        follower = next(node for node in cluster.nodes if node is not leader)
        async with connect_kv.connect(follower.client_address) as client:
            lease, _ = await client.grant_lease(60)
            for number in range(20):
                await client.put(f"k{number}", bytes(1000), lease=lease)
            await client.get("k1")
            await client.delete("k1")
            await client.revoke_lease(lease)
            await client.maintenance.hash_kv()
        wanted = {
            "etcd_mvcc_put_total": 20,
            "etcd_mvcc_delete_total": 20,  # one, and nineteen with the lease
            "etcd_debugging_lease_granted_total": 1,
            "etcd_debugging_lease_revoked_total": 1,
            "etcd_network_peer_received_bytes_total": 20_000,
            "etcd_network_peer_sent_bytes_total": 1,
            "etcd_network_active_peers": 2,
        }

        async def reached() -> bool:
            found = [await fetched(f"127.0.0.1:{node.http_port}") for node in (leader, follower)]
            return all(one[name] >= least for one in found for name, least in wanted.items())

        await until(reached, 20, "both members to have counted it")
        ours = await fetched(f"127.0.0.1:{follower.http_port}")
        assert ours["etcd_network_client_grpc_received_bytes_total"] > 20_000
        assert ours["etcd_mvcc_range_total"] == 1
        assert ours["etcd_mvcc_hash_rev_duration_seconds_count"] == 1
        lag = ours["etcd_server_proposals_committed_total"] - ours["etcd_server_proposals_applied_total"]
        assert 0 <= lag < 5
        leading = await fetched(f"127.0.0.1:{leader.http_port}")
        assert leading["etcd_network_peer_round_trip_time_seconds_count"] > 2
        assert leading["etcd_network_peer_round_trip_time_seconds_sum"] > 0
        before = leading["etcd_network_peer_sent_failures_total"]
        await follower.kill()

        async def failing() -> bool:
            now = await fetched(f"127.0.0.1:{leader.http_port}")
            return (
                now["etcd_network_peer_sent_failures_total"] > before
                and now["etcd_network_active_peers"] == 1
            )

        await until(failing, 20, "the leader to count what it cannot send")
