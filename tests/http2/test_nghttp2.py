"""nghttp2, as it is in h2load, against our server."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from connect_kv.http2.limits import Limits
from connect_kv.http2.listener import Http2Server
from tests.etcd import skip_loudly
from tests.http2.conftest import Service, server_context
from tests.http2.recorded import Recorded, recorded
from tests.http2.wire import message

__all__ = ["recorded"]

pytestmark = pytest.mark.cluster


async def h2load(
    port: int, tmp_path: Path, *options: str, body: bytes = b"", scheme: str = "http"
) -> dict[str, int]:
    """Its counts of requests: total, done, succeeded, failed, errored."""
    program = shutil.which("h2load")
    if program is None:
        skip_loudly("no h2load: scripts/ci-tools installs it (Debian: nghttp2-client)")
    (tmp_path / "body").write_bytes(message(body))
    process = await asyncio.create_subprocess_exec(
        str(program),
        *("-d", str(tmp_path / "body"), "-H", "content-type: application/grpc", "-H", "te: trailers"),
        *options,
        f"{scheme}://127.0.0.1:{port}/t.T/Echo",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    line = re.search(r"requests: (.*)", output.decode())
    assert line is not None, output.decode()
    return {name: int(number) for number, name in re.findall(r"(\d+) (\w+)", line[1])}


async def test_it_does_not_wait_for_our_settings_and_opens_a_hundred_streams(
    server: Http2Server, service: Service, recorded: Recorded, tmp_path: Path
) -> None:
    port = await server.listen("127.0.0.1", 0)
    told = await h2load(port, tmp_path, "-n", "5000", "-c", "5", "-m", "100", body=b"v" * 256)
    assert told["succeeded"] == told["total"] == 5000
    assert recorded.decoded < 50
    assert sum(map(len, service.batches)) == 5000
    assert max(map(len, service.batches)) > 50


async def test_large_answers_and_requests(server: Http2Server, tmp_path: Path) -> None:
    port = await server.listen("127.0.0.1", 0)
    told = await h2load(port, tmp_path, "-n", "60", "-c", "2", "-m", "10", body=b"v" * 1_000_000)
    assert told["succeeded"] == 60


async def test_small_windows(server: Http2Server, tmp_path: Path) -> None:
    """65,535 bytes for the connection and 1,023 for each stream."""
    port = await server.listen("127.0.0.1", 0)
    told = await h2load(
        port, tmp_path, "-n", "200", "-c", "2", "-m", "10", "-w", "10", "-W", "16", body=b"v" * 50_000
    )
    assert told["succeeded"] == 200


async def test_no_table_of_header_fields(server: Http2Server, tmp_path: Path) -> None:
    port = await server.listen("127.0.0.1", 0)
    told = await h2load(port, tmp_path, "-n", "500", "-m", "10", "--header-table-size=0")
    assert told["succeeded"] == 500
    told = await h2load(port, tmp_path, "-n", "500", "-m", "10", "--encoder-header-table-size=0")
    assert told["succeeded"] == 500


async def test_streams_it_opens_before_it_knows_our_limit_are_refused_and_not_the_connection(
    service: Service, recorded: Recorded, tmp_path: Path
) -> None:
    server = service.server(Limits(streams=10))
    port = await server.listen("127.0.0.1", 0)
    told = await h2load(port, tmp_path, "-n", "1000", "-c", "1", "-m", "100")
    assert told["done"] == 1000
    assert told["errored"] == told["failed"] <= 190
    assert len(recorded.connections) == 1
    await server.stop(0)


async def test_tls(service: Service, certificates: Path, tmp_path: Path) -> None:
    server = service.server()
    port = await server.listen("127.0.0.1", 0, server_context(certificates))
    told = await h2load(port, tmp_path, "-n", "1000", "-c", "4", "-m", "20", scheme="https", body=b"v" * 5000)
    assert told["succeeded"] == 1000
    await server.stop(1)
