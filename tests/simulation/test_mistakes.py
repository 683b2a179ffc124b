"""Mistakes that authors of classes make: each is found, by name, within seconds.

With CONNECT_KV_TIMES=file each test adds a line of a table to it: class, kind, finding, seconds.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from connect_kv import Replicated
from connect_kv.testing.simulation.determinism import check_determinism
from connect_kv.testing.simulation.invariants import Violation
from tests.simulation.mistakes import MISTAKES

pytestmark = pytest.mark.long

PLANTED = [(kind, machine, says) for kind, all in MISTAKES.items() for machine, says in all.items()]
EACH = 5
"""One in so many belongs to the short tests; the others run with those that start many processes."""


@pytest.mark.parametrize(
    ("kind", "machine", "says"),
    [
        pytest.param(
            *planted, marks=[] if number % EACH == 0 else [pytest.mark.cluster], id=planted[1].__name__
        )
        for number, planted in enumerate(PLANTED)
    ],
)
def test_a_mistake_is_found_by_name(kind: str, machine: type[Replicated], says: str) -> None:
    began = time.perf_counter()
    with pytest.raises(Violation) as caught:
        check_determinism(machine)
    seconds = time.perf_counter() - began
    text = str(caught.value)
    assert says in text
    assert machine.__name__ in text
    if "CONNECT_KV_TIMES" in os.environ:
        with Path(os.environ["CONNECT_KV_TIMES"]).open("a") as table:
            table.write(f"| {machine.__name__} | {kind} | {text.split(';')[0][:140]} | {seconds:.1f} |\n")


def test_there_are_enough_of_each_kind() -> None:
    assert all(len(machines) >= 10 for machines in MISTAKES.values())
