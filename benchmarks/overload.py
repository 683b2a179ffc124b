"""Twice the load that three nodes can serve: what is refused, what is served, and what memory it takes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from typing import TypeVar

import aiohttp

from benchmarks import loads
from benchmarks.run import Run
from benchmarks.systems import ConnectKv, Etcd, KeyValueSystem

SECONDS = 16.0
UNDER_WAY = 30_000
"""Calls that callers would have under way before they wait: more than the nodes take."""
STREAMS = 2000
"""Of one connection: with fewer, those of a connection that is served late would wait for each other."""
SAMPLE_SECONDS = 0.25
SESSION_CALLERS = 20_000
HANDLED = re.compile(r"^grpc_server_handled_total\{(.*)\} (\S+)$", re.MULTILINE)

T = TypeVar("T")


async def overload(run: Run) -> None:
    """Unary puts offered at twice the measured rate, and sessions of 20,000 callers."""
    async with ConnectKv(run.directory / "ours") as ours, Etcd(run.directory / "etcd", run.etcd) as etcd:
        await ours.leader_first()
        for system in (ours, etcd):
            total = run.some(8000)
            await loads.unary(system, "Put", loads.put_body(), callers=1000, total=total)
            measuring = loads.unary(system, "Put", loads.put_body(), callers=1000, total=total)
            measured = await run.attempt("unary puts it serves", system, measuring)
            if measured is not None:
                await _twice(run, system, measured["rate"])
        counts = ("--callers", str(SESSION_CALLERS), "--clients", "3", "--total", str(run.some(200_000)))
        figures, memory = await _watched(ours, loads.bench(ours, "put", *counts))
        run.notebook.note(f"sessions of {SESSION_CALLERS:,} callers", ours.name, {**figures, **memory})


async def _twice(run: Run, system: KeyValueSystem, rate: float) -> None:
    """Whatever the answer says: h2load does not look at gRPC's status, the servers' own counts do."""
    before = await _handled(system)
    seconds = SECONDS * min(1.0, run.scale)
    load = loads.unary(
        system,
        "Put",
        loads.put_body(),
        callers=UNDER_WAY,
        total=int(2 * rate * seconds),
        rate=2 * rate,
        streams=STREAMS,
    )
    began = asyncio.get_running_loop().time()
    try:
        figures, memory = await _watched(system, load)
    except (RuntimeError, TimeoutError) as error:
        run.notebook.failed("twice as many offered", system.name, error)
        return
    seconds = asyncio.get_running_loop().time() - began
    after = await _handled(system)
    ended = {code: (after[code] - before.get(code, 0)) / seconds for code in after}
    served, refused = ended.pop("OK", 0.0), sum(ended.values())
    latencies = {name: figures[name] for name in ("median", "p99")}
    row = {"offered": 2 * rate, "rate": served, "refused": refused, **latencies, **memory}
    run.notebook.note("twice as many offered", system.name, row)


async def _watched(system: KeyValueSystem, work: Awaitable[T]) -> tuple[T, dict[str, float]]:
    """The work's result, and the most memory that the largest server took meanwhile."""
    task = asyncio.ensure_future(work)
    most: dict[str, float] = {}
    while not task.done():
        most = {name: max(value, most.get(name, 0.0)) for name, value in system.memory().items()}
        await asyncio.wait([task], timeout=SAMPLE_SECONDS)
    return await task, most


async def _handled(system: KeyValueSystem) -> dict[str, float]:
    """Puts that ended on all servers, by gRPC code."""
    found: dict[str, float] = {}
    async with aiohttp.ClientSession() as session:
        for address in system.metrics_addresses:
            async with session.get(f"http://{address}/metrics") as answer:
                for labels, value in HANDLED.findall(await answer.text()):
                    fields = dict(re.findall(r'(\w+)="([^"]*)"', labels))
                    if fields["grpc_method"] == "Put":
                        found[fields["grpc_code"]] = found.get(fields["grpc_code"], 0.0) + float(value)
    return found
