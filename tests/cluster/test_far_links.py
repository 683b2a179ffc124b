"""Members as far from each other as docs/how-to/far-links.md says: who leads goes on leading."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.links import measure


@pytest.mark.parametrize(
    ("round_trip", "options"),
    [(0.1, []), (0.2, ["--heartbeat-ms", "200", "--election-ms", "2s"])],
)
async def test_a_leader_far_from_the_others_stays(
    round_trip: float, options: list[str], tmp_path: Path
) -> None:
    found = await measure(tmp_path, round_trip, options, rounds=20)
    assert found.changes == 0
    assert found.put >= round_trip
    assert found.get >= round_trip
    assert found.pause < 30
