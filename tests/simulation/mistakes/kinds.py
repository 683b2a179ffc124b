"""The kinds of mistakes, and what must be said of each class."""

from __future__ import annotations

import functools
from typing import Any

from connect_kv import Replicated

TIME, SET, CHANCE = "reads the clock", "the order of a set", "depends on chance"
OUTSIDE, STORED, ASKED = (
    "what is not in the object's attributes",
    "stored and restored",
    "whether queries ran",
)
WRITES, CANNOT = "is a query and changes the object", "cannot be stored"

MISTAKES: dict[str, dict[type[Replicated], str]] = {
    "nondeterminism": {},
    "aliasing and types": {},
    "queries that write": {},
}


def mistake(kind: str, says: str) -> Any:
    def noted(machine: type[Replicated]) -> type[Replicated]:
        MISTAKES[kind][machine] = says
        return machine

    return noted


nondeterminism = functools.partial(mistake, "nondeterminism")
aliasing = functools.partial(mistake, "aliasing and types")
writing = functools.partial(mistake, "queries that write")
