"""Whole clusters under all faults: a few fresh seeds, and every one that ever failed."""

from pathlib import Path

import pytest

from connect_kv.testing.simulation.runner import replay_line
from connect_kv.testing.simulation.simulation import RunConfig, simulate

pytestmark = pytest.mark.long

REGRESSIONS = [
    (int(seed), float(seconds))
    for seed, seconds, *_ in (
        line.split(maxsplit=2)
        for line in Path(__file__).with_name("regressions.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
]


def check(config: RunConfig) -> None:
    report = simulate(config)
    assert report.violation is None, f"{replay_line(report, config)}\n{report.violation}"
    assert report.commits


@pytest.mark.parametrize("seed", range(1, 9))
def test_seed(seed: int) -> None:
    check(RunConfig(seed=seed, seconds=5))


@pytest.mark.parametrize("seed", range(1, 5))
def test_seed_with_users_whose_rights_change(seed: int) -> None:
    check(RunConfig(seed=seed, seconds=5, rights=True))


@pytest.mark.parametrize(("seed", "seconds"), REGRESSIONS)
def test_a_seed_that_failed_once(seed: int, seconds: float) -> None:
    check(RunConfig(seed=seed, seconds=seconds))
