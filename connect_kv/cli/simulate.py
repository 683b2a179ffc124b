"""simulate: a cluster with a machine of yours, under faults, in no time."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from connect_kv.errors import ConfigError
from connect_kv.framework.replicated import Replicated
from connect_kv.sim import timeline
from connect_kv.sim.determinism import check_determinism
from connect_kv.sim.faults import ALL
from connect_kv.sim.invariants import Violation
from connect_kv.sim.machine import MachineSimulation
from connect_kv.sim.simulation import Report, RunConfig
from connect_kv.sim.workloads import NotLinearizable

SLICE_SECONDS = 20.0
"""A run of minutes is so many runs of this length, each a cluster of its own."""


@click.command()
@click.argument("machine", metavar="MODULE:CLASS")
@click.option("--seed", default=1, show_default=True, help="The same seed is the same run.")
@click.option("--minutes", default=1.0, show_default=True, help="Virtual minutes.")
@click.option("--faults", default=",".join(ALL), show_default=True, help="Kinds, with commas.")
@click.option("--steps", type=int, help="Of the first seed alone, end after so many steps.")
@click.option("--svg", type=click.Path(path_type=Path), help="Draw what is not linearizable here.")
def simulate(
    machine: str, seed: int, minutes: float, faults: str, steps: int | None, svg: Path | None
) -> None:
    """Run clusters of MODULE:CLASS, a Replicated class, under faults, and check what they answer.

    Two questions: does it do the same on every member, and does the cluster answer as one object of
    the class would? Exits with 1 if not, with a line that repeats the run.
    """
    kind = _machine(machine)
    kinds = tuple(part.strip() for part in faults.split(",") if part.strip())
    if strange := sorted(set(kinds) - set(ALL)):
        raise click.BadParameter(f"there are no {', '.join(strange)}", param_hint="--faults")
    console = Console()
    slices = max(1, round(minutes * 60 / SLICE_SECONDS))
    seconds = minutes * 60 / slices
    reports: list[Report] = []
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"), TimeElapsedColumn(),
        console=console,
    )  # fmt: skip
    try:
        with bar as progress:
            task = progress.add_task("members alike", total=slices + 1, said="")
            check_determinism(kind, seed=seed)
            for number in range(1 if steps else slices):
                config = RunConfig(seed=seed + number, seconds=seconds, faults=kinds, step_limit=steps)
                progress.update(task, advance=1, description=f"seed {config.seed}")
                report = MachineSimulation(config, kind).run()
                reports.append(report)
                progress.update(task, said=f"{sum(one.answered for one in reports)} calls answered")
                if report.violation is not None:
                    raise report.violation
            progress.update(task, completed=slices + 1, description="done")
    except Violation as violation:
        console.print(f"FAILED  {violation}", style="bold red", highlight=False, markup=False)
        if svg is not None and isinstance(violation, NotLinearizable):
            svg.write_text(timeline.draw(violation.model, violation.outcome))
            console.print(f"drawn in {svg}")
        elif svg is not None:
            console.print("there is no history to draw: the members differ from each other")
        if reports:
            last = reports[-1]
            again = f"--seed {last.seed} --minutes {seconds / 60:g} --faults {','.join(kinds)}"
            line = f"{last.replay} : connect-kv simulate {machine} {again} --steps {last.steps}"
            console.print(line, highlight=False, soft_wrap=True)
        sys.exit(1)
    _verdict(console, reports)


def _verdict(console: Console, reports: list[Report]) -> None:
    count: dict[str, int] = {}
    for report in reports:
        for name, times in report.faults.items():
            count[name] = count.get(name, 0) + times
    console.print("[bold green]OK[/]  the same on every member, and linearizable", highlight=False)
    console.print(
        f"{sum(one.answered for one in reports)} calls answered, "
        f"{sum(one.unknown for one in reports)} of unknown outcome, "
        f"{sum(one.terms for one in reports)} leaders, "
        f"{sum(one.virtual_seconds for one in reports):.0f} virtual seconds",
        highlight=False,
    )
    told = ", ".join(f"{name} {times}" for name, times in sorted(count.items()) if times)
    console.print(f"faults: {told or 'none'}", highlight=False)
    if undecided := [one.seed for one in reports if one.undecided]:
        console.print(f"histories too tangled to decide: seeds {undecided}", highlight=False)


def _machine(text: str) -> type[Replicated]:
    module, colon, name = text.partition(":")
    if not (module and colon and name):
        raise ConfigError(f"{text!r}: expected MODULE:CLASS")
    sys.path.insert(0, "")
    try:
        found: object = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{text}: {error}") from None
    if not (isinstance(found, type) and issubclass(found, Replicated)):
        raise ConfigError(f"{text}: not a class of connect_kv.Replicated")
    return found
