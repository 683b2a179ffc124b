"""Safety under drops, duplicates, reordering, crashes, slow disks, changes of membership and snapshots."""

import pytest

from tests.raft.fuzz import Fuzz


@pytest.mark.parametrize("seed", range(80))
def test_figure_3_holds_under_faults(seed: int) -> None:
    """§5.4.3, Figure 3: all five safety properties hold after each step of random faults, and the cluster
    settles after them.
    """
    fuzz = Fuzz(seed)
    fuzz.run(steps=2000)
    fuzz.settle()
