"""The command behind scripts/chaos."""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
import tempfile
from pathlib import Path

import click

from chaos import report
from chaos.faults import FAULTS
from chaos.run import ChaosRun, Result

EXIT_VIOLATION, EXIT_UNDECIDED = 1, 3


@click.command(epilog="Faults: " + ", ".join(FAULTS))
@click.option("--faults", default="all", metavar="LIST", help="Which, comma-separated.  [default: all]")
@click.option("--seconds", default=120.0, help="How long faults go on.", show_default=True)
@click.option("--seed", type=int, help="Which faults, and when.  [default: a new one]")
@click.option("--report", "file", default="chaos.html", type=click.Path(path_type=Path), show_default=True)
@click.option(
    "--network",
    type=click.Choice(["auto", "namespaces", "proxy"]),
    default="auto",
    help="Network namespaces need root; proxies on loopback do not.  [default: namespaces if allowed]",
)
@click.option("--keep", is_flag=True, help="Keep the directory with data and logs of the nodes.")
def main(faults: str, seconds: float, seed: int | None, file: Path, network: str, keep: bool) -> None:
    """Hurt a cluster of three real nodes while clients use it, and judge what they saw.

    Exit status: 0 no violation, 1 a violation, 3 undecided (a history was too much for the checker, or no
    call was answered).
    """
    kinds = list(FAULTS) if faults == "all" else [one.strip() for one in faults.split(",")]
    if unknown := [one for one in kinds if one not in FAULTS]:
        raise click.BadParameter(f"unknown: {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    seed = random.randrange(1 << 32) if seed is None else seed
    directory = Path(tempfile.mkdtemp(prefix="connect-kv-chaos-"))
    click.echo(f"seed {seed}, {len(kinds)} kinds of faults, {seconds:g} s, nodes in {directory}")
    run = ChaosRun(directory, kinds=kinds, seconds=seconds, seed=seed, network=network, say=click.echo)
    try:
        result = asyncio.run(run.run())
        file.write_text(report.page(result), encoding="utf-8")
        verdict(result, file)
        if not result.ok:
            keep = True
            click.echo(f"logs and data of the nodes: {directory}")
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)
    sys.exit(EXIT_VIOLATION if not result.ok else EXIT_UNDECIDED if result.undecided else 0)


def verdict(result: Result, file: Path) -> None:
    """What a person reads last."""
    for one in result.workloads:
        click.echo(
            f"  {one.name:<10} {one.answered:>7} of {one.calls:>7} answered   {one.verdict}   {one.detail}"
        )
    for text in result.violations:
        click.echo(f"VIOLATION: {text[:2000]}")
    word = "undecided, no violation found" if result.undecided else "no violation"
    if not result.ok:
        word = f"{len(result.violations)} violations"
    click.echo(f"{word} in {len(result.faults)} faults ({result.network}); report: {file}")


if __name__ == "__main__":
    main()
