"""What the load generator says is what happened."""

from __future__ import annotations

import asyncio
import random

import pytest

from connect_kv.bench.histogram import Histogram
from connect_kv.bench.load import LoadProgress, closed_loop, open_loop
from connect_kv.bench.report import Check, as_dict, as_text


def test_percentiles_are_right_to_two_digits() -> None:
    rng = random.Random(1)
    values = sorted(rng.expovariate(200) + 1e-5 for _ in range(20_000))
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    for percent in (1, 50, 90, 99, 99.9):
        exact = values[int(len(values) * percent / 100) - 1]
        assert abs(histogram.percentile(percent) - exact) <= exact * 0.02 + 1e-6
    assert histogram.percentile(100) == values[-1] == histogram.longest


def test_merged_histograms_count_everything() -> None:
    parts = [Histogram() for _ in range(3)]
    for number, part in enumerate(parts, 1):
        part.add(number / 1000)
    whole = Histogram()
    whole.merge(parts)
    assert (whole.count, whole.longest) == (3, 0.003)
    assert abs(whole.mean - 0.002) < 1e-9


def test_nothing_measured_is_no_division_by_zero() -> None:
    assert (Histogram().mean, Histogram().percentile(99)) == (0.0, 0.0)


async def test_a_closed_loop_never_has_more_under_way_than_callers() -> None:
    under_way = most = 0
    done = []

    async def operation(number: int) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        if number == 7:
            raise ValueError("seven")
        done.append(number)

    outcome = await closed_loop(operation, callers=5, total=40)
    assert most == 5
    assert sorted([*done, 7]) == list(range(40))
    assert outcome.latencies.count == 39
    assert outcome.errors == {"ValueError: seven": 1}


async def test_at_a_fixed_rate_waiting_counts() -> None:
    """One slow operation must not keep the others from being due."""

    async def operation(number: int) -> None:
        if number == 0:
            await asyncio.sleep(0.05)

    outcome = await open_loop(operation, rate=1000, total=60)
    assert outcome.latencies.count == 60
    assert outcome.seconds >= 0.05
    assert outcome.latencies.percentile(50) < 0.05


async def test_a_missing_write_is_seen() -> None:
    async def operation(number: int) -> None:
        return None

    outcome = await closed_loop(operation, callers=1, total=3)
    assert "MISSING" in as_text("put", outcome, Check(3, 2))
    assert "all there" in as_text("put", outcome, Check(3, 3))
    assert as_dict("put", outcome, Check(3, 3))["acknowledged_writes"] == 3


@pytest.mark.parametrize(
    ("check", "holds"),
    [
        (Check(3, 3, exact=True), True),
        (Check(3, 4, exact=True), False),
        (Check(3, 4), True),
        (Check(3, 2), False),
    ],
)
def test_more_revisions_than_writes_are_explained_or_a_failure(check: Check, holds: bool) -> None:
    assert check.holds is holds
    assert (check.verdict == "all there") is holds


@pytest.mark.parametrize(("total", "words"), [(50, 50), (1000, 100), (200_000, 200)])
async def test_progress_is_told_about_a_hundred_times(total: int, words: int) -> None:
    async def operation(number: int) -> None:
        return None

    told: list[int] = []
    await closed_loop(operation, callers=3, total=total, progress=told.append)
    assert len(told) == words
    again: list[int] = []
    progress = LoadProgress(total, again.append)
    for _ in range(total):
        progress.add(1)
    assert len(again) == pytest.approx(words, abs=1)
