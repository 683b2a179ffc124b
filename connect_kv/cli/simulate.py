"""simulate: a cluster with a machine of yours, under faults, in no time."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from connect_kv.errors import ConfigError
from connect_kv.framework.replicated import Replicated
from connect_kv.testing.checker import timeline
from connect_kv.testing.simulation.determinism import check_determinism
from connect_kv.testing.simulation.faults import ALL
from connect_kv.testing.simulation.invariants import Violation
from connect_kv.testing.simulation.machine import NAME, MachineSimulation
from connect_kv.testing.simulation.runner import positive
from connect_kv.testing.simulation.simulation import RunConfig, SimulationReport
from connect_kv.testing.simulation.upgrade import UpgradeSimulation
from connect_kv.testing.simulation.workloads import NotLinearizable

SLICE_SECONDS = 20.0
"""A run of minutes is so many runs of this length, each a cluster of its own."""


MICROSECOND = 1e-6
UNDECIDED = {NAME: "a history too tangled to decide"}
EXIT_VIOLATION, EXIT_UNDECIDED = 1, 3


@click.command()
@click.argument("machine", metavar="MODULE:CLASS")
@click.option(
    "--upgrade", metavar="MODULE:CLASS", help="Upgrade to this newer version of the class on the way."
)
@click.option("--seed", default=1, show_default=True, help="The same seed is the same run.")
@click.option(
    "--minutes", default=1.0, show_default=True, callback=positive, help="Virtual minutes, 20 s a cluster."
)
@click.option("--faults", default=",".join(ALL), show_default=True, help="Kinds of faults, with commas.")
@click.option("--steps", type=click.IntRange(min=1), help="Run the first seed alone, for so many steps.")
@click.option("--svg", type=click.Path(path_type=Path), help="Draw what is not linearizable here.")
def simulate(
    machine: str,
    upgrade: str | None,
    seed: int,
    minutes: float,
    faults: str,
    steps: int | None,
    svg: Path | None,
) -> None:
    """Run clusters of MODULE:CLASS, a Replicated class, under faults, and check what they answer.

    Two questions: does it do the same on every member, and does the cluster answer as one object of
    the class would? With --upgrade, members get the newer code one by one, one of them goes back in between,
    and each answer has to be that of the version whose turn it is in the log.

    Exit status: 0 yes, 1 no, with a line that repeats the run, 3 undecided: no call was answered, the run
    was ended early, or a history was too much for the checker.
    """
    kind = _machine(machine)
    newer = None if upgrade is None else _machine(upgrade)
    kinds = tuple(part.strip() for part in faults.split(",") if part.strip())
    if strange := sorted(set(kinds) - set(ALL)):
        raise click.BadParameter(f"there are no {', '.join(strange)}", param_hint="--faults")
    console = Console()
    configs = configs_of(seed, minutes, kinds, steps)
    reports: list[SimulationReport] = []
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"), TimeElapsedColumn(),
        console=console,
    )  # fmt: skip
    try:
        with bar as progress:
            task = progress.add_task("members alike", total=len(configs) + 1, said="")
            check_determinism(kind, seed=seed)
            if newer is not None:
                check_determinism(newer, seed=seed)
            for config in configs:
                progress.update(task, advance=1, description=f"seed {config.seed}")
                report = _simulation(config, kind, newer).run()
                reports.append(report)
                progress.update(task, said=f"{sum(one.answered for one in reports)} calls answered")
                if report.violation is not None:
                    raise report.violation
            progress.update(task, completed=len(configs) + 1, description="done")
    except Violation as violation:
        console.print(f"FAILED  {violation}", style="bold red", highlight=False, markup=False, soft_wrap=True)
        if reports:
            line = replay_line(reports[-1], config, machine, upgrade)
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        if svg is not None:
            _draw(console, violation, svg)
        sys.exit(EXIT_VIOLATION)
    sys.exit(_verdict(console, reports))


def _simulation(
    config: RunConfig, kind: type[Replicated], newer: type[Replicated] | None
) -> MachineSimulation:
    return MachineSimulation(config, kind) if newer is None else UpgradeSimulation(config, kind, newer)


def configs_of(seed: int, minutes: float, faults: tuple[str, ...], steps: int | None) -> list[RunConfig]:
    """A run for each slice of these minutes; with `steps`, the first alone, which ends there."""
    slices = max(1, round(minutes * 60 / SLICE_SECONDS))
    # Rounded, so that minutes printed for a slice give its seconds again.
    seconds = max(MICROSECOND, round(minutes * 60 / slices, 6))
    return [
        RunConfig(seed=seed + number, seconds=seconds, faults=faults, step_limit=steps)
        for number in range(1 if steps else slices)
    ]


def replay_line(report: SimulationReport, config: RunConfig, machine: str, upgrade: str | None = None) -> str:
    """The one line that repeats a failure, exactly."""
    upgrading = "" if upgrade is None else f" --upgrade {upgrade}"
    faults = shlex.quote(",".join(config.faults))
    return (
        f"{report.replay} : connect-kv simulate {machine}{upgrading} --seed {report.seed} "
        f"--minutes {config.seconds / 60!r} --faults {faults} --steps {report.steps}"
    )


def _draw(console: Console, violation: Violation, svg: Path) -> None:
    if not isinstance(violation, NotLinearizable):
        console.print("there is no history to draw: the members differ from each other")
        return
    try:
        svg.write_text(timeline.draw(violation.model, violation.outcome))
    except OSError as error:
        console.print(f"cannot draw in {svg}: {error.strerror}", highlight=False, markup=False)
    else:
        console.print(f"drawn in {svg}", highlight=False, markup=False)


def _verdict(console: Console, reports: list[SimulationReport]) -> int:
    """Say what was found; the exit status."""
    count: dict[str, int] = {}
    for report in reports:
        for name, times in report.faults.items():
            count[name] = count.get(name, 0) + times
    undecided = why_undecided(reports)
    if undecided:
        text = f"UNDECIDED  {'; '.join(undecided)}"
        console.print(text, style="bold yellow", highlight=False, markup=False, soft_wrap=True)
    else:
        console.print("[bold green]OK[/]  the same on every member, and linearizable", highlight=False)
    console.print(
        f"{sum(one.answered for one in reports)} calls answered, "
        f"{sum(one.unknown for one in reports)} of unknown outcome, "
        f"{sum(one.terms for one in reports)} leaders, "
        f"{sum(one.virtual_seconds for one in reports):.0f} virtual seconds",
        highlight=False,
    )
    for note in dict.fromkeys(note for one in reports for note in one.notes):
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    told = ", ".join(f"{name} {times}" for name, times in sorted(count.items()) if times)
    console.print(f"faults: {told or 'none'}", highlight=False)
    return EXIT_UNDECIDED if undecided else 0


def why_undecided(reports: Sequence[SimulationReport]) -> list[str]:
    """Of runs without a violation, what kept each from being decided."""
    reasons = [
        f"seed {one.seed}: " + ", ".join(UNDECIDED.get(reason, reason) for reason in one.undecided)
        for one in reports
        if one.undecided
    ]
    return reasons if any(one.answered for one in reports) else ["no call was answered", *reasons]


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
