"""A short chaos run finds nothing wrong with our nodes, and something with nodes that read stale data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chaos import report
from chaos.nodes import PROGRAM
from chaos.run import ChaosRun, Result


async def run(
    directory: Path, kinds: list[str], seconds: float, *, network: str, program: str = PROGRAM
) -> Result:
    one = ChaosRun(
        directory, kinds=kinds, seconds=seconds, seed=1, network=network, say=print, program=program
    )  # fmt: skip
    return await one.run()


@pytest.mark.parametrize(
    ("network", "kinds"), [("auto", ["pause-leader", "one-way"]), ("proxy", ["isolate-leader"])]
)
async def test_a_short_run_finds_no_violation(tmp_path: Path, network: str, kinds: list[str]) -> None:
    result = await run(tmp_path, kinds, 4, network=network)
    assert result.ok, result.violations
    assert result.faults
    assert {one.verdict for one in result.workloads} == {"ok"}
    assert all(one.answered for one in result.workloads)
    page = report.page(result)
    assert "no violation" in page
    assert page.count("<svg") == page.count("</svg>") == 1
    assert not re.search(r"(src|href)=|https?://(?!www\.w3\.org/2000/svg)", page), (
        "nothing is loaded from elsewhere"
    )


@pytest.mark.parametrize("network", ["auto", "proxy"])
async def test_nodes_that_read_without_a_quorum_are_caught(tmp_path: Path, network: str) -> None:
    """Which also shows that a node that is cut off is cut off."""
    result = await run(tmp_path, ["isolate-leader"], 8, network=network, program="tests.cluster.stale_reads")
    assert not result.ok
    assert any("not linearizable" in text for text in result.violations), result.violations
    assert "violation" in report.page(result)
    assert result.drawings
