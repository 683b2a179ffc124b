"""Twice the load that three nodes can serve: what is refused, what is served, and what memory it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from benchmarks import loads
from benchmarks.run import BenchmarkRun
from benchmarks.systems import ConnectKv, Etcd, KeyValueSystem

SECONDS = 16.0
UNDER_WAY = 30_000
"""Calls that callers would have under way before they wait: more than the nodes take."""
STREAMS = 2000
"""Of one connection: with fewer, those of a connection that is served late would wait for each other."""
SAMPLE_SECONDS = 0.25
SESSION_CALLERS = 20_000

T = TypeVar("T")


async def overload(run: BenchmarkRun) -> None:
    """Unary puts offered at twice the measured rate, and sessions of 20,000 callers."""
    async with ConnectKv(run.directory / "ours") as ours, Etcd(run.directory / "etcd", run.etcd) as etcd:
        for system in (ours, etcd):
            await system.leader_first()
            total = run.some(8000)
            await loads.unary(system, "Put", loads.put_body(), callers=1000, total=total)
            measuring = loads.unary(system, "Put", loads.put_body(), callers=1000, total=total)
            measured = await run.attempt("unary puts it serves", system, measuring)
            if measured is not None:
                await _twice(run, system, measured["rate"])
        counts = ("--callers", str(SESSION_CALLERS), "--clients", "3", "--total", str(run.some(200_000)))
        figures, memory = await _watched(ours, loads.bench(ours, "put", *counts))
        run.notebook.note(f"sessions of {SESSION_CALLERS:,} callers", ours.name, {**figures, **memory})


async def _twice(run: BenchmarkRun, system: KeyValueSystem, rate: float) -> None:
    """What was not served was refused. Latencies are those of all answers."""
    load = loads.offer(
        system,
        "Put",
        loads.put_body(),
        callers=UNDER_WAY,
        total=int(2 * rate * SECONDS * min(1.0, run.scale)),
        rate=2 * rate,
        streams=STREAMS,
    )
    try:
        found, memory = await _watched(system, load)
    except (RuntimeError, TimeoutError) as error:
        run.notebook.failed("twice as many offered", system.name, error)
        return
    latencies = loads.percentiles(found.latencies)
    row = {
        "offered": 2 * rate,
        "rate": found.served / found.seconds,
        "refused": found.refused / found.seconds,
        **{name: latencies[name] for name in ("median", "p99")},
        **memory,
    }
    run.notebook.note("twice as many offered", system.name, row)


async def _watched(system: KeyValueSystem, work: Awaitable[T]) -> tuple[T, dict[str, float]]:
    """The work's result, and the most memory that the largest server took meanwhile."""
    task = asyncio.ensure_future(work)
    most: dict[str, float] = {}
    while not task.done():
        most = {name: max(value, most.get(name, 0.0)) for name, value in system.memory().items()}
        await asyncio.wait([task], timeout=SAMPLE_SECONDS)
    return await task, most
