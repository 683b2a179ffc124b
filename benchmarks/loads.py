"""Loads: unary calls from h2load, the same C program for every server; others from our own client."""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp

from benchmarks.bodies import closed_loop
from benchmarks.figures import Figures
from benchmarks.systems import System
from connect_kv.rpc.kv_pb2 import PutRequest, RangeRequest

STREAMS_PER_CONNECTION = 100
TIMEOUT = 120.0
LEAST_SERVED = 0.5
REFUSED_UNSAID = 0.01
"""Parts of the calls sent."""
HANDLED = re.compile(r"^grpc_server_handled_total\{(.*)\} (\S+)$", re.MULTILINE)


def put_body(value_size: int = 256) -> bytes:
    """A gRPC message: flag, length, PutRequest."""
    return _framed(PutRequest(key=b"bench/000000000001", value=b"\xa5" * value_size).SerializeToString())


def range_body() -> bytes:
    """A linearizable read of that key."""
    return _framed(RangeRequest(key=b"bench/000000000001").SerializeToString())


@dataclass(slots=True)
class Load:
    """What h2load sent, and what became of it."""

    sent: int
    served: int
    """Calls that ended with gRPC's OK, as the servers count them: h2load sees only HTTP's 200."""
    seconds: float
    cpu: float
    """Processor seconds of all servers."""
    latencies: Sequence[float]
    """Milliseconds of every answer, in order of size; h2load cannot tell refusals from others."""

    @property
    def refused(self) -> int:
        """Calls that were sent and not served."""
        return self.sent - self.served


async def unary(
    system: System,
    method: str,
    body: bytes,
    *,
    callers: int,
    total: int,
    timeout: float = TIMEOUT,
) -> Figures:
    """h2load with `callers` who go on as soon as they were answered.

    The rate is of what was served. `refused`, a second, is shown if it was more than a hundredth of the
    calls; RuntimeError if it was more than half of them.
    """
    load = await offer(system, method, body, callers=callers, total=total, timeout=timeout)
    if load.served < LEAST_SERVED * load.sent:
        raise RuntimeError(f"{system.name}: {load.served} of {load.sent} calls succeeded")
    figures = {
        "rate": load.served / load.seconds,
        **percentiles(load.latencies),
        "cpu": load.cpu / load.served * 1000,
    }
    if load.refused > REFUSED_UNSAID * load.sent:
        figures["refused"] = load.refused / load.seconds
    return figures


async def unary_keys(
    system: System, *, callers: int, total: int, keys: int, timeout: float = TIMEOUT
) -> Figures:
    """Unary puts of so many keys in random order, by callers who go on as soon as they were answered.

    RuntimeError if one of them did not succeed.
    """
    chosen = random.Random(1)
    messages = (
        PutRequest(
            key=b"bench/%012d" % chosen.randrange(keys), value=chosen.randbytes(256)
        ).SerializeToString()
        for _ in range(total)
    )
    counted, before = await _served(system, "Put"), system.cpu_seconds()
    started = asyncio.get_running_loop().time()
    async with asyncio.timeout(timeout):
        took = await closed_loop(system.addresses, "/etcdserverpb.KV/Put", messages, callers=callers)
    seconds = asyncio.get_running_loop().time() - started
    used = system.cpu_seconds() - before
    if counted is not None and (served := (await _served(system, "Put") or 0) - counted) != total:
        raise RuntimeError(f"{system.name}: {served} of {total} calls succeeded")
    return {"rate": total / seconds, **percentiles(took), "cpu": used / total * 1000}


async def offer(
    system: System,
    method: str,
    body: bytes,
    *,
    callers: int,
    total: int,
    rate: float | None = None,
    streams: int = STREAMS_PER_CONNECTION,
    timeout: float = TIMEOUT,
) -> Load:
    """h2load with up to `callers` calls under way, spread over the members, one process for each.

    Without `rate` each caller goes on as soon as it was answered; with it, so many begin a second.
    `streams`: calls of one connection.
    """
    addresses = system.addresses[: max(1, min(len(system.addresses), callers))]
    share, each = callers // len(addresses), total // len(addresses)
    share_of_rate = rate and rate / len(addresses)
    with TemporaryDirectory() as directory:
        file = Path(directory) / "body"
        file.write_bytes(body)
        logs = [Path(directory) / f"log{number}" for number in range(len(addresses))]
        counted = await _served(system, method)
        before = system.cpu_seconds()
        started = asyncio.get_running_loop().time()
        async with asyncio.timeout(timeout), asyncio.TaskGroup() as tasks:
            for address, log in zip(addresses, logs, strict=True):
                url = f"{system.scheme}://{address}/etcdserverpb.KV/{method}"
                work = _h2load(
                    url, system.headers, file, log, share, each, min(share, streams), share_of_rate
                )
                tasks.create_task(work)
        seconds = asyncio.get_running_loop().time() - started
        used = system.cpu_seconds() - before
        rows = [line.split("\t") for log in logs for line in log.read_text().splitlines()]
    latencies = sorted(int(row[2]) / 1000 for row in rows if row[1] == "200")
    served = len(latencies)
    if counted is not None:
        served = (await _served(system, method) or 0) - counted
    return Load(each * len(addresses), served, seconds, used, latencies)


async def _served(system: System, method: str) -> int | None:
    """Calls of that method that ended with OK on all members so far; None where that is not shown."""
    if not system.metrics_addresses:
        return None
    found = 0.0
    async with aiohttp.ClientSession() as session:
        for address in system.metrics_addresses:
            async with session.get(f"http://{address}/metrics") as answer:
                for labels, value in HANDLED.findall(await answer.text()):
                    fields = dict(re.findall(r'(\w+)="([^"]*)"', labels))
                    if (fields["grpc_method"], fields["grpc_code"]) == (method, "OK"):
                        found += float(value)
    return int(found)


async def _h2load(
    url: str,
    headers: Sequence[str],
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
        *(word for header in headers for word in ("-H", header)), url,
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
    found = json.loads(output) if output else {}
    if process.returncode:
        raise RuntimeError(f"{system.name}: bench ended with {process.returncode}: {found}")
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
    """Percentiles of sorted values."""
    last = len(latencies) - 1
    parts = {"median": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
    return {name: latencies[min(last, int(len(latencies) * part))] for name, part in parts.items()}


def _framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message
