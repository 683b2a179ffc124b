"""The page says what was measured, and nothing of what was not."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import charts, figures, page, plots
from benchmarks.figures import Notebook, Section

ROWS: figures.Rows = {
    "memory after loading": {"connect-kv": {"anonymous": 100.0}, "etcd": {"anonymous": 400.0}},
    "unary put 1": {"connect-kv": {"median": 3.0, "cpu": 2.0}, "etcd": {"median": 1.0, "cpu": 1.0}},
    "unary put 10": {"etcd": {"rate": 5.0}},
}


def section(rows: figures.Rows) -> Section:
    return Section("Something.", "scripts/bench something", "a machine", rows)


def line(text: str, work: str) -> str:
    (found,) = (one for one in text.splitlines() if one.startswith(f"| {work} |"))
    return found


def test_medians_are_taken_of_each_figure_by_itself() -> None:
    notebook = Notebook()
    for rate, p99 in ((1.0, 9.0), (3.0, 7.0), (2.0, 30.0)):
        notebook.note("put", "etcd", {"rate": rate, "p99": p99})
    assert notebook.medians() == {"put": {"etcd": {"rate": 2.0, "p99": 9.0}}}


def test_a_ratio_is_of_one_section_and_says_whether_it_is_enough() -> None:
    text = page.results({"many-keys": section(ROWS), "puts": section(ROWS)})
    found = line(text, "anonymous memory of a node that has taken a million keys")
    assert "| 100 MiB | 400 MiB | 0.25x | 0.5x or less | yes |" in found
    found = line(text, "one caller, unary put, median latency")
    assert "| 3.00 ms | 1.00 ms | 3.00x | 1.7x or less | no | 2.00x |" in found


def test_what_was_not_measured_is_said() -> None:
    found = line(page.results({}), "counter, 1,000 callers")
    assert "| not measured | | | 5x | | |" in found


def test_rows_with_other_figures_begin_a_table_of_their_own() -> None:
    text = page.results({"x": section(ROWS)})
    assert text.count("| what | system |") == 3
    assert "| unary put 10 | etcd | 5 |" in text


def test_results_come_back_as_they_were_saved(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    figures.save(path, {"x": section(ROWS)})
    assert figures.load(path) == {"x": section(ROWS)}
    assert figures.load(tmp_path / "none.json") == {}


@pytest.mark.parametrize("goal", page.GOALS, ids=lambda goal: goal.work)
def test_each_goal_is_of_a_section_there_is(goal: page.Goal) -> None:
    assert goal.section in command.ABOUT


@pytest.mark.parametrize("top", [0.0004, 0.3, 1, 4.1, 7, 99, 1001, 350_000])
def test_an_axis_has_few_round_marks_and_reaches_the_top(top: float) -> None:
    axis = plots.PlotAxis([top], log=False)
    assert axis.marks[0] == 0
    assert axis.marks[-1] >= top
    assert 3 <= len(axis.marks) <= 7
    assert axis.at(0) == 0.0


def test_a_chart_is_drawn_of_what_there_is(tmp_path: Path) -> None:
    rows: figures.Rows = {
        f"watchers {number}": {"connect-kv": {"rate": 10.0 * number}, "etcd": {"rate": 7.0}}
        for number in (1, 10, 100)
    }
    charts.draw({"watch": section(rows)}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["watchers.svg"]
    assert (tmp_path / "watchers.svg").read_text().count("<circle") == 6
