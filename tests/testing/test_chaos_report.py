"""What a chaos run says at its end, and what its page shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from connect_kv.sim.linearizability import Verdict
from connect_kv.testing.chaos import __main__ as command
from connect_kv.testing.chaos.run import Result, Workload


def result(*verdicts: Verdict) -> Result:
    workloads = [
        Workload(name=f"w{number}", calls=2, answered=2, verdict=verdict.value, detail="")
        for number, verdict in enumerate(verdicts)
    ]
    return Result(seed=1, seconds=60, network="proxies", kinds=["loss"], skipped={}, workloads=workloads)


@pytest.mark.parametrize(
    ("verdicts", "violations", "word"),
    [
        ([Verdict.OK], [], "no violation in"),
        ([Verdict.OK, Verdict.UNKNOWN], [], "undecided, no violation found in"),
        ([Verdict.UNKNOWN], ["a lost write"], "1 violations in"),
    ],
)
def test_the_last_line_says_what_was_decided(
    verdicts: list[Verdict], violations: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = result(*verdicts)
    found.violations += violations
    command.verdict(found, Path("chaos.html"))
    assert capsys.readouterr().out.splitlines()[-1].startswith(word)
