"""grpc-js, as it is in the npm package etcd3, against our server."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from connect_kv.http2.frames import HEADERS
from connect_kv.http2.listener import Http2Server
from tests.etcd import skip_loudly
from tests.http2.conftest import Service, until
from tests.http2.recorded import Recorded, recorded

__all__ = ["recorded"]

pytestmark = pytest.mark.cluster

HERE = Path(__file__).parent
MODULES = HERE.parent / "clients" / "etcd3" / "node_modules"


async def start(port: int, mode: str) -> asyncio.subprocess.Process:
    node = shutil.which("node")
    if node is None or not (MODULES / "@grpc" / "grpc-js").exists():
        skip_loudly("no grpc-js for Node.js: scripts/ci-tools installs it")
    pipe = asyncio.subprocess.PIPE
    arguments = (str(HERE / "grpc_js_program.js"), str(MODULES), str(port), mode)
    return await asyncio.create_subprocess_exec(str(node), *arguments, stdin=pipe, stdout=pipe)


async def run(server: Http2Server, mode: str) -> dict[str, Any]:
    program = await start(await server.listen("127.0.0.1", 0), mode)
    async with asyncio.timeout(60):
        output, _ = await program.communicate(b"")
    assert program.returncode == 0
    told: dict[str, Any] = json.loads(output.splitlines()[-1])
    return told


async def test_calls_of_any_size_and_two_thousand_at_a_time(server: Http2Server) -> None:
    told = await run(server, "calls")
    assert set(told["sizes"]) == {True}
    assert told["codes"] == {"0": 2000}


async def test_a_status_with_its_text_and_metadata(server: Http2Server) -> None:
    """It loses a text that is not percent-encoded as the specification says."""
    assert await run(server, "status") == {
        "code": 9,
        "details": "größer als 50%",
        "reason": ["size"],
        "detail": [0, 255],
        "unknown": "unknown method None for service t.T",
    }


async def test_calls_with_one_deadline_come_and_go_in_one_burst(service: Service, recorded: Recorded) -> None:
    """The whole queue is sent and reset within milliseconds; the connection lives."""
    held: list[Any] = []
    server = Http2Server({"/t.T/Echo": service.echo, "/t.T/Held": held.extend})
    told = await run(server, "deadline")
    assert told == {"codes": {"4": 1500}, "after": "alive"}
    assert len(recorded.connections) == 1
    assert all(call.gone() for call in held)
    await server.stop(0)


async def test_deadlines_that_all_differ(server: Http2Server, recorded: Recorded) -> None:
    assert await run(server, "deadlines") == {"codes": {"0": 300}}
    assert recorded.kinds()[HEADERS] == 300


async def test_a_stream_that_the_server_ends_before_the_client(
    server: Http2Server, service: Service, recorded: Recorded
) -> None:
    """It would keep its own side open for ever: we reset the stream without an error."""
    told = await run(server, "early")
    assert told == {"ends": [["one", 5, "then none"]] * 3, "after": "alive"}
    assert len(recorded.connections) == 1


async def test_a_stream_in_both_directions(server: Http2Server) -> None:
    assert await run(server, "both") == {"sizes": [0, 100_000, 1_000_000], "code": 0}


async def test_a_drain_is_not_seen(service: Service) -> None:
    server = service.server()
    port = await server.listen("127.0.0.1", 0)
    program = await start(port, "loop")
    assert program.stdout is not None
    async with asyncio.timeout(30):
        assert await program.stdout.readline() == b"READY\n"
    for _ in range(3):
        before = len(service.batches)
        await until(lambda before=before: len(service.batches) > before + 30)  # type: ignore[misc]
        other = service.server()
        stopping = asyncio.ensure_future(server.stop(10))
        await asyncio.sleep(0)  # its first step closes the port
        await other.listen("127.0.0.1", port)
        await stopping
        server = other
    async with asyncio.timeout(30):
        output, _ = await program.communicate(b"")
    codes = json.loads(output)["codes"]
    assert set(codes) == {"0"}
    await server.stop(0)
