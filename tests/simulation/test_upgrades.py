"""Upgrades member by member under faults: a right one works, and mistakes are found by name.

With CONNECT_KV_TIMES=file each test adds a line of a table to it: class, kind, finding, seconds.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from connect_kv import Replicated
from connect_kv.cli import simulate as command
from connect_kv.errors import ConfigError
from connect_kv.testing.simulation.simulation import RunConfig
from connect_kv.testing.simulation.upgrade import UpgradeSimulation
from tests.simulation.upgrades import UPGRADES, Right, Stock

pytestmark = pytest.mark.long

SHORT = 4
"""One mistake in so many belongs to the short tests."""


@pytest.mark.parametrize("seed", [1, 2, pytest.param(3, marks=pytest.mark.cluster)])
def test_a_right_upgrade_answers_in_the_order_of_versions(seed: int) -> None:
    report = UpgradeSimulation(RunConfig(seed=seed, seconds=8), Stock, Right).run()
    assert report.violation is None
    assert not report.undecided
    assert (
        report.answered > 3
    )  # the faults of a seed may leave little time; what was answered is judged above


@pytest.mark.parametrize(
    "newer",
    [
        pytest.param(one, marks=[] if number % SHORT == 0 else [pytest.mark.cluster], id=one.__name__)
        for number, one in enumerate(UPGRADES)
    ],
)
def test_a_mistake_in_an_upgrade_is_found_by_name(newer: type[Replicated]) -> None:
    began = time.perf_counter()
    text = found(newer)
    seconds = time.perf_counter() - began
    assert re.search(UPGRADES[newer], text), text
    if "CONNECT_KV_TIMES" in os.environ:
        with Path(os.environ["CONNECT_KV_TIMES"]).open("a") as table:
            table.write(f"| {newer.__name__} | upgrade | {text.split(';')[0][:140]} | {seconds:.1f} |\n")


def found(newer: type[Replicated]) -> str:
    try:
        violation = UpgradeSimulation(RunConfig(seed=1, seconds=4, faults=()), Stock, newer).run().violation
    except ConfigError as error:
        return str(error)
    assert violation is not None
    return str(violation)


def test_the_command_upgrades() -> None:
    words = [
        "tests.simulation.upgrades:Stock",
        "--upgrade",
        "tests.simulation.upgrades:{}",
        "--minutes",
        "0.1",
    ]
    right, wrong = (
        CliRunner().invoke(command.simulate, [word.format(name) for word in words])
        for name in ("Right", "BodyOverwritten")
    )
    assert right.exit_code == 0, right.output
    assert "OK" in right.output
    assert wrong.exit_code == command.EXIT_VIOLATION
    assert "add" in wrong.output
    assert "--upgrade tests.simulation.upgrades:BodyOverwritten" in wrong.output
