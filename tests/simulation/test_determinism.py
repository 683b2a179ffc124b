"""The same seed is the same run, step by step: in this process, and in others with other hashes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from connect_kv.testing.simulation.simulation import RunConfig, simulate

HASH_SEEDS = ("1", "2")


def start(seed: int, hash_seed: str, output: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "tests.simulation.trace", str(seed), "10"]
    with output.open("wb") as file:
        return subprocess.Popen(command, env=environment, stdout=file)


# 102047 once depended on the addresses of objects; the others have all kinds of faults between them.
@pytest.mark.long
@pytest.mark.parametrize("seed", [200182, 102047, 11, 100191])
def test_every_step_depends_on_the_seed_alone(seed: int, tmp_path: Path) -> None:
    outputs = [tmp_path / hash_seed for hash_seed in HASH_SEEDS]
    processes = [
        start(seed, hash_seed, output) for hash_seed, output in zip(HASH_SEEDS, outputs, strict=True)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    first, second = (output.read_text().splitlines() for output in outputs)
    assert len(first) > 10_000
    for number, (one, other) in enumerate(zip(first, second, strict=False)):
        assert one == other, f"line {number} differs; before: {first[max(0, number - 5) : number]}"
    assert len(first) == len(second)
    assert first[-1].endswith(" None")


def test_a_run_can_be_repeated_in_one_process() -> None:
    first, second = (simulate(RunConfig(seed=11, seconds=3)) for _ in range(2))
    assert first.commits > 10
    assert (first.digest, first.steps, first.story) == (second.digest, second.steps, second.story)


def test_another_seed_is_another_history() -> None:
    assert simulate(RunConfig(seed=12, seconds=1)).digest != simulate(RunConfig(seed=13, seconds=1)).digest


def test_a_run_can_be_ended_at_a_step() -> None:
    report = simulate(RunConfig(seed=11, seconds=3, step_limit=5000))
    assert report.violation is None
    assert report.steps < 5200
