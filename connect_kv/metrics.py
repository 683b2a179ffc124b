"""What this process counts, and its Prometheus text.

Hot paths add to plain integers (`CallCount`, no lock, no label lookup); the collector reads them
when it is asked. Values that others keep anyway are read then too, through `gauge` and `counter`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from resource import RLIMIT_NOFILE, getrlimit

from prometheus_client import CollectorRegistry, GCCollector, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"

Read = Callable[[], float]


_DURATIONS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84)
_WRITES = frozenset(("Put", "DeleteRange", "Txn", "Compact", "LeaseGrant", "LeaseRevoke"))


class CallCount:
    """How often one gRPC method was called, and how it ended."""

    __slots__ = (
        "failed",
        "kind",
        "method",
        "ok",
        "received",
        "received_bytes",
        "sent",
        "sent_bytes",
        "service",
        "started",
    )

    def __init__(self, service: str, method: str, kind: str) -> None:
        self.service = service
        self.method = method
        self.kind = kind
        self.started = 0
        self.ok = 0
        self.failed: dict[str, int] = {}
        """By gRPC code, as in ``Unavailable``."""
        self.received = self.received_bytes = 0
        """Messages of clients."""
        self.sent = self.sent_bytes = 0
        """Messages to clients."""

    def fail(self, code: str) -> None:
        """Count an end with `code`, such as ``DEADLINE_EXCEEDED``."""
        name = "".join(word.capitalize() for word in code.split("_"))
        self.failed[name] = self.failed.get(name, 0) + 1


MOST_VERSIONS = 16
"""A label is made of what clients say; further versions are counted together."""


class Times:
    """How often something came."""

    __slots__ = ("times",)

    def __init__(self) -> None:
        self.times = 0


class ClientRequests:
    """How often calls of one form came, by the version of the API that the client names."""

    __slots__ = ("_of", "type")

    def __init__(self, type: str) -> None:
        self.type = type
        """``unary`` or ``stream``."""
        self._of: dict[str, Times] = {}

    @property
    def counts(self) -> dict[str, int]:
        """By version, of those that came at all."""
        return {version: of.times for version, of in self._of.items() if of.times}

    def of(self, version: str) -> Times:
        """Where one more is counted."""
        found = self._of.get(version)
        if found is None:
            if len(self._of) >= MOST_VERSIONS:
                version = "other"
            found = self._of.setdefault(version, Times())
        return found


class Metrics:
    """Everything one node shows; each node has its own, so that several fit in one process."""

    def __init__(self, *, process: bool = True) -> None:
        self._calls: list[CallCount] = []
        self._values: list[tuple[str, str, str, dict[str, str], Read]] = []
        self._families_of: list[Callable[[], Iterable[Metric]]] = []
        self._bare: list[str] = []
        self.unary_requests, self.stream_requests = ClientRequests("unary"), ClientRequests("stream")
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(_Values(self._families))
        if process:
            ProcessCollector(registry=self.registry)
            PlatformCollector(registry=self.registry)
            GCCollector(registry=self.registry)
            self.gauge(
                "os_fd_limit", "Files this process may have open.", lambda: getrlimit(RLIMIT_NOFILE)[0]
            )
            self.gauge("os_fd_used", "Files it has open.", lambda: len(os.listdir("/proc/self/fd")))

    def call(self, service: str, method: str, kind: str) -> CallCount:
        """A counter for one method; `kind` is ``unary``, ``server_stream`` or ``bidi_stream``."""
        count = CallCount(service, method, kind)
        self._calls.append(count)
        return count

    def gauge(self, name: str, help: str, read: Read, **labels: str) -> None:
        """Show what `read` returns whenever the metrics are fetched."""
        self._values.append(("gauge", name, help, labels, read))

    def counter(self, name: str, help: str, read: Read, **labels: str) -> None:
        """Show a number that only grows, read whenever the metrics are fetched; `name` without ``_total``."""
        self._values.append(("counter", name, help, labels, read))

    def bare_counter(self, name: str, help: str, read: Read) -> None:
        """A counter whose name does not end in ``_total``, as some of etcd's do not.

        The library gives that ending to every counter: it is shown as a gauge, and named anew in `text`.
        """
        self._bare.append(name)
        self.gauge(name, help, read)

    def families(self, read: Callable[[], Iterable[Metric]]) -> None:
        """Show whole families: those whose labels are not known before."""
        self._families_of.append(read)

    def durations(self, name: str, help: str) -> Histogram:
        """How long something takes that an operator asks for: seconds to minutes."""
        return Histogram(name, help, buckets=_DURATIONS, registry=self.registry)

    def calls(self) -> int:
        """How many calls of clients have begun."""
        return sum(call.started for call in self._calls)

    def failed_calls(self) -> int:
        """How many have failed, for whatever reason but that nobody waited for their answer any more."""
        return sum(
            times for call in self._calls for code, times in call.failed.items() if code != "Cancelled"
        )

    def failed_writes(self) -> int:
        """How many calls that write failed for the cluster's reasons, not for the caller's."""
        return sum(
            call.failed.get(code, 0)
            for call in self._calls
            if call.method in _WRITES
            for code in ("Unavailable", "DeadlineExceeded", "ResourceExhausted")
        )

    def text(self) -> bytes:
        """The Prometheus text format."""
        text = generate_latest(_WithoutDates(self.registry))
        for name in self._bare:
            text = text.replace(f"# TYPE {name} gauge\n".encode(), f"# TYPE {name} counter\n".encode())
        return text

    def _families(self) -> Iterator[Metric]:
        yield from self._call_families()
        yield self._client_requests()
        families: dict[str, Metric] = {}
        for kind, name, help, labels, read in self._values:
            family = families.get(name)
            if family is None:
                make = GaugeMetricFamily if kind == "gauge" else CounterMetricFamily
                family = families[name] = make(name, help, labels=list(labels))
            suffix = "" if kind == "gauge" else "_total"
            family.add_sample(name + suffix, labels, float(read()))
        yield from families.values()
        for several in self._families_of:
            yield from several()

    def _client_requests(self) -> Metric:
        labels = ["type", "client_api_version"]
        requests = CounterMetricFamily("etcd_server_client_requests", "Calls of clients.", labels=labels)
        for form in (self.unary_requests, self.stream_requests):
            for version, times in form.counts.items():
                requests.add_metric([form.type, version], float(times))
        return requests

    def _call_families(self) -> Iterator[Metric]:
        started = CounterMetricFamily("grpc_server_started", "RPCs started on the server.")
        handled = CounterMetricFamily("grpc_server_handled", "RPCs completed on the server.")
        received = CounterMetricFamily("grpc_server_msg_received", "Messages received from clients.")
        sent = CounterMetricFamily("grpc_server_msg_sent", "Messages sent to clients.")
        for call in self._calls:
            if not call.started:
                continue
            labels = {"grpc_service": call.service, "grpc_method": call.method, "grpc_type": call.kind}
            started.add_sample("grpc_server_started_total", labels, float(call.started))
            received.add_sample("grpc_server_msg_received_total", labels, float(call.received))
            sent.add_sample("grpc_server_msg_sent_total", labels, float(call.sent))
            for code, times in {"OK": call.ok, **call.failed}.items():
                if times:
                    handled.add_sample(
                        "grpc_server_handled_total", {**labels, "grpc_code": code}, float(times)
                    )
        yield from (started, handled, received, sent)
        for name, help, total in (
            ("received", "Bytes of the messages of clients.", sum(one.received_bytes for one in self._calls)),
            ("sent", "Bytes of the messages to clients.", sum(one.sent_bytes for one in self._calls)),
        ):
            yield CounterMetricFamily(f"etcd_network_client_grpc_{name}_bytes", help, total)


class _WithoutDates(CollectorRegistry):
    """A registry without when each of its series began.

    The library adds a ``_created`` beside every counter and histogram: as many series again, which nobody
    reads. It can leave them out for a whole process only, and a member may be part of a user's program.
    """

    def __init__(self, whole: CollectorRegistry) -> None:
        super().__init__()
        self._whole = whole

    def collect(self) -> Iterator[Metric]:
        for metric in self._whole.collect():
            metric.samples = [one for one in metric.samples if not one.name.endswith("_created")]
            yield metric


class _Values(Collector):
    """The form the library asks for."""

    def __init__(self, families: Callable[[], Iterator[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return self._families()

    def describe(self) -> Iterator[Metric]:
        return iter(())
