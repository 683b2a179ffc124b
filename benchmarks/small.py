"""Comparisons that are no pair of clusters of three: the bare library, PySyncObj, five nodes."""

from __future__ import annotations

from benchmarks import loads
from benchmarks.figures import Figures
from benchmarks.others import Floor, PySyncObj
from benchmarks.run import BenchmarkRun
from benchmarks.systems import ConnectKv, Etcd


async def floor(run: BenchmarkRun) -> None:
    """Unary puts on one node beside an empty grpc.aio handler."""
    total = run.some(4000, least=500)
    async with ConnectKv(run.directory / "one", 1) as single, Floor(run.directory / "floor") as empty:
        for system in (single, empty):
            load = loads.unary(system, "Put", loads.put_body(), callers=300, total=total)
            await run.attempt("one node put 300", system, load)


async def counter(run: BenchmarkRun) -> None:
    """A counter through the framework, and PySyncObj's, its journal on, called in its leader's process."""
    async with ConnectKv(run.directory / "ours") as ours, PySyncObj(run.directory / "pysyncobj") as theirs:
        await ours.leader_first()
        for callers, total, their_total in ((1000, 20_000, 4000), (1, 400, 20)):
            counts = ("--callers", str(callers), "--clients", "1", "--total", str(run.some(total)))
            await run.attempt(f"counter {callers}", ours, loads.bench(ours, "counter", *counts))
            load = _pysyncobj(theirs, callers, run.some(their_total, least=20))
            await run.attempt(f"counter {callers}", theirs, load)


async def _pysyncobj(system: PySyncObj, callers: int, total: int) -> Figures:
    before = system.cpu_seconds()
    said = await system.load(callers, total)
    return {**said, "cpu": (system.cpu_seconds() - before) / total * 1000}


async def five(run: BenchmarkRun) -> None:
    """The same loads on five nodes."""
    async with (
        ConnectKv(run.directory / "ours", 5) as ours,
        Etcd(run.directory / "etcd", run.etcd, 5) as etcd,
    ):
        await ours.leader_first()
        await etcd.leader_first()
        for callers, total in ((100, 3000), (1000, 20_000)):
            counts = ("--callers", str(callers), "--clients", "1", "--total", str(run.some(total)))
            await run.attempt(f"five nodes: session put {callers}", ours, loads.bench(ours, "put", *counts))
            for system in (ours, etcd):
                load = loads.unary(system, "Put", loads.put_body(), callers=callers, total=run.some(5000))
                await run.attempt(f"five nodes: unary put {callers}", system, load)
        counts = ("--callers", "1000", "--clients", "1", "--total", str(run.some(30_000)))
        reading = loads.bench(ours, "range", *counts, "--key-space", "1")
        await run.attempt("five nodes: session get 1000", ours, reading)
        for system in (ours, etcd):
            load = loads.unary(system, "Range", loads.range_body(), callers=1000, total=run.some(6000))
            await run.attempt("five nodes: unary get 1000", system, load)
