"""gRPC's C core, as it is in grpcio, against our server."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from connect_kv.http2.frames import HEADERS, PING, RST_STREAM, WINDOW_UPDATE
from connect_kv.http2.limits import Limits
from connect_kv.http2.listener import Http2Server
from tests.http2.conftest import Service, server_context, until
from tests.http2.recorded import Recorded, recorded

__all__ = ["recorded"]

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Client:
    def __init__(self, port: int, channel: grpc.aio.Channel | None = None) -> None:
        self.channel = channel or grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=UNLIMITED)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.channel.close()

    def call(self, method: str, body: bytes = b"", **options: Any) -> Any:
        begin: Any = self.channel.unary_unary(f"/t.T/{method}")
        return begin(body, **options)

    def stream(self, method: str, **options: Any) -> Any:
        return self.channel.stream_stream(f"/t.T/{method}")(**options)


async def codes(calls: list[Any]) -> Counter[grpc.StatusCode]:
    """How these calls end."""

    async def code(call: Any) -> grpc.StatusCode:
        result: grpc.StatusCode = await call.code()
        return result

    return Counter(await asyncio.gather(*map(code, calls)))


async def test_calls_of_any_size(server: Http2Server, recorded: Recorded) -> None:
    async with Client(await server.listen("127.0.0.1", 0)) as client:
        for size in (0, 1, 16_379, 16_380, 100_000, 1 << 20, 2_000_000):
            assert await client.call("Size", b"%d" % size) == b"v" * size
            assert await client.call("Echo", b"w" * size) == b"w" * size


async def test_small_calls_stay_on_the_short_path(
    server: Http2Server, service: Service, recorded: Recorded
) -> None:
    """Half of its frames are WINDOW_UPDATE, also between HEADERS and DATA; its blocks are soon alike."""
    async with Client(await server.listen("127.0.0.1", 0)) as client:
        for _ in range(50):
            await client.call("Echo", b"x")
        kinds = recorded.kinds()
        assert kinds[WINDOW_UPDATE] >= kinds[HEADERS]
        assert recorded.decoded < 10
        # The first one taught the client the fields of every answer.
        assert all(call.parts is None for calls in service.batches[1:] for call in calls)


async def test_deadlines_of_rounded_seconds_are_found_without_decoding(
    server: Http2Server, recorded: Recorded
) -> None:
    async with Client(await server.listen("127.0.0.1", 0)) as client:
        for _ in range(50):
            await client.call("Echo", b"x", timeout=10)
        assert recorded.decoded < 20


async def test_a_status_with_its_text_and_metadata(server: Http2Server) -> None:
    async with Client(await server.listen("127.0.0.1", 0)) as client:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await client.call("Fail")
        assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert raised.value.details() == "größer als 50%"
        assert dict(raised.value.trailing_metadata() or ()) == {"reason": "size", "detail-bin": b"\0\xff"}
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await client.call("None")
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert raised.value.details() == "unknown method None for service t.T"


async def test_the_largest_status_that_we_send_arrives(service: Service) -> None:
    """Above 16 KiB of fields it would lose the answer, above 8 KiB now and then."""

    def fail(calls: list[Any]) -> None:
        for call in calls:
            size = int(call.message)
            call.fail(9, "ü" * 10_000, [("x", "v" * size)])

    server = Http2Server({"/t.T/Fail": fail})
    async with Client(await server.listen("127.0.0.1", 0)) as client:
        for _ in range(20):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await client.call("Fail", b"3500")
            assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert set((raised.value.details() or "").partition("... (cut:")[0]) == {"ü"}
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await client.call("Fail", b"9000")
        assert raised.value.code() is grpc.StatusCode.INTERNAL
    await server.stop(0)


async def test_metadata_in_both_directions(server: Http2Server, service: Service) -> None:
    async with Client(await server.listen("127.0.0.1", 0)) as client:
        await client.call("Echo", metadata=[("token", "t"), ("x-bin", b"\0\xff")])
        metadata = dict(service.batches[0][0].metadata)
        assert (metadata["token"], metadata["x-bin"]) == ("t", b"\0\xff")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await client.call("Echo", metadata=[("x", "v" * 90_000)])
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "received metadata size exceeds" in (raised.value.details() or "")
        await client.call("Echo")


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_requests(server: Http2Server, compression: grpc.Compression) -> None:
    async with Client(await server.listen("127.0.0.1", 0)) as client:
        assert await client.call("Echo", b"v" * 10_000, compression=compression) == b"v" * 10_000


async def test_the_limit_of_streams_is_kept_to_because_it_is_announced_at_once(service: Service) -> None:
    """It never repeats a refused stream, and does not follow a later change well."""
    server = service.server(Limits(streams=10))
    async with Client(await server.listen("127.0.0.1", 0)) as client:
        calls = [client.call("Echo", b"%d" % number) for number in range(500)]
        assert await codes(calls) == {grpc.StatusCode.OK: 500}
        assert max(map(len, service.batches)) <= 10
    await server.stop(0)


async def test_calls_with_one_deadline_do_not_end_the_connection_and_are_not_carried_out_dead(
    server: Http2Server, service: Service, recorded: Recorded
) -> None:
    """1,500 calls are 1,500 resets at one moment; the next call on this connection goes on as before."""
    async with Client(await server.listen("127.0.0.1", 0)) as client:
        await client.call("Echo")
        service.hold.set()
        calls = [client.call("Echo", timeout=0.7) for _ in range(1500)]
        assert await codes(calls) == {grpc.StatusCode.DEADLINE_EXCEEDED: 1500}
        service.hold.clear()
        await client.call("Echo", b"alive")
        assert len(recorded.connections) == 1
        assert all(call.gone() for call in service.held)
        for call in service.held:
            call.reply(b"late")
        await client.call("Echo", b"alive")
        await until(lambda: server.unanswered == 0)


async def test_thousands_of_cancelled_calls_do_not_end_the_connection(
    server: Http2Server, service: Service, recorded: Recorded
) -> None:
    async with Client(await server.listen("127.0.0.1", 0)) as client:
        service.hold.set()
        calls = [client.call("Slow") for _ in range(2000)]
        await until(lambda: server.unanswered == 2000)
        for call in calls:
            call.cancel()
        await until(lambda: not server.unanswered)
        service.hold.clear()
        assert await client.call("Echo", b"alive") == b"alive"
        assert len(recorded.connections) == 1
        assert recorded.kinds()[RST_STREAM] >= 2000


async def test_hundreds_of_streams_are_given_up_at_once(server: Http2Server, service: Service) -> None:
    async with Client(await server.listen("127.0.0.1", 0)) as client:
        streams = [client.stream("Both") for _ in range(1500)]
        for stream in streams:
            await stream.write(b"x")
        for stream in streams:
            assert await stream.read() == b"x"
        for stream in streams:
            stream.cancel()
        await until(lambda: service.cancelled == 1500)
        assert await client.call("Echo", b"alive") == b"alive"


async def test_streams_in_both_directions(server: Http2Server) -> None:
    async with Client(await server.listen("127.0.0.1", 0)) as client:
        stream = client.stream("Both")
        for size in (0, 1, 100, 100_000, 2_000_000):
            await stream.write(b"v" * size)
            assert await stream.read() == b"v" * size
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK


async def test_a_stream_that_the_server_ends_before_the_client(
    server: Http2Server, service: Service, recorded: Recorded
) -> None:
    async with Client(await server.listen("127.0.0.1", 0)) as client:
        for _ in range(3):
            stream = client.stream("OneThenFail")
            await stream.write(b"")
            assert await stream.read() == b"one"
            with pytest.raises(grpc.aio.AioRpcError, match="then none"):
                await stream.read()
            assert await stream.code() is grpc.StatusCode.NOT_FOUND
        assert await client.call("Echo", b"alive") == b"alive"
        assert len(recorded.connections) == 1


async def test_a_client_that_stops_reading_does_not_stop_others(
    server: Http2Server, service: Service
) -> None:
    port = await server.listen("127.0.0.1", 0)
    async with Client(port) as client:
        endless = client.stream("Endless")
        assert await endless.read() == b"v" * 1000
        assert await client.call("Echo", b"x") == b"x"
        (socket,) = server.sockets
        await until(lambda: socket._core is not None and socket._core.waiting)
        assert await client.call("Echo", b"x") == b"x"
        endless.cancel()
        await until(lambda: service.cancelled == 1)


async def test_a_drain_is_not_seen(service: Service) -> None:
    """Calls without pause while one server leaves and the next one comes on the same port."""
    server = service.server()
    port = await server.listen("127.0.0.1", 0)
    ended: Counter[grpc.StatusCode] = Counter()
    stop = asyncio.Event()

    async def work(client: Client) -> None:
        while not stop.is_set():
            ended[await client.call("Echo", b"x", wait_for_ready=True).code()] += 1

    async with Client(port) as client, asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(work(client))
        for _ in range(3):
            before = ended[grpc.StatusCode.OK]
            await until(lambda before=before: ended[grpc.StatusCode.OK] > before + 200)  # type: ignore[misc]
            other = service.server()
            stopping = asyncio.ensure_future(server.stop(10))
            await until(lambda server=server: server.stopping)  # type: ignore[misc]
            await other.listen("127.0.0.1", port)
            await stopping
            server = other
        stop.set()
    assert set(ended) == {grpc.StatusCode.OK}
    await server.stop(0)


async def test_pings_are_answered(server: Http2Server, recorded: Recorded) -> None:
    port = await server.listen("127.0.0.1", 0)
    options = [*UNLIMITED, ("grpc.keepalive_time_ms", 100), ("grpc.keepalive_timeout_ms", 2000)]
    options += [("grpc.keepalive_permit_without_calls", 1), ("grpc.http2.max_pings_without_data", 0)]
    async with Client(port, grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)) as client:
        stream = client.stream("Both")
        await stream.write(b"x")
        await stream.read()
        await until(lambda: recorded.kinds()[PING] >= 3)
        await stream.write(b"y")
        assert await stream.read() == b"y"


async def test_tls_needs_alpn(service: Service, certificates: Path) -> None:
    server = service.server()
    port = await server.listen("127.0.0.1", 0, server_context(certificates))
    credentials = grpc.ssl_channel_credentials((certificates / "server.pem").read_bytes())
    async with Client(port, grpc.aio.secure_channel(f"localhost:{port}", credentials)) as client:
        assert await client.call("Echo", b"x" * 100_000) == b"x" * 100_000
    await server.stop(1)


async def test_a_port_that_also_speaks_http_1(service: Service) -> None:
    """It waits for our settings before its first call, and we wait for its first bytes before those."""
    server = service.server(http1=asyncio.Protocol)
    async with Client(await server.listen("127.0.0.1", 0)) as client:
        assert await client.call("Echo", b"x") == b"x"
    await server.stop(0)
