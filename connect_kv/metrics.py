"""What this process counts, and its Prometheus text.

Hot paths add to plain integers (`CallCount`, no lock, no label lookup); the collector reads them
when it is asked. Values that others keep anyway are read then too, through `gauge` and `counter`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Read = Callable[[], float]


_WRITES = frozenset(("Put", "DeleteRange", "Txn", "Compact", "LeaseGrant", "LeaseRevoke"))


class CallCount:
    """How often one gRPC method was called, and how it ended."""

    __slots__ = ("failed", "kind", "method", "ok", "service", "started")

    def __init__(self, service: str, method: str, kind: str) -> None:
        self.service = service
        self.method = method
        self.kind = kind
        self.started = 0
        self.ok = 0
        self.failed: dict[str, int] = {}
        """By gRPC code, as in ``Unavailable``."""

    def fail(self, code: str) -> None:
        """Count an end with `code`, such as ``DEADLINE_EXCEEDED``."""
        name = "".join(word.capitalize() for word in code.split("_"))
        self.failed[name] = self.failed.get(name, 0) + 1


class Metrics:
    """Everything one node shows; each node has its own, so that several fit in one process."""

    def __init__(self, *, process: bool = True) -> None:
        self._calls: list[CallCount] = []
        self._values: list[tuple[str, str, str, dict[str, str], Read]] = []
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(_Values(self._families))
        if process:
            ProcessCollector(registry=self.registry)
            PlatformCollector(registry=self.registry)
            GCCollector(registry=self.registry)

    def call(self, service: str, method: str, kind: str) -> CallCount:
        """A counter for one method; `kind` is ``unary``, ``server_stream`` or ``bidi_stream``."""
        count = CallCount(service, method, kind)
        self._calls.append(count)
        return count

    def gauge(self, name: str, help: str, read: Read, **labels: str) -> None:
        """Show what `read` returns whenever the metrics are fetched."""
        self._values.append(("gauge", name, help, labels, read))

    def counter(self, name: str, help: str, read: Read, **labels: str) -> None:
        """The same for a number that only grows; `name` without ``_total``."""
        self._values.append(("counter", name, help, labels, read))

    def answered(self, service: str, method: str) -> int:
        """How many calls of that method succeeded, under whichever name of the service."""
        return sum(
            call.ok for call in self._calls if call.method == method and call.service.endswith(f".{service}")
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
        return generate_latest(self.registry)

    def _families(self) -> Iterator[Metric]:
        yield from self._call_families()
        families: dict[str, Metric] = {}
        for kind, name, help, labels, read in self._values:
            family = families.get(name)
            if family is None:
                make = GaugeMetricFamily if kind == "gauge" else CounterMetricFamily
                family = families[name] = make(name, help, labels=list(labels))
            suffix = "" if kind == "gauge" else "_total"
            family.add_sample(name + suffix, labels, float(read()))
        yield from families.values()

    def _call_families(self) -> Iterator[Metric]:
        started = CounterMetricFamily("grpc_server_started", "RPCs started on the server.")
        handled = CounterMetricFamily("grpc_server_handled", "RPCs completed on the server.")
        for call in self._calls:
            if not call.started:
                continue
            labels = {"grpc_service": call.service, "grpc_method": call.method, "grpc_type": call.kind}
            started.add_sample("grpc_server_started_total", labels, float(call.started))
            for code, times in {"OK": call.ok, **call.failed}.items():
                if times:
                    handled.add_sample(
                        "grpc_server_handled_total", {**labels, "grpc_code": code}, float(times)
                    )
        yield started
        yield handled


class _Values(Collector):
    """The form the library asks for."""

    def __init__(self, families: Callable[[], Iterator[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return self._families()

    def describe(self) -> Iterator[Metric]:
        return iter(())
