"""Loads: unary calls from h2load, the same C program for every server; sessions from our own client."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.systems import System
from connect_kv.rpc.kv_pb2 import PutRequest, RangeRequest

STREAMS_PER_CONNECTION = 100
TIMEOUT = 120.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One load on one system."""

    rate: float
    """Operations a second."""
    median: float
    """Of the latency, ms."""
    p99: float
    """ms"""
    cpu: float
    """Processor seconds of all servers for 1,000 operations."""


def put_body(value_size: int = 256) -> bytes:
    """A gRPC message: flag, length, PutRequest."""
    return _framed(PutRequest(key=b"bench/000000000001", value=b"\xa5" * value_size).SerializeToString())


def range_body() -> bytes:
    """A linearizable read of that key."""
    return _framed(RangeRequest(key=b"bench/000000000001").SerializeToString())


async def unary(system: System, method: str, body: bytes, *, callers: int, total: int) -> Measured:
    """h2load with `callers` calls under way, spread over the members, one process for each."""
    addresses = system.addresses[: max(1, min(len(system.addresses), callers))]
    with TemporaryDirectory() as directory:
        file = Path(directory) / "body"
        file.write_bytes(body)
        before = system.cpu_seconds()
        logs = [Path(directory) / f"log{number}" for number in range(len(addresses))]
        share, each = callers // len(addresses), total // len(addresses)
        started = asyncio.get_running_loop().time()
        await asyncio.gather(
            *(
                _h2load(address, method, file, log, share, each)
                for address, log in zip(addresses, logs, strict=True)
            )
        )
        seconds = asyncio.get_running_loop().time() - started
        used = system.cpu_seconds() - before
        rows = [line.split("\t") for log in logs for line in log.read_text().splitlines()]
    latencies = sorted(int(row[2]) / 1000 for row in rows if row[1] == "200")
    if len(latencies) < 0.99 * each * len(addresses):
        raise RuntimeError(f"{system.name}: {len(latencies)} of {total} calls succeeded")
    return Measured(len(latencies) / seconds, *_percentiles(latencies), used / len(latencies) * 1000)


async def _h2load(address: str, method: str, body: Path, log: Path, callers: int, total: int) -> None:
    streams = min(callers, STREAMS_PER_CONNECTION)
    arguments = [
        "-n", str(total), "-c", str(max(1, callers // streams)), "-m", str(streams), "-d", str(body),
        "-H", "content-type: application/grpc", "-H", "te: trailers", f"--log-file={log}",
        f"http://{address}/etcdserverpb.KV/{method}",
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec("h2load", *arguments, stdout=asyncio.subprocess.DEVNULL)
    async with asyncio.timeout(TIMEOUT):
        if await process.wait():
            raise RuntimeError(f"h2load ended with {process.returncode}")


async def bench(system: System, *arguments: str) -> Measured:
    """``connect-kv bench`` with these arguments."""
    before = system.cpu_seconds()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "connect_kv.cli.main", "bench", *arguments,
        "--endpoints", system.endpoints, "-o", "json", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(TIMEOUT):
        output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{system.name}: bench ended with {process.returncode}")
    found = json.loads(output)
    if found["errors"]:
        raise RuntimeError(f"{system.name}: {found['errors']}")
    used = system.cpu_seconds() - before
    latency = found["latency_ms"]
    return Measured(found["per_second"], latency["p50"], latency["p99"], used / found["operations"] * 1000)


def median(found: list[Measured]) -> Measured:
    """Of each figure by itself."""
    return Measured(
        *(
            statistics.median(getattr(one, field) for one in found)
            for field in ("rate", "median", "p99", "cpu")
        )
    )


def _percentiles(latencies: list[float]) -> tuple[float, float]:
    return latencies[len(latencies) // 2], latencies[min(len(latencies) - 1, int(len(latencies) * 0.99))]


def _framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message
