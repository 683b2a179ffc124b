"""Many seeds, on some processes, with progress: ``scripts/simulate --seeds 1-100``."""

from __future__ import annotations

import gc
import math
import shlex
import sys
import time
from collections.abc import Iterable, Iterator
from multiprocessing import get_context
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from connect_kv.testing.checker import timeline
from connect_kv.testing.simulation.faults import ALL
from connect_kv.testing.simulation.invariants import Violation
from connect_kv.testing.simulation.simulation import RunConfig, SimulationReport, simulate
from connect_kv.testing.simulation.workloads import NotLinearizable


def seeds_of(text: str) -> list[int]:
    """``7``, ``1-100`` or ``3,5,8-9``. Raises ValueError."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def run_all(configs: Iterable[RunConfig], jobs: int) -> Iterator[SimulationReport]:
    """Each report as it comes, in the order of `configs`."""
    if jobs == 1:
        keep_what_is_loaded()
        yield from map(reported, configs)
        return
    with get_context("spawn").Pool(jobs, keep_what_is_loaded, maxtasksperchild=50) as pool:
        yield from pool.imap(reported, configs)


def keep_what_is_loaded() -> None:
    """Modules stay as long as this process: runs need not look through them for garbage, again and again."""
    gc.collect()
    gc.freeze()


def reported(config: RunConfig) -> SimulationReport:
    """Run one seed; what is reported can be sent to another process, which models cannot."""
    report = simulate(config)
    violation = report.violation
    if isinstance(violation, NotLinearizable):
        report.drawing = timeline.draw(violation.model, violation.outcome)
    report.violation = violation and Violation(str(violation))
    return report


def replay_line(report: SimulationReport, config: RunConfig) -> str:
    """The one line that repeats a failure."""
    return (
        f"{report.replay} : scripts/simulate --seeds {report.seed} --seconds {config.seconds!r} "
        f"--members {config.members} --steps {report.steps} --faults {shlex.quote(','.join(config.faults))}"
        f"{' --rights' if config.rights else ''}"
    )


def positive(context: click.Context, option: click.Parameter, value: float) -> float:
    """Refuse what is no time. For click."""
    if not 0 < value < math.inf:
        raise click.BadParameter(f"{value:g}: expected a number above 0", context, option)
    return value


@click.command()
@click.option("--seeds", default="1-20", show_default=True, help="One, a range A-B, or several with commas.")
@click.option(
    "--seconds",
    default=10.0,
    show_default=True,
    callback=positive,
    help="Virtual seconds of work under faults.",
)
@click.option("--within", type=float, help="Begin no more after so many real seconds.  [default: run all]")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes.")
@click.option(
    "--members",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="The cluster begins with so many.",
)
@click.option("--faults", default=",".join(ALL), show_default=True, help="Kinds, with commas.")
@click.option(
    "--steps", type=click.IntRange(min=1), help="End after so many steps: what STEPS of a failure says."
)
@click.option("--svg", type=click.Path(path_type=Path), help="Draw what is not linearizable here.")
@click.option("--rights", is_flag=True, help="With authentication, and users whose rights change.")
@click.option("--story", is_flag=True, help="Tell when each fault came.")
def main(
    seeds: str,
    seconds: float,
    within: float | None,
    jobs: int,
    members: int,
    faults: str,
    steps: int | None,
    svg: Path | None,
    rights: bool,
    story: bool,
) -> None:
    """Run whole clusters under faults, one for each seed, and check everything."""
    console = Console(stderr=True)
    try:
        wanted = seeds_of(seeds)
    except ValueError:
        raise click.BadParameter("expected 7, 1-100 or 3,5,8-9", param_hint="--seeds") from None
    kinds = tuple(kind for kind in faults.split(",") if kind)
    if strange := sorted(set(kinds) - set(ALL)):
        raise click.BadParameter(f"there are no {', '.join(strange)}", param_hint="--faults")
    configs = [
        RunConfig(seed=seed, seconds=seconds, members=members, faults=kinds, step_limit=steps, rights=rights)
        for seed in wanted
    ]
    run, failed, virtual, real, answered, undecided = 0, 0, 0.0, 0.0, 0, 0
    allowed, refused = 0, 0
    end = time.monotonic() + (within or math.inf)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
    with bar as progress:
        task = progress.add_task("simulating", total=len(configs))
        for config, report in zip(configs, run_all(configs, jobs), strict=True):
            progress.advance(task)
            run += 1
            virtual += report.virtual_seconds
            real += report.real_seconds
            answered += report.answered
            undecided += bool(report.undecided)
            allowed, refused = allowed + report.judged[0], refused + report.judged[1]
            if story:
                for moment, text in report.story:
                    progress.console.print(f"{moment:9.3f} {text}", highlight=False)
            if report.violation is not None:
                failed += 1
                progress.console.print(
                    replay_line(report, config), style="bold red", highlight=False, soft_wrap=True
                )
                progress.console.print(str(report.violation), highlight=False, markup=False)
                if svg is not None and report.drawing:
                    try:
                        svg.write_text(report.drawing)
                    except OSError as error:
                        progress.console.print(f"cannot draw in {svg}: {error.strerror}", markup=False)
            if time.monotonic() >= end:
                break
    pace = virtual / max(real, 1e-9) / 60
    console.print(
        f"{run} seeds, {failed} failed, {undecided} not decided in full; {answered} calls answered; "
        f"{virtual:.0f} virtual seconds in {real:.0f} s: {pace:.2f} virtual hours per real minute and core"
    )
    if rights:
        console.print(f"of commands of users {allowed} were allowed, {refused} refused")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
