"""The loop's time for a unary put, beside that of another version: ``python -m benchmarks.loop_time PYTHON``.

PYTHON is that of the other version's environment. Three nodes of each, side by side and idle in turns; h2load
sends the same puts to each. What counts is the processor time of the main threads, on which the loops run:
of all three nodes together, and of all threads beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from pathlib import Path

from benchmarks import loads
from benchmarks.systems import ConnectKv


def loops(system: ConnectKv) -> float:
    """Seconds of processor time that the main threads have used so far."""
    return (
        sum(int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) for pid in system.pids)
        / 1e9
    )


async def measure(arguments: argparse.Namespace) -> None:
    """Print each turn, then medians and their ratio."""
    found: dict[str, list[tuple[float, float, float]]] = {"this": [], "other": []}
    with tempfile.TemporaryDirectory(prefix="connect-kv-loops-") as place:
        this, other = ConnectKv(Path(place) / "this"), ConnectKv(Path(place) / "other")
        for node in other.nodes:
            node.python = arguments.python
            node.environment["PYTHONSAFEPATH"] = "1"  # else what lies here would be imported
        for node in (*this.nodes, *other.nodes):
            at = node.arguments.index("--machine")  # an old version does not have that class
            del node.arguments[at : at + 2]
        async with this, other:
            systems = {"this": this, "other": other}
            for system in systems.values():
                await system.leader_first()
            for turn in range(arguments.turns + 1):
                for name, system in systems.items():
                    before = loops(system)
                    load = await loads.offer(
                        system, "Put", loads.put_body(), callers=arguments.callers, total=arguments.total
                    )
                    each = 1e6 / load.served
                    row = ((loops(system) - before) * each, load.cpu * each, load.served / load.seconds)
                    told = f"loops {row[0]:6.1f} us a put, all threads {row[1]:6.1f}, {row[2]:,.0f} a second"
                    print(f"{name:5}: {told}", flush=True)
                    if turn:  # the first warms up
                        found[name].append(row)
    for at, what in enumerate(("loops", "all threads", "puts a second")):
        mine, its = (statistics.median(row[at] for row in found[name]) for name in ("this", "other"))
        print(f"{what}: {mine:.1f} beside {its:.1f}, {mine / its:.2f} of it")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", help="of the other version's environment")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--callers", type=int, default=1000)
    parser.add_argument("--total", type=int, default=12_000)
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
