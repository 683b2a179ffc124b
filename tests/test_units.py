"""Durations and sizes as people write them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_kv.units import seconds, size, whole


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        ("3s", "s", 3), ("500ms", "s", 0.5), ("1h30m", "s", 5400), ("2d", "s", 172_800), ("1.5s", "s", 1.5),
        ("7", "s", 7), ("250", "ms", 0.25), (" 5 s ", "s", 5), ("1m 30s", "s", 90), ("0", "s", 0),
    ],
)  # fmt: skip
def test_durations(text: str, unit: str, expected: float) -> None:
    assert seconds(text, unit) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("512", 512), ("64KiB", 65_536), ("2GiB", 2 << 30), ("1.5 MiB", 1_572_864), ("2GB", 2 * 10**9),
        ("3b", 3), ("1tib", 1 << 40), ("9007199254740993", 9007199254740993),
    ],
)  # fmt: skip
def test_sizes(text: str, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "s", "3 fortnights", "-1s", "1,5s", "nan", "inf", "1e3", "3s5", "\N{ARABIC-INDIC DIGIT THREE}s"],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        seconds(text)


@pytest.mark.parametrize("text", ["", "GiB", "2 gigs", "-1", "1.5", "0.3KiB", "1e3"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a"):
        size(text)


def test_a_part_of_a_unit_is_not_rounded_away() -> None:
    assert whole("1.5s", "ms") == 1500
    with pytest.raises(ValueError, match="whole number of s"):
        whole("1500ms", "s")


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (seconds, size):
        with suppress(ValueError):
            assert read(text) >= 0
