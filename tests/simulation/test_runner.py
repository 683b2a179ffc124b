"""What scripts/simulate says of a seed that failed: also from another process, and exactly."""

from __future__ import annotations

import pickle
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from connect_kv.testing.checker import models
from connect_kv.testing.checker.history import Operation
from connect_kv.testing.checker.linearizability import check
from connect_kv.testing.simulation import runner
from connect_kv.testing.simulation.simulation import RunConfig, SimulationReport
from connect_kv.testing.simulation.workloads import NotLinearizable


def not_linearizable(config: RunConfig) -> SimulationReport:
    """A report of a stale read, without the run."""
    history = [
        Operation(client="a", input=("write", "x", "new"), called=0.0, returned=1.0),
        Operation(client="b", input=("read", "x"), output=None, called=2.0, returned=3.0),
    ]
    violation = NotLinearizable("stale", models.register, check(models.register, history))
    return SimulationReport(seed=config.seed, steps=7, violation=violation)


def test_a_report_of_another_process_arrives_with_its_text_and_its_drawing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "simulate", not_linearizable)
    report = pickle.loads(pickle.dumps(runner.reported(RunConfig(seed=5))))
    assert (report.seed, str(report.violation)) == (5, "stale")
    assert report.drawing.startswith("<svg")


def test_the_command_tells_of_it_and_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runner, "simulate", not_linearizable)
    drawing = tmp_path / "history.svg"
    done = CliRunner().invoke(runner.main, ["--seeds", "5-6", "--svg", str(drawing)])
    assert done.exit_code == 1
    assert [f"SEED={seed} STEPS=7" in done.output for seed in (5, 6)] == [True, True]
    assert drawing.read_text().startswith("<svg")


def test_the_line_of_a_failure_gives_the_same_run() -> None:
    config = RunConfig(seed=5, seconds=20 / 3, faults=())
    words = shlex.split(runner.replay_line(SimulationReport(seed=5, steps=7), config))
    given = runner.main.make_context("simulate", words[4:]).params
    assert (given["seeds"], given["seconds"], given["faults"], given["steps"]) == ("5", 20 / 3, "", 7)


@pytest.mark.parametrize(
    "words", [["--seconds", "nan"], ["--seconds", "0"], ["--steps", "0"], ["--jobs", "0"]]
)
def test_no_time_is_refused(words: list[str]) -> None:
    assert CliRunner().invoke(runner.main, words).exit_code == 2


def test_a_drawing_that_cannot_be_written_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(runner, "simulate", not_linearizable)
    done = CliRunner().invoke(runner.main, ["--seeds", "5-6", "--svg", str(tmp_path / "nowhere" / "x.svg")])
    assert done.exit_code == 1
    assert "SEED=6 STEPS=7" in done.output
    assert "cannot draw in" in done.output
