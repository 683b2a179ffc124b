"""Traces by OpenTelemetry: needs the extra, ``pip install connect-kv[tracing]``.

A member started with ``--tracing`` sends its spans by OTLP over HTTP, to where OpenTelemetry's own variables
say (``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_SERVICE_NAME``, ...). A program that traces itself carries its
current span to the members by `carried`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from connect_kv import tracing
from connect_kv.errors import ConfigError
from connect_kv.tracing import Attributes, OpenSpan, SpanKind

try:
    from opentelemetry import trace
    from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as error:
    raise ConfigError(f"traces need the extra: pip install 'connect-kv[tracing]' ({error})") from error

_KINDS = {SpanKind.SERVER: trace.SpanKind.SERVER, SpanKind.INTERNAL: trace.SpanKind.INTERNAL}
_propagator = TraceContextTextMapPropagator()


class OtelTracer:
    """`connect_kv.tracing.Tracer` over a provider of OpenTelemetry's."""

    def __init__(self, provider: trace.TracerProvider) -> None:
        self._tracer = provider.get_tracer("connect_kv")

    def begin(self, name: str, parent: str, kind: SpanKind, attributes: Attributes) -> OpenSpan:
        """A span begins now, below the one that `parent` names."""
        context = _propagator.extract({tracing.HEADER: parent})
        return _OtelSpan(self._tracer.start_span(name, context, _KINDS[kind], dict(attributes)))


class _OtelSpan:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        return _traceparent(self._span)

    def end(self, attributes: Attributes | None = None, error: str = "") -> None:
        self._span.set_attributes(dict(attributes or {}))
        if error:
            self._span.set_status(trace.Status(trace.StatusCode.ERROR, error))
        self._span.end()


def exporting(member: str) -> tuple[OtelTracer, Callable[[], None]]:
    """One that sends by OTLP, and what ends it: what was not sent yet is. Raises ConfigError."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(f"traces need the extra: pip install 'connect-kv[tracing]' ({error})") from error
    ours = Resource({SERVICE_NAME: "connect-kv", SERVICE_INSTANCE_ID: member})
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return OtelTracer(provider), provider.shutdown


@contextmanager
def carried() -> Iterator[None]:
    """Within it, single calls of the Python client belong to OpenTelemetry's current span."""
    with tracing.carried(_traceparent(trace.get_current_span())):
        yield


def _traceparent(span: trace.Span) -> str:
    context = span.get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
