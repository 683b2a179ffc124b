"""Values that are kept anyway, read when somebody asks for the metrics.

Under etcd's names where they mean the same (docs/metrics.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from connect_kv.auth.attempts import LoginAttempts
from connect_kv.frontend.grpc.door import DoorServer
from connect_kv.frontend.http.probes import Health
from connect_kv.interfaces import Clock
from connect_kv.kv.machine import KvMachine
from connect_kv.metrics import Metrics
from connect_kv.node.node import RaftNode
from connect_kv.rpc.maintenance_pb2 import AlarmType
from connect_kv.server.audit_file import AuditFile
from connect_kv.services.maintenance import ETCD_VERSION
from connect_kv.services.membership import MemberChanges
from connect_kv.services.quota import Quota
from connect_kv.services.streams import Streams
from connect_kv.services.user_quotas import UserQuotas
from connect_kv.statemachine.host import MachineHost
from connect_kv.statemachine.machine_counts import MethodCounts
from connect_kv.statemachine.space import CleanupHistogram, CleanupTimes


def show(
    metrics: Metrics,
    *,
    clock: Clock,
    node: RaftNode[bytes],
    kv: KvMachine,
    host: MachineHost,
    quota: Quota,
    is_learner: Callable[[], bool],
    health: Health,
    streams: Streams,
    changes: MemberChanges,
    logins: LoginAttempts,
    user_quotas: UserQuotas,
) -> None:
    """Register every metric of a member."""
    _show_node(metrics, node)
    _show_keys(metrics, kv)
    gauge, counter = metrics.gauge, metrics.counter
    gauge("etcd_server_version", "The version told to clients.", lambda: 1, server_version=ETCD_VERSION)
    cluster_version = ETCD_VERSION.rpartition(".")[0]
    gauge("etcd_cluster_version", "The same of the cluster.", lambda: 1, cluster_version=cluster_version)
    gauge("etcd_server_is_learner", "Whether this member is a learner.", is_learner)
    bare = metrics.bare_counter
    bare("etcd_server_health_success", "Healthy answers.", lambda: health.successes)
    bare("etcd_server_health_failures", "Unhealthy answers.", lambda: health.failures)
    bare("etcd_server_learner_promote_successes", "Learners promoted here.", lambda: changes.promotions)
    metrics.families(lambda: _health_families(health))
    metrics.families(lambda: _cluster_families(node, host))
    metrics.families(lambda: _cleanup_families(host.cleanups))
    gauge("etcd_server_quota_backend_bytes", "Space the keys may take.", lambda: quota.limit)
    gauge("etcd_mvcc_db_total_size_in_bytes", "Size of the state database.", lambda: host.disk_size)
    gauge(
        "etcd_mvcc_db_total_size_in_use_in_bytes", "What a rewrite of it would leave.", lambda: host.used_size
    )
    counter("etcd_server_proposals_failed", "Single writes that failed here.", metrics.failed_writes)
    metrics.families(lambda: _machine_families(host))
    gauge("etcd_debugging_auth_revision", "Revision of users and roles.", lambda: host.auth.revision)
    gauge("connect_kv_time_seconds", "This machine's clock, since 1970.", lambda: clock.wall() / 1e9)
    gauge("connect_kv_sessions", "Sessions there are.", lambda: len(host.sessions))
    for outcome, read in (
        ("succeeded", lambda: logins.succeeded),
        ("failed", lambda: logins.failed),
        ("refused", lambda: logins.refused),
    ):
        counter("connect_kv_logins", "Logins tried here.", read, outcome=outcome)
    for what in ("streams", "watches", "sessions"):
        counter(
            "connect_kv_user_limit_refusals",
            "Refused, for one user has enough of them.",
            partial(user_quotas.refused.__getitem__, what),
            limit=what,
        )
    counter("connect_kv_logins_slowed", "Those that had to wait for their turn.", lambda: logins.slowed)
    gauge("connect_kv_streams_open", "Streams of clients.", lambda: streams.count)


def show_connections(metrics: Metrics, door: DoorServer) -> None:
    """Show the connections of the port for clients, where our own server has it."""
    metrics.gauge("connect_kv_connections", "Connections of clients.", lambda: door.connections)
    metrics.counter(
        "connect_kv_connections_refused",
        "Connections told to go away: there were too many.",
        lambda: door.refused_connections,
    )
    metrics.counter(
        "connect_kv_connections_turned_away",
        "Connections closed before they had shown who they are, to make room for others.",
        lambda: door.turned_away,
    )


def show_audit(metrics: Metrics, file: AuditFile) -> None:
    """Show how writing the audit log goes, where there is one."""
    counter = metrics.counter
    counter("connect_kv_audit_lines", "Lines written to the audit log.", lambda: file.written)
    counter("connect_kv_audit_dropped", "Lines it had no room for.", lambda: file.dropped)
    counter("connect_kv_audit_failures", "Times that its disk took nothing.", lambda: file.failures)


def _machine_families(host: MachineHost) -> Iterator[Metric]:
    """Each machine, and calls by method. The labels are those that the classes have.

    A machine that is stored here and not hosted is suspended: it is shown, too.
    """
    machines = host.machines
    suspended = GaugeMetricFamily(
        "connect_kv_machine_suspended", "Whether a machine does not go on here.", labels=["machine"]
    )
    version = GaugeMetricFamily(
        "connect_kv_machine_version", "The active version of a machine.", labels=["machine"]
    )
    for name in sorted({*machines.machines, *machines.suspended}):
        suspended.add_metric([name], name in machines.suspended)
        if name in machines.machines:
            version.add_metric([name], machines.machines[name].standing.version)
    yield from (suspended, version)
    counts = machines.counts
    yield _calls("connect_kv_machine_commands", "Commands of machines applied here.", counts.commands)
    yield _calls("connect_kv_machine_queries", "Queries of machines answered here.", counts.queries)


def _calls(name: str, help: str, counts: Iterable[tuple[str, str, MethodCounts]]) -> Metric:
    family = CounterMetricFamily(name, help, labels=["machine", "method", "outcome"])
    for machine, method, one in counts:
        ends = {"returned": one.returned, "raised": one.raised, "not_run": one.not_run}
        for outcome, times in ends.items():
            if times:
                family.add_metric([machine, method, outcome], times)
    return family


def _show_node(metrics: Metrics, node: RaftNode[bytes]) -> None:
    gauge, counter = metrics.gauge, metrics.counter
    gauge("etcd_server_has_leader", "Whether a leader is known.", lambda: node.leader_id is not None)
    gauge("etcd_server_is_leader", "Whether this member leads.", lambda: node.is_leader)
    gauge("etcd_server_id", "This member.", lambda: 1, server_id=f"{node.identity.node_id:x}")
    gauge(
        "etcd_server_proposals_committed_total",
        "Index up to which the log is committed.",
        lambda: node.status().raft.commit_index,
    )
    gauge(
        "etcd_server_proposals_applied_total", "Index up to which it is applied.", lambda: node.last_applied
    )
    counter("etcd_server_slow_read_indexes", "Read barriers asked for again.", lambda: node.slow_reads)
    counter("etcd_server_read_indexes_failed", "Those without a leader.", lambda: node.failed_reads)
    gauge("connect_kv_raft_term", "Current term.", lambda: node.term)
    gauge("connect_kv_raft_applied_index", "Last applied entry.", lambda: node.last_applied)
    gauge(
        "connect_kv_raft_first_index",
        "First entry the log still holds.",
        lambda: node.status().raft.first_index,
    )


def _show_keys(metrics: Metrics, kv: KvMachine) -> None:
    gauge, counter = metrics.gauge, metrics.counter
    counter("etcd_mvcc_range", "Ranges and gets answered here.", lambda: kv.ranges)
    counter("etcd_mvcc_put", "Puts applied, whoever was asked.", lambda: kv.puts)
    counter("etcd_mvcc_delete", "Deletions applied.", lambda: kv.deletes)
    counter("etcd_mvcc_txn", "Transactions applied, or read here.", lambda: kv.txns)
    gauge("etcd_mvcc_db_open_read_transactions", "Frozen states in use.", lambda: kv.open_readings)
    gauge("etcd_debugging_mvcc_current_revision", "Revision of the store.", lambda: kv.revision)
    gauge("etcd_debugging_mvcc_compact_revision", "Compacted up to.", lambda: kv.compact_revision)
    gauge("etcd_debugging_mvcc_keys_total", "Keys there are.", lambda: kv.keys)
    gauge("etcd_debugging_mvcc_watcher_total", "Watches there are.", lambda: kv.hub.watches)
    gauge("etcd_debugging_mvcc_watch_stream_total", "Streams of watches.", lambda: kv.hub.streams)
    gauge("etcd_debugging_mvcc_slow_watcher_total", "Watches that read history.", lambda: kv.hub.unsynced)
    gauge("etcd_debugging_lease_count", "Leases there are.", lambda: len(kv.leases))
    counter("etcd_debugging_mvcc_events", "Events sent to watchers.", lambda: kv.hub.sent)
    gauge(
        "etcd_debugging_mvcc_pending_events_total",
        "Changes that wait for slow watchers.",
        lambda: kv.hub.pending_changes,
    )
    counter(
        "etcd_debugging_mvcc_db_compaction_keys",
        "Changes removed after compactions.",
        lambda: kv.cleaned_changes,
    )
    counter("etcd_debugging_lease_granted", "Leases granted.", lambda: kv.leases.granted)
    counter("etcd_debugging_lease_renewed", "Keep-alives.", lambda: kv.leases.renewed)
    counter("etcd_debugging_lease_revoked", "Leases ended, by whatever.", lambda: kv.leases.ended)
    counter("etcd_debugging_server_lease_expired", "Those that ran out.", lambda: kv.expired_leases)


def _health_families(health: Health) -> Iterator[Metric]:
    """The single checks, as probes have asked for them."""
    last = GaugeMetricFamily(
        "etcd_server_healthcheck", "Whether a check was well when asked last.", labels=["type", "name"]
    )
    asked = CounterMetricFamily(
        "etcd_server_healthchecks", "How checks ended.", labels=["type", "name", "status"]
    )
    for (kind, name), results in health.results.items():
        last.add_metric([kind, name], results.well)
        asked.add_metric([kind, name, "success"], results.successes)
        asked.add_metric([kind, name, "error"], results.errors)
    yield from (last, asked)


def _cluster_families(node: RaftNode[bytes], host: MachineHost) -> Iterator[Metric]:
    """The other members, and the alarms that are on."""
    own = f"{node.identity.node_id:x}"
    known = GaugeMetricFamily(
        "etcd_network_known_peers", "The other members of the cluster.", labels=["Local", "Remote"]
    )
    for node_id in sorted(set(node.membership.node_ids) - {node.identity.node_id}):
        known.add_metric([own, f"{node_id:x}"], 1)
    alarms = GaugeMetricFamily(
        "etcd_debugging_server_alarms", "Alarms that are on.", labels=["server_id", "alarm_type"]
    )
    for alarm in host.cluster.alarms():
        alarms.add_metric([f"{alarm.memberID:x}", AlarmType.Name(alarm.alarm)], 1)
    yield from (known, alarms)


def _cleanup_families(cleanups: CleanupTimes) -> Iterator[Metric]:
    """How long the cleanups take that follow a compaction."""
    prefix = "etcd_debugging_mvcc_db_compaction"
    yield GaugeMetricFamily(
        f"{prefix}_last", "When the last cleanup ended, seconds since 1970.", cleanups.ended_at
    )
    yield _milliseconds(f"{prefix}_pause_duration", "Steps of cleanups.", cleanups.steps)
    yield _milliseconds(f"{prefix}_total_duration", "Whole cleanups.", cleanups.wholes)


def _milliseconds(name: str, help: str, histogram: CleanupHistogram) -> Metric:
    bounds = [*(str(round(bound * 1000, 3)) for bound in histogram.bounds), "+Inf"]
    buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
    return HistogramMetricFamily(f"{name}_milliseconds", help, buckets, histogram.seconds * 1000)
