"""What the transport counts, under etcd's names."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from connect_kv.transport.traffic import ROUND_TRIP_SECONDS, Traffic


def peer_families(traffic: Traffic, own_id: int) -> Iterator[Metric]:
    """Metrics with a label for the other member: its id, in hexadecimal."""
    sent = CounterMetricFamily("etcd_network_peer_sent_bytes", "Bytes sent to a member.", labels=["To"])
    received = CounterMetricFamily(
        "etcd_network_peer_received_bytes", "Bytes received from a member.", labels=["From"]
    )
    failures = CounterMetricFamily(
        "etcd_network_peer_sent_failures", "Messages to a member that were dropped.", labels=["To"]
    )
    active = GaugeMetricFamily(
        "etcd_network_active_peers",
        "Whether there is a stream between the two.",
        labels=["Local", "Remote"],
    )
    round_trips = HistogramMetricFamily(
        "etcd_network_peer_round_trip_time_seconds",
        "From a leader's heartbeat to its answer.",
        labels=["To"],
    )
    bounds = [*map(str, ROUND_TRIP_SECONDS), "+Inf"]
    for node_id, peer in sorted(traffic.peers.items()):
        other = f"{node_id:x}"
        sent.add_metric([other], peer.sent_bytes)
        received.add_metric([other], peer.received_bytes)
        failures.add_metric([other], peer.send_failures)
        active.add_metric([f"{own_id:x}", other], peer.streams > 0)
        buckets = zip(bounds, accumulate(peer.round_trips), strict=True)
        round_trips.add_metric([other], list(buckets), peer.round_trip_seconds)
    yield from (sent, received, failures, active, round_trips)
