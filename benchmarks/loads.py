"""Loads: unary calls from h2load, the same C program for every server; others from our own client."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.figures import Figures
from benchmarks.systems import System
from connect_kv.rpc.kv_pb2 import PutRequest, RangeRequest

STREAMS_PER_CONNECTION = 100
TIMEOUT = 120.0


def put_body(value_size: int = 256) -> bytes:
    """A gRPC message: flag, length, PutRequest."""
    return _framed(PutRequest(key=b"bench/000000000001", value=b"\xa5" * value_size).SerializeToString())


def range_body() -> bytes:
    """A linearizable read of that key."""
    return _framed(RangeRequest(key=b"bench/000000000001").SerializeToString())


async def unary(
    system: System,
    method: str,
    body: bytes,
    *,
    callers: int,
    total: int,
    rate: float | None = None,
    streams: int = STREAMS_PER_CONNECTION,
    timeout: float = TIMEOUT,
) -> Figures:
    """h2load with up to `callers` calls under way, spread over the members, one process for each.

    Without `rate` each caller goes on as soon as it was answered; with it, so many begin a second.
    `streams`: calls of one connection.
    """
    addresses = system.addresses[: max(1, min(len(system.addresses), callers))]
    with TemporaryDirectory() as directory:
        file = Path(directory) / "body"
        file.write_bytes(body)
        before = system.cpu_seconds()
        logs = [Path(directory) / f"log{number}" for number in range(len(addresses))]
        share, each = callers // len(addresses), total // len(addresses)
        started = asyncio.get_running_loop().time()
        async with asyncio.timeout(timeout):
            await asyncio.gather(
                *(
                    _h2load(
                        address,
                        method,
                        file,
                        log,
                        share,
                        each,
                        min(share, streams),
                        rate and rate / len(addresses),
                    )
                    for address, log in zip(addresses, logs, strict=True)
                )
            )
        seconds = asyncio.get_running_loop().time() - started
        used = system.cpu_seconds() - before
        rows = [line.split("\t") for log in logs for line in log.read_text().splitlines()]
    latencies = sorted(int(row[2]) / 1000 for row in rows if row[1] == "200")
    if len(latencies) < 0.99 * each * len(addresses):
        raise RuntimeError(f"{system.name}: {len(latencies)} of {total} calls succeeded")
    return {
        "rate": len(latencies) / seconds,
        **percentiles(latencies),
        "cpu": used / len(latencies) * 1000,
    }


async def _h2load(
    address: str,
    method: str,
    body: Path,
    log: Path,
    callers: int,
    total: int,
    streams: int,
    rate: float | None,
) -> None:
    connections = max(1, callers // streams)
    arguments = [
        "-n", str(total), "-c", str(connections), "-m", str(streams), "-d", str(body),
        "-H", "content-type: application/grpc", "-H", "te: trailers", f"--log-file={log}",
        *([] if rate is None else [f"--rps={rate / connections:.3f}"]),
        f"http://{address}/etcdserverpb.KV/{method}",
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec("h2load", *arguments, stdout=asyncio.subprocess.DEVNULL)
    try:
        if await process.wait():
            raise RuntimeError(f"h2load ended with {process.returncode}")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def bench(system: System, *arguments: str, timeout: float = TIMEOUT) -> Figures:
    """``connect-kv bench`` with these arguments."""
    before = system.cpu_seconds()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "connect_kv.cli.main", "bench", *arguments,
        "--endpoints", system.endpoints, "-o", "json", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(timeout):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"{system.name}: bench ended with {process.returncode}")
    found = json.loads(output)
    if found["errors"]:
        raise RuntimeError(f"{system.name}: {found['errors']}")
    used = system.cpu_seconds() - before
    latency = found["latency_ms"]
    return {
        "rate": found["per_second"],
        "median": latency["p50"],
        "p90": latency["p90"],
        "p99": latency["p99"],
        "p999": latency["p99.9"],
        "cpu": used / found["operations"] * 1000,
    }


def percentiles(latencies: Sequence[float]) -> Figures:
    """Of sorted ones."""
    last = len(latencies) - 1
    parts = {"median": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
    return {name: latencies[min(last, int(len(latencies) * part))] for name, part in parts.items()}


def _framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message
