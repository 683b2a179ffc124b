"""What scripts/simulate says of a seed that failed: also from another process, and exactly."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from click.testing import CliRunner

from connect_kv.sim import models, runner
from connect_kv.sim.history import Operation
from connect_kv.sim.linearizability import check
from connect_kv.sim.simulation import Report, RunConfig
from connect_kv.sim.workloads import NotLinearizable


def not_linearizable(config: RunConfig) -> Report:
    """A report of a stale read, without the run."""
    history = [
        Operation(client="a", input=("write", "x", "new"), called=0.0, returned=1.0),
        Operation(client="b", input=("read", "x"), output=None, called=2.0, returned=3.0),
    ]
    violation = NotLinearizable("stale", models.register, check(models.register, history))
    return Report(seed=config.seed, steps=7, violation=violation)


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
