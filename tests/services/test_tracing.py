"""A put that asks to be traced leaves one trace: the call, the proposal, all disks and states."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import aiohttp
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import connect_kv
from connect_kv import errors, otel, tracing
from connect_kv.config import ServerConfig
from connect_kv.rpc.command_pb2 import Command, CommandBatch
from connect_kv.rpc.kv_pb2 import PutRequest
from connect_kv.server.composition import KvServer, Seams
from connect_kv.statemachine import batches
from tests.doors import GRPC_SERVER
from tests.services.cluster import Member, agree, configs
from tests.services.conftest import unary, until

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
"""As a program of any language may send it."""
SHOWN = (("traceparent", PARENT),)
ITS_SPAN = 0xB7AD6B7169203331


class Traced(Member):
    """A member whose spans go where those of the others go."""

    def __init__(self, config: ServerConfig, provider: TracerProvider) -> None:
        super().__init__(config)
        self.server = KvServer(config, seams=Seams(tracer=otel.OtelTracer(provider)))


class Traces:
    """Three members in this process, and all their spans."""

    def __init__(self, directory: Path) -> None:
        self.spans = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.members = [Traced(config, self.provider) for config in configs(directory, 3)]

    @property
    def leader(self) -> Member:
        return next(one for one in self.members if one.server.node.is_leader)

    @property
    def followers(self) -> list[Member]:
        return [one for one in self.members if not one.server.node.is_leader]

    async def ended(self, count: int) -> Sequence[ReadableSpan]:
        """All of them, once there are so many."""
        await until(lambda: len(self.spans.get_finished_spans()) >= count)
        return self.spans.get_finished_spans()


@pytest.fixture
async def traces(tmp_path: Path) -> AsyncIterator[Traces]:
    found = Traces(tmp_path)
    started = []
    try:
        for member in found.members:
            await member.start()
            started.append(member)
        await until(lambda: agree(found.members))
        for member in found.members:
            await member.server.node.read_barrier()
        yield found
    finally:
        await asyncio.gather(*(member.stop() for member in started))


def checked(spans: Sequence[ReadableSpan], call: str, above: int) -> None:
    """One trace of one write: everything below the call, which is below `above`."""
    assert len({span.context.trace_id for span in spans}) == 1
    by_id = {span.context.span_id: span for span in spans}
    names = Counter(span.name for span in spans)
    assert names == {call: 1, "connect_kv.propose": 1, "connect_kv.log.write": 3, "connect_kv.apply": 3}
    for span in spans:
        assert span.parent is not None
        if span.name == call:
            assert span.parent.span_id == above
            continue
        wanted = call if span.name == "connect_kv.propose" else "connect_kv.propose"
        assert by_id[span.parent.span_id].name == wanted
        outer = by_id[span.parent.span_id]
        assert span.start_time is not None
        assert outer.start_time is not None
        assert span.start_time >= outer.start_time
    for name in ("connect_kv.log.write", "connect_kv.apply"):
        of = [dict(span.attributes or {}) for span in spans if span.name == name]
        assert {one["connect_kv.member"] for one in of} == {"n1", "n2", "n3"}
        assert len({(one["connect_kv.raft.term"], one["connect_kv.raft.index"]) for one in of}) == 1


@pytest.mark.parametrize("through", ["leader", "follower"])
async def test_a_put_from_client_to_every_disk_and_back_is_one_trace(traces: Traces, through: str) -> None:
    asked = traces.leader if through == "leader" else traces.followers[0]
    tracer = traces.provider.get_tracer("a program")
    async with connect_kv.connect(asked.server.client_address, session=False) as client:
        with tracer.start_as_current_span("work") as work, otel.carried():
            await client.put("k", "v")
        found = await traces.ended(9)
    (mine,) = (span for span in found if span.name == "work")
    assert mine.context.trace_id == work.get_span_context().trace_id
    rest = [span for span in found if span is not mine]
    assert {span.context.trace_id for span in rest} == {mine.context.trace_id}
    checked(rest, "connect_kv.v1.KV/Put", mine.context.span_id)
    (call,) = (span for span in rest if span.name == "connect_kv.v1.KV/Put")
    assert dict(call.attributes or {}) == {
        "rpc.system": "grpc",
        "rpc.service": "connect_kv.v1.KV",
        "rpc.method": "Put",
        "rpc.grpc.status_code": 0,
    }
    assert call.kind.name == "SERVER"


async def test_the_header_of_any_grpc_client_is_taken(traces: Traces) -> None:
    method = unary(traces.followers[0].channel, "/etcdserverpb.KV/Put")
    await method(PutRequest(key=b"k", value=b"v").SerializeToString(), timeout=10, metadata=SHOWN)
    checked(await traces.ended(8), "etcdserverpb.KV/Put", ITS_SPAN)


@pytest.mark.skipif(GRPC_SERVER != "door", reason="the gRPC library has no gateway on the clients' port")
async def test_the_header_of_a_client_of_the_gateway_is_taken(traces: Traces) -> None:
    url = f"http://{traces.leader.server.client_address}/v3/kv/put"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json={"key": "aw==", "value": "dg=="}, headers={"traceparent": PARENT}) as answer,
    ):
        assert answer.status == 200
    checked(await traces.ended(8), "etcdserverpb.KV/Put", ITS_SPAN)


async def test_traced_and_other_puts_that_come_together(traces: Traces) -> None:
    """Each gets its own answer; the others leave no span."""
    channel = traces.followers[0].channel
    put = unary(channel, "/connect_kv.v1.KV/Put")
    puts = [
        put(
            PutRequest(key=b"%d" % number, value=b"v").SerializeToString(),
            timeout=10,
            metadata=None if number % 10 else SHOWN,
        )
        for number in range(50)
    ]
    await asyncio.gather(*puts)
    found = await traces.ended(5 * 8)
    assert Counter(span.name for span in found)["connect_kv.v1.KV/Put"] == 5
    async with connect_kv.connect(traces.leader.server.client_address, session=False) as client:
        assert len(await client.get_prefix("")) == 50


async def test_what_is_refused_says_so_and_reads_are_told_too(traces: Traces) -> None:
    address = traces.leader.server.client_address
    async with connect_kv.connect(address, session=False) as client:
        with tracing.carried(PARENT):
            with pytest.raises(errors.Refused):
                await client.put("", "v")
            await client.get("k")
        put, get = await traces.ended(2)
    assert (put.name, dict(put.attributes or {})["rpc.grpc.status_code"]) == ("connect_kv.v1.KV/Put", 3)
    assert put.status.description == "etcdserver: key is not provided"
    assert (get.name, get.status.is_ok) == ("connect_kv.v1.KV/Range", True)


async def test_without_a_sampled_header_there_is_nothing(traces: Traces) -> None:
    without_id = "00-" + "0" * 32 + PARENT[35:]
    put = unary(traces.leader.channel, "/connect_kv.v1.KV/Put")
    for header in ("", PARENT[:-2] + "00", PARENT[:-1], without_id, "x" * 4000, PARENT + "-more"):
        request = PutRequest(key=b"k", value=header.encode()[:9]).SerializeToString()
        await put(request, timeout=10, metadata=(("traceparent", header),))
    for member in traces.members:
        await member.server.node.read_barrier()
    assert traces.spans.get_finished_spans() == ()
    assert tracing.sampled("01" + PARENT[2:] + "-of-a-later-version")


def test_the_trace_in_an_entry_changes_nothing_else_of_it() -> None:
    """Members of an earlier version read such an entry: the field is one they pass over."""
    payload = CommandBatch(log_time=5, commands=[Command(put=PutRequest(key=b"k"))])
    data = batches.traced(payload.SerializeToString(), PARENT) + batches.traced(b"", "another")
    found = CommandBatch.FromString(data)
    assert list(batches.traces(data)) == [PARENT, "another"] == list(found.traces)
    found.ClearField("traces")
    assert found == payload
    assert list(batches.traces(b"\xff")) == []


def test_spans_leave_by_otlp_to_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        try:
            tracer, end = otel.exporting("n1")
            tracer.begin("a.name", PARENT, tracing.SpanKind.SERVER, {"k": 1}).end()
            end()
        finally:
            collector.shutdown()
            thread.join()
    ((path, body),) = taken
    assert path == "/v1/traces"
    sent = ExportTraceServiceRequest.FromString(body)
    (resource,) = sent.resource_spans
    named = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert (named["service.name"], named["service.instance.id"]) == ("connect-kv", "n1")
    (span,) = resource.scope_spans[0].spans
    assert (span.name, span.trace_id.hex(), span.parent_span_id.hex()) == (
        "a.name",
        PARENT[3:35],
        PARENT[36:52],
    )


def test_without_the_extra_the_option_is_refused_by_name(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None; sys.argv[0] = 'connect-kv'; "
        "from connect_kv.cli.main import main; main()"
    )
    words = ["serve", "--tracing", "--data-dir", str(tmp_path / "d"), "--listen-client", "127.0.0.1:0"]
    words += ["--listen-peer", "127.0.0.1:0", "--listen-http", "127.0.0.1:0"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "pip install 'connect-kv[tracing]'" in done.stderr
    assert "Traceback" not in done.stderr
