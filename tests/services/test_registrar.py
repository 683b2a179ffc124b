"""Every handler answers under both names, with etcd's statuses, and ends streams for a reason."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from connect_kv.errors import CommandFailed, NoLeader, OutcomeUnknown
from connect_kv.rpc import kv_pb2, watch_pb2
from connect_kv.services.caller import Caller, RequestStream
from connect_kv.services.status import UNEXPECTED, failure_of
from tests.services.conftest import listed, serving, streaming, unary, until

PUT = kv_pb2.PutRequest(key=b"k", value=b"v")


class Keys:
    """Answers each put by what `error` says."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def Put(self, request: kv_pb2.PutRequest, caller: Caller) -> kv_pb2.PutResponse:
        if self.error is not None:
            raise self.error
        return kv_pb2.PutResponse(header=kv_pb2.ResponseHeader(revision=len(request.key)))

    async def RangeStream(
        self, request: kv_pb2.RangeRequest, caller: Caller
    ) -> AsyncIterator[kv_pb2.RangeStreamResponse]:
        for key in (b"a", b"b"):
            yield kv_pb2.RangeStreamResponse(
                range_response=kv_pb2.RangeResponse(kvs=[kv_pb2.KeyValue(key=key)])
            )


class Silent:
    """A watch that never says anything."""

    async def Watch(self, channel: RequestStream[watch_pb2.WatchRequest]) -> None:
        await asyncio.Event().wait()


async def put(channel: grpc.aio.Channel, name: str, metadata: tuple[tuple[str, str], ...] = ()) -> bytes:
    call = unary(channel, f"/{name}/Put")
    answer: bytes = await call(PUT.SerializeToString(), metadata=metadata)
    return answer


async def status(channel: grpc.aio.Channel, name: str, **options: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await put(channel, name, **options)  # type: ignore[arg-type]
    return raised.value.code(), raised.value.details() or ""


@pytest.mark.parametrize("name", ["connect_kv.v1.KV", "etcdserverpb.KV"])
async def test_a_method_answers_under_both_names(name: str) -> None:
    async with serving({"KV": Keys()}) as (channel, _, metrics):
        response = kv_pb2.PutResponse.FromString(await put(channel, name))
        assert response.header.revision == 1
        count = f'grpc_code="OK",grpc_method="Put",grpc_service="{name}",grpc_type="unary"}} 1.0'
        assert count.encode() in metrics.text()


@pytest.mark.parametrize(
    ("path", "request_bytes"),
    [
        ("/etcdserverpb.KV/Txn", b""),
        ("/etcdserverpb.Auth/Authenticate", b"\n\x04root"),
        ("/v3lockpb.Lock/Lock", b""),
        ("/v3electionpb.Election/Leader", b""),
        ("/connect_kv.v1.Maintenance/HashKV", b""),
    ],
)
async def test_what_is_missing_is_unimplemented_by_name(path: str, request_bytes: bytes) -> None:
    async with serving({"KV": Keys()}) as (channel, _, _metrics):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await unary(channel, path)(request_bytes)
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert path.strip("/") in (raised.value.details() or "")


async def test_a_stream_that_is_missing_is_unimplemented_by_name() -> None:
    async with serving({}) as (channel, _, _metrics):
        call = streaming(channel, "/etcdserverpb.Watch/Watch")
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "etcdserverpb.Watch/Watch" in await call.details()


async def test_errors_become_etcds_statuses() -> None:
    keys = Keys(NoLeader())
    async with serving({"KV": keys}) as (channel, _, _metrics):
        assert await status(channel, "etcdserverpb.KV") == (
            grpc.StatusCode.UNAVAILABLE,
            "etcdserver: no leader",
        )
        keys.error = OutcomeUnknown()
        code, text = await status(channel, "etcdserverpb.KV")
        assert code is grpc.StatusCode.UNAVAILABLE
        assert text.startswith("etcdserver: request timed out")
        assert "unknown" in text
        keys.error = CommandFailed("ValueError", "no such account")
        assert await status(channel, "etcdserverpb.KV") == (
            grpc.StatusCode.ABORTED,
            "ValueError: no such account",
        )


async def test_an_unexpected_error_is_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with serving({"KV": Keys(ZeroDivisionError("division by zero"))}) as (channel, _, _metrics):
        code, text = await status(channel, "etcdserverpb.KV")
    assert (code, text) == (grpc.StatusCode.UNKNOWN, UNEXPECTED), "our classes are nothing to a client"
    assert "call failed" in caplog.text
    assert "ZeroDivisionError: division by zero" in caplog.text


async def test_an_unexpected_error_within_a_session_is_logged_too(caplog: pytest.LogCaptureFixture) -> None:
    assert failure_of(KeyError("x")).message == UNEXPECTED
    assert "KeyError: 'x'" in caplog.text


async def test_no_exception_of_pythons_own_is_named_beside_a_status() -> None:
    """Only those of `connect_kv.errors`, which our client knows."""
    async with serving({"KV": Keys(TimeoutError("late"))}) as (channel, _, _metrics):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await put(channel, "etcdserverpb.KV")
    assert raised.value.details() == "etcdserver: request timed out"
    assert not raised.value.trailing_metadata()


CUT_OFF = "unexpected EOF"
OTHER = "proto: cannot parse invalid wire-format data"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x0a\x05a", CUT_OFF),
        (b"\x18", CUT_OFF),
        (b"\x09\x01", CUT_OFF),
        (b"\x0f", OTHER),
        (b"\x0c", OTHER),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", OTHER),
    ],
)
async def test_bytes_that_are_no_message_are_told_so_in_etcds_words(data: bytes, reason: str) -> None:
    async with serving({"KV": Keys(), "Watch": Silent()}) as (channel, _, _metrics):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await unary(channel, "/etcdserverpb.KV/Put")(data)
        assert raised.value.code() is grpc.StatusCode.INTERNAL
        assert raised.value.details() == f"grpc: error unmarshalling request: {reason}"
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await listed(channel, "/etcdserverpb.KV/RangeStream", data, kv_pb2.RangeStreamResponse)
        assert raised.value.code() is grpc.StatusCode.INTERNAL
        assert raised.value.details() == f"grpc: failed to unmarshal the received message: {reason}"


class Listening:
    """A watch that reads."""

    async def Watch(self, channel: RequestStream[watch_pb2.WatchRequest]) -> None:
        while await channel.read() is not None:
            pass


async def test_a_stream_ends_at_bytes_that_are_no_message() -> None:
    async with serving({"Watch": Listening()}) as (channel, _, metrics):
        call = streaming(channel, "/etcdserverpb.Watch/Watch")
        await call.write(watch_pb2.WatchRequest().SerializeToString())
        await call.write(b"\x0a\x05a")
        assert await call.code() is grpc.StatusCode.INTERNAL
        assert await call.details() == f"grpc: failed to unmarshal the received message: {CUT_OFF}"
        assert b'grpc_code="Internal",grpc_method="Watch"' in metrics.text()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/etcdserverpb.KV/Foo", "unknown method Foo for service etcdserverpb.KV"),
        ("/foo.Bar/Baz", "unknown service foo.Bar"),
        ("/foo/bar/baz", "unknown service foo/bar"),
        ("/foo", 'malformed method name: "/foo"'),
    ],
)
async def test_what_nobody_knows_is_unimplemented_in_etcds_words(path: str, text: str) -> None:
    async with serving({"KV": Keys()}) as (channel, _, _metrics):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await unary(channel, path)(b"")
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert raised.value.details() == text
        call = streaming(channel, path)
        assert await call.details() == text


async def test_hasleader_is_refused_at_once_without_a_leader() -> None:
    async with serving({"KV": Keys()}, has_leader=lambda: False) as (channel, _, _metrics):
        assert await put(channel, "etcdserverpb.KV")
        code, text = await status(channel, "etcdserverpb.KV", metadata=(("hasleader", "true"),))
    assert (code, text) == (grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")


async def test_a_server_stream_arrives_whole() -> None:
    async with serving({"KV": Keys()}) as (channel, _, _metrics):
        path = "/etcdserverpb.KV/RangeStream"
        chunks = await listed(channel, path, b"", kv_pb2.RangeStreamResponse)
    assert [chunk.range_response.kvs[0].key for chunk in chunks] == [b"a", b"b"]


async def test_streams_end_unavailable_when_the_server_stops() -> None:
    """A clean end would tell an etcd client that its watch is over for good."""
    async with serving({"Watch": Silent()}) as (channel, streams, _metrics):
        call = streaming(channel, "/etcdserverpb.Watch/Watch")
        await call.write(watch_pb2.WatchRequest().SerializeToString())
        await until(lambda: streams.count == 1)
        streams.stop()
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert await call.details() == "etcdserver: server stopped"


async def test_a_stream_that_asked_for_a_leader_ends_without_one() -> None:
    leader = [True]
    async with serving({"Watch": Silent()}, has_leader=lambda: leader[0]) as (channel, streams, _metrics):
        asked = streaming(channel, "/etcdserverpb.Watch/Watch", ("hasleader", "true"))
        other = streaming(channel, "/etcdserverpb.Watch/Watch")
        await until(lambda: streams.count == 2)
        leader[0] = False
        streams.leader_changed()
        assert await asked.code() is grpc.StatusCode.UNAVAILABLE
        assert await asked.details() == "etcdserver: no leader"
        assert streams.count == 1
        other.cancel()
