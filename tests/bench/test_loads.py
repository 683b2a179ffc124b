"""Rates are of what was served, as the servers count it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import loads
from benchmarks.figures import Figures, Notebook
from benchmarks.systems import System


async def measured(monkeypatch: pytest.MonkeyPatch, *, sent: int, served: int) -> Figures:
    async def offer(*arguments: Any, **named: Any) -> loads.Load:
        return loads.Load(sent, served, seconds=2.0, cpu=0.5, latencies=[float(n) for n in range(sent)])

    monkeypatch.setattr(loads, "offer", offer)
    return await loads.unary(System(Path()), "Put", b"", callers=1, total=sent)


async def test_what_was_refused_is_not_in_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await measured(monkeypatch, sent=1000, served=800)
    assert (found["rate"], found["refused"], found["cpu"]) == (400.0, 100.0, 0.625)


async def test_a_refusal_in_a_hundred_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "refused" not in await measured(monkeypatch, sent=1000, served=990)


async def test_a_load_that_was_mostly_refused_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="400 of 1000 calls succeeded"):
        await measured(monkeypatch, sent=1000, served=400)


def test_rounds_without_refusals_count_in_the_median() -> None:
    notebook = Notebook()
    for refused in ({"refused": 3.0}, {"refused": 1.0}, {}):
        notebook.note("put", "etcd", {"rate": 1.0, **refused})
    assert notebook.medians() == {"put": {"etcd": {"rate": 1.0, "refused": 1.0}}}
