"""Bugs put into the product on purpose are found, each within a bounded number of virtual seconds."""

from dataclasses import replace

import pytest

from connect_kv.testing.simulation.simulation import simulate
from tests.simulation.planted import BUGS, Bug

pytestmark = pytest.mark.long


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_it_is_found(bug: Bug, capsys: pytest.CaptureFixture[str]) -> None:
    virtual = 0.0
    with bug.plant():
        for seed in range(bug.first_seed, bug.first_seed + bug.seeds):
            report = simulate(replace(bug.config, seed=seed))
            virtual += report.virtual_seconds
            if report.violation is not None:
                break
    assert report.violation is not None, f"not found in {virtual:.0f} virtual seconds"
    said = str(report.violation)[:100]
    with capsys.disabled():
        print(f"\n{bug.name}: found by seed {seed} after {virtual:.1f} virtual seconds: {said!r}")
