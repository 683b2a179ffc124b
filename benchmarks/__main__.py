"""One run of everything, in turns, and the page that says what came out: see ``scripts/bench --help``."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks import loads, page, plots
from benchmarks.loads import Measured
from benchmarks.systems import ConnectKv, Etcd, Floor, PySyncObj, System

ROOT = Path(__file__).parent.parent
Load = Callable[[System], Awaitable[Measured]]
CONCURRENCY = (1, 10, 100, 1000)
VALUE_SIZES = (256, 4096, 65536)


def session(*arguments: str) -> Load:
    """`connect-kv bench` through sessions."""
    return lambda system: loads.bench(system, *arguments)


def unary(method: str, callers: int, total: int, value_size: int = 256) -> Load:
    """h2load."""
    body = loads.put_body(value_size) if method == "Put" else loads.range_body()
    return lambda system: loads.unary(system, method, body, callers=callers, total=total)


def three_nodes(scale: float) -> dict[str, tuple[Load | None, Load | None]]:
    """By name: the load for this and the load for etcd."""

    def some(number: int) -> int:
        return max(200, int(number * scale))

    def put(callers: int, total: int, *more: str) -> Load:
        # One program, as most have one client; its session is at the leader, whose address comes first.
        counts = ("--callers", str(callers), "--clients", "1", "--total", str(some(total)))
        return session("put", *counts, *more)

    found: dict[str, tuple[Load | None, Load | None]] = {}
    for callers in CONCURRENCY:
        few, many = 300 * min(callers, 10), 40 * callers + 1000
        found[f"session put {callers}"] = (put(callers, few + 30 * callers), None)
        found[f"unary put {callers}"] = (unary("Put", callers, some(few + many // 8)),) * 2
    for size in VALUE_SIZES[1:]:
        total = max(600, 4_000_000 // size)
        found[f"session put 1000 of {size}"] = (put(300, total, "--value-size", str(size)), None)
        found[f"unary put 300 of {size}"] = (None, unary("Put", 300, some(total), size))
    counts = ("--callers", "1000", "--clients", "1", "--total", str(some(60_000)))
    found["session get 1000"] = (session("range", *counts), None)
    found["unary get 1000"] = (unary("Range", 1000, some(8_000)),) * 2
    watching = session("watch", "--watchers", "1000", "--total", str(max(20, int(100 * scale))))
    found["watch 1000"] = (watching, watching)
    found["load 128"] = (
        session("txn", "--callers", "16", "--total", str(max(40, int(600 * scale)))),
        session("txn", "--callers", "16", "--door", "unary", "--total", str(max(40, int(600 * scale)))),
    )
    counting = ("counter", "--clients", "1", "--total")
    found["counter 1000"] = (session(*counting, str(some(20_000)), "--callers", "1000"), None)
    found["counter 1"] = (session(*counting, str(some(400)), "--callers", "1"), None)
    return found


async def measure(rounds: int, scale: float, etcd: str) -> dict[str, dict[str, list[Measured]]]:
    """By load and system, one figure for each round."""
    found: dict[str, dict[str, list[Measured]]] = defaultdict(lambda: defaultdict(list))
    directory = Path(tempfile.mkdtemp(prefix="connect-kv-bench-"))
    work = three_nodes(scale)
    try:
        for _ in range(rounds):
            # Both stand side by side, idle in turns, so that each pair of loads meets the same machine.
            async with ConnectKv(directory / "ours") as ours, Etcd(directory / "etcd", etcd) as theirs:
                await ours.leader_first()
                for name, pair in work.items():
                    for system, load in zip((ours, theirs), pair, strict=True):
                        if load is not None:
                            await _note(found[name][system.name], system, load, name)
            one = unary("Put", 300, max(500, int(4000 * scale)))
            async with ConnectKv(directory / "one", 1) as single, Floor(directory / "floor") as floor:
                for system in (single, floor):
                    await _note(found["one node put 300"][system.name], system, one, "one node put 300")
            async with PySyncObj(directory / "pysyncobj") as counter:
                for callers, total in ((1, 20), (1000, max(1000, int(4000 * scale)))):
                    before = counter.cpu_seconds()
                    said = await counter.load(callers, total)
                    cpu = (counter.cpu_seconds() - before) / total * 1000
                    measured = Measured(said["per_second"], said["p50"], said["p99"], cpu)
                    found[f"counter {callers}"][counter.name].append(measured)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return found


async def _note(figures: list[Measured], system: System, load: Load, name: str) -> None:
    try:
        measured = await load(system)
    except (RuntimeError, TimeoutError) as error:
        print(f"{name:24} {system.name:14} failed: {error!r}", flush=True)
        return
    figures.append(measured)
    print(
        f"{name:24} {system.name:14} {measured.rate:10,.0f}/s  median {measured.median:8.2f} ms  "
        f"p99 {measured.p99:8.2f} ms  {measured.cpu:6.3f} CPU s/1,000",
        flush=True,
    )


def draw(found: dict[str, dict[str, Measured]], target: Path) -> None:
    """The charts of the page."""

    def line(prefix: str, system: str, xs: tuple[int, ...], field: str) -> list[tuple[float, float]]:
        names = [(x, f"{prefix} {x}") for x in xs]
        return [(x, getattr(found[n][system], field)) for x, n in names if system in found.get(n, {})]

    lines = (("session put", "connect-kv", "ours, session"), ("unary put", "connect-kv", "ours, unary"),
             ("unary put", "etcd", "etcd, unary"))  # fmt: skip
    for field, title, y in (("rate", "Puts a second", "puts/s"), ("median", "Median latency of a put", "ms")):
        series = {label: line(prefix, system, CONCURRENCY, field) for prefix, system, label in lines}
        kept = {label: points for label, points in series.items() if points}
        if kept:
            plots.write(target / f"puts-{field}.svg", title, "callers", y, kept)
    sizes = {
        "ours, session": [(256.0, "session put 1000", "connect-kv")]
        + [(float(s), f"session put 1000 of {s}", "connect-kv") for s in VALUE_SIZES[1:]],
        "etcd, unary": [(256.0, "unary put 1000", "etcd")]
        + [(float(s), f"unary put 300 of {s}", "etcd") for s in VALUE_SIZES[1:]],
    }
    by_size = {
        label: [
            (x, found[name][system].rate * x / 2**20)
            for x, name, system in points
            if system in found.get(name, {})
        ]
        for label, points in sizes.items()
    }
    if all(by_size.values()):
        plots.write(target / "value-size.svg", "Put by value size", "bytes of a value", "MiB/s", by_size)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description="Measure this beside etcd and PySyncObj; write docs/performance.md."
    )
    parser.add_argument("--rounds", type=int, default=3, help="medians are taken over so many")
    parser.add_argument("--scale", type=float, default=1.0, help="more operations for each figure")
    parser.add_argument("--etcd", default=shutil.which("etcd"), help="etcd's program")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="where performance.md is")
    arguments = parser.parse_args()
    if arguments.etcd is None or shutil.which("h2load") is None:
        parser.error("etcd and h2load are needed (Debian: etcd-server, nghttp2-client)")
    load_before = os.getloadavg()[0]
    everything = asyncio.run(measure(arguments.rounds, arguments.scale, arguments.etcd))
    found = {
        name: {system: loads.median(figures) for system, figures in by_system.items() if figures}
        for name, by_system in everything.items()
    }
    charts = arguments.output / "performance"
    charts.mkdir(parents=True, exist_ok=True)
    machine = (
        f"{os.cpu_count()} processors, {platform.system()} {platform.release()}, Python "
        f"{platform.python_version()}; load average {load_before:.1f} before and {os.getloadavg()[0]:.1f} "
        f"after; {arguments.rounds} rounds"
    )
    data = {name: {s: vars_of(m) for s, m in row.items()} for name, row in found.items()}
    (charts / "results.json").write_text(json.dumps({"machine": machine, "medians": data}, indent=1) + "\n")
    draw(found, charts)
    page.update(arguments.output / "performance.md", page.results(found, machine))


def vars_of(measured: Measured) -> dict[str, float]:
    """For JSON."""
    return {field: round(getattr(measured, field), 4) for field in ("rate", "median", "p99", "cpu")}


if __name__ == "__main__":
    main()
