"""connect-kv simulate: three verdicts, and a line that repeats a failure exactly."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from connect_kv.cli import simulate as command
from connect_kv.testing.simulation.machine import MachineSimulation
from connect_kv.testing.simulation.simulation import RunConfig, SimulationReport
from tests.simulation.machines import StaleVisits

GOOD, STALE = "tests.simulation.machines:Counter", "tests.simulation.machines:StaleVisits"


def simulate(*words: str) -> Result:
    return CliRunner().invoke(command.simulate, words)


def configs(words: list[str]) -> list[RunConfig]:
    """What the command would run."""
    given = command.simulate.make_context("simulate", words).params
    faults = tuple(filter(None, given["faults"].split(",")))
    return command.configs_of(given["seed"], given["minutes"], faults, given["steps"])


@pytest.mark.parametrize("minutes", ["1", "0.2", "0.1", "0.123456789", "2.7", "1e-9"])
@pytest.mark.parametrize("faults", ["kill,loss", ""])
def test_the_line_gives_the_same_run(minutes: str, faults: str) -> None:
    first = configs([GOOD, "--minutes", minutes, "--faults", faults])[-1]
    line = command.replay_line(SimulationReport(seed=first.seed, steps=7), first, GOOD)
    (again,) = configs(shlex.split(line)[5:])
    assert (again.seed, again.seconds, again.faults) == (first.seed, first.seconds, first.faults)
    assert again.step_limit == 7


@pytest.mark.long
def test_the_line_that_is_printed_repeats_the_run(tmp_path: Path) -> None:
    done = simulate(STALE, "--seed", "3", "--minutes", "0.1", "--svg", str(tmp_path / "nowhere" / "x.svg"))
    assert done.exit_code == command.EXIT_VIOLATION
    assert "cannot draw in" in done.output
    found = re.search(r"^SEED=3 STEPS=\d+ : connect-kv simulate (.*)$", done.output, re.MULTILINE)
    assert found is not None, done.output
    (before,), (again,) = configs([STALE, "--seed", "3", "--minutes", "0.1"]), configs(found[1].split())
    first, second = (MachineSimulation(config, StaleVisits).run() for config in (before, again))
    assert (second.steps, second.digest) == (first.steps, first.digest)
    assert str(second.violation) == str(first.violation)


def test_what_was_not_decided_is_not_called_right() -> None:
    done = simulate(GOOD, "--steps", "50")
    assert done.exit_code == command.EXIT_UNDECIDED
    assert "UNDECIDED  no call was answered; seed 1: stopped after the given steps" in done.output
    assert "linearizable" not in done.output


def test_a_tangled_history_is_undecided() -> None:
    reports = [
        SimulationReport(seed=1, answered=5),
        SimulationReport(seed=2, answered=5, undecided=["machine"]),
    ]
    assert command.why_undecided(reports[:1]) == []
    assert command.why_undecided(reports) == ["seed 2: a history too tangled to decide"]


@pytest.mark.parametrize(
    "words",
    [
        ["--minutes", "0"],
        ["--minutes", "-1"],
        ["--minutes", "nan"],
        ["--minutes", "inf"],
        ["--steps", "0"],
        ["--steps", "-3"],
    ],
)
def test_no_time_is_refused(words: list[str]) -> None:
    done = simulate(GOOD, *words)
    assert done.exit_code == 2
    assert words[0] in done.output
