"""The same seed is the same run: in this process, and in others with other hashes."""

import os
import subprocess
import sys

from connect_kv.sim.simulation import RunConfig, simulate

CONFIG = RunConfig(seed=11, seconds=3)
PROGRAM = (
    "from connect_kv.sim.simulation import RunConfig, simulate;"
    f"r = simulate({CONFIG!r}); print(r.digest, r.steps, r.commits)"
)


def said(hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout.strip()


def test_the_history_depends_on_the_seed_alone() -> None:
    report = simulate(CONFIG)
    here = f"{report.digest} {report.steps} {report.commits}"
    assert report.commits > 10
    assert said("1") == here
    assert said("2") == here


def test_another_seed_is_another_history() -> None:
    assert simulate(RunConfig(seed=12, seconds=1)).digest != simulate(RunConfig(seed=13, seconds=1)).digest


def test_a_run_can_be_ended_at_a_step() -> None:
    report = simulate(RunConfig(seed=11, seconds=3, step_limit=5000))
    assert report.violation is None
    assert report.steps < 5200
