"""What a node measures of itself, as Prometheus histograms and counters."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate
from math import inf

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from connect_kv.interfaces import Clock

logger = logging.getLogger(__name__)

_SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 2.0, 4.0, 8.0)
SLOW_APPLY_SECONDS = 0.1
SLOW_WRITE_SECONDS = 0.5
_REPORT_SECONDS = 10.0


class _Slow:
    """Logs one line for many slow operations: what is overloaded is slow all the time."""

    def __init__(self, message: str, limit: float, clock: Clock) -> None:
        self._message = message
        self._limit = limit
        self._clock = clock
        self._next = 0.0
        self._times = 0
        self._longest = 0.0

    def took(self, seconds: float) -> bool:
        """Note how long an operation took. Whether that was too long."""
        if seconds <= self._limit:
            return False
        self._times += 1
        self._longest = max(self._longest, seconds)
        now = self._clock.now()
        if now >= self._next:
            fields = {"seconds": round(self._longest, 3), "times": self._times}
            logger.warning(self._message, extra=fields)
            self._next, self._times, self._longest = now + _REPORT_SECONDS, 0, 0.0
        return True


class _Distribution(Collector):
    """A histogram that is only added to until somebody looks: each lone write is noted several times.

    The library's own takes a lock for each of its numbers. To be used, and looked at, on the loop.
    """

    def __init__(self, bounds: Sequence[float], registry: CollectorRegistry) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._names: list[tuple[str, str, dict[str, str]]] = []
        registry.register(self)

    def named(self, name: str, help: str, **labels: str) -> _Distribution:
        """Show it under this name."""
        self._names.append((name, help, labels))
        return self

    def add(self, value: float) -> None:
        """Count one more value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterator[Metric]:
        """The histogram under each of its names, as the library asks for it."""
        bounds = [*map(str, map(float, self._bounds)), "+Inf"]
        buckets = list(zip(bounds, accumulate(self._counts), strict=True))
        for name, help, labels in self._names:
            family = HistogramMetricFamily(name, help, labels=list(labels))
            family.add_metric(list(labels.values()), buckets, self._sum)
            yield family

    @property
    def buckets(self) -> Sequence[tuple[float, float]]:
        """Upper bounds, the last infinite, and how many were not above each."""
        return list(zip((*self._bounds, inf), accumulate(self._counts), strict=True))

    def describe(self) -> Iterator[Metric]:
        """Its names are its own: nothing is to be checked."""
        return iter(())


class PrometheusNodeMetrics:
    """`node.context.NodeMetrics` into a registry; etcd's names where they mean the same."""

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        self._slow_write = _Slow("the log's disk is slow", SLOW_WRITE_SECONDS, clock)
        self._slow_apply = _Slow("apply is slow", SLOW_APPLY_SECONDS, clock)
        self._slow_heartbeat = _Slow("heartbeats leave late: this leader is overloaded", 0.0, clock)
        self._fsync = _Distribution(_SECONDS, registry).named(
            "etcd_disk_wal_fsync_duration_seconds", "Time until a batch of the log was durable."
        )
        self._merged = _Distribution((1, 2, 4, 8, 16, 32, 64), registry).named(
            "connect_kv_log_steps_per_write", "Steps of the Raft core that one write of the log merged."
        )
        self._apply = _Distribution(_SECONDS, registry)
        self._apply.named(
            "etcd_disk_backend_commit_duration_seconds",
            "Time until a slice of entries was applied and written.",
        )
        self._apply.named(
            "etcd_server_apply_duration_seconds",
            "The same under etcd's older name: all entries of a slice are applied together.",
            version="v3",
            op="Slice",
            success="true",
        )
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        self._slow = counter("etcd_server_slow_apply", "Slices that took longer than 100 ms.")
        self._pending = gauge("etcd_server_proposals_pending", "Commands that wait to be proposed.")
        self._pending_bytes = gauge("connect_kv_proposals_pending_bytes", "Bytes of these.")
        self._late_heartbeats = counter(
            "etcd_server_heartbeat_send_failures",
            "Times a leader's heartbeats left later than one heartbeat interval: it is overloaded.",
        )
        self._stalls = counter("connect_kv_loop_stalls", "Times the event loop was held too long.")
        self._stalled = counter("connect_kv_loop_stall_seconds", "Seconds the event loop was held in these.")
        self._lag = gauge(
            "connect_kv_follower_lag_entries", "Entries a follower lacks (leader only).", ["member"]
        )
        self._changes = counter("etcd_server_leader_changes_seen", "Leader changes seen.")
        self._sent = counter("connect_kv_snapshots_sent", "Snapshots sent.", ["result"])
        self._installed = counter("connect_kv_snapshots_installed", "Snapshots installed from a leader.")

    def log_writes(self) -> Sequence[tuple[float, float]]:
        """How long writes of the log took: upper bounds, and how many were not above each."""
        return self._fsync.buckets

    def applies(self) -> Sequence[tuple[float, float]]:
        """How long slices took to apply."""
        return self._apply.buckets

    def log_written(self, seconds: float, readies: int) -> None:
        """One batch of the log is durable; it merged that many steps of the core."""
        self._fsync.add(seconds)
        self._merged.add(readies)
        self._slow_write.took(seconds)

    def applied(self, seconds: float, entries: int) -> None:
        """A slice of entries was applied."""
        self._apply.add(seconds)
        if self._slow_apply.took(seconds):
            self._slow.inc()

    def waiting(self, commands: int, size: int) -> None:
        """So many commands, of so many bytes, wait to be proposed."""
        self._pending.set(commands)
        self._pending_bytes.set(size)

    def heartbeat_late(self, seconds: float) -> None:
        """A leader's heartbeats leave that much later than they should."""
        self._late_heartbeats.inc()
        self._slow_heartbeat.took(seconds)

    def loop_stalled(self, seconds: float) -> None:
        """Something held the loop for that long."""
        self._stalls.inc()
        self._stalled.inc(seconds)

    def follower_lag(self, node_id: int, entries: int) -> None:
        """How many entries that follower lacks."""
        self._lag.labels(f"{node_id:x}").set(entries)

    def leader_changed(self, leader_id: int | None) -> None:
        """This node now follows that leader, or knows none."""
        if leader_id is not None:
            self._changes.inc()

    def snapshot_sent(self, ok: bool) -> None:
        """A snapshot was sent to a follower, or failed to arrive."""
        self._sent.labels("ok" if ok else "failed").inc()

    def snapshot_installed(self) -> None:
        """A snapshot from the leader replaced this node's state."""
        self._installed.inc()
