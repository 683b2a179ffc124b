"""What a chaos run says at its end, and what its page shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chaos import __main__ as command
from chaos import report
from chaos.recording import Sample
from chaos.run import Interval, Result, Workload
from connect_kv.testing.checker.linearizability import Verdict


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
        ([], [], "undecided, no violation found in"),
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


def test_each_fault_of_the_timeline_is_found_in_the_table() -> None:
    found = result(Verdict.OK)
    found.samples.append(Sample("w0", 0.0, 300.0, True))
    found.faults += [
        Interval("kill-leader", began=10.0, ended=10.0, recovered=12.0, note="n1"),
        Interval("loss", began=20.0, ended=80.0, recovered=80.0, note="all"),
        Interval("kill-leader", began=90.0, ended=90.1, recovered=90.1, note="n2"),
    ]
    page = report.page(found)
    labels = re.findall(r'<text class="label[^>]*>([^<]*)</text>', page)
    assert sorted(labels) == ["1", "2 loss", "3"]
    rows = re.findall(r'<td><span class="dot \w+"></span>([^<]*)</td>', page)
    assert rows == ["1 kill-leader", "2 loss", "3 kill-leader"]
