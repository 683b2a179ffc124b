"""Every handler answers under both names, with etcd's statuses, and ends streams for a reason."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from connect_kv.errors import CommandFailed, NoLeader, OutcomeUnknown
from connect_kv.rpc import kv_pb2, watch_pb2
from connect_kv.services.caller import Caller, Channel
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

    async def Watch(self, channel: Channel[watch_pb2.WatchRequest]) -> None:
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
    assert (code, text) == (grpc.StatusCode.UNKNOWN, "ZeroDivisionError: division by zero")
    assert "call failed" in caplog.text


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
        guard = asyncio.create_task(streams.watch_leader(asyncio.sleep))
        leader[0] = False
        assert await asked.code() is grpc.StatusCode.UNAVAILABLE
        assert await asked.details() == "etcdserver: no leader"
        assert streams.count == 1
        guard.cancel()
        other.cancel()
