"""Small classes with one mistake each, as their authors make them. Each must be found, by name.

`MISTAKES` says of each the kind, and what `check_determinism` must say of it.
"""

from __future__ import annotations

from tests.simulation.mistakes import aliasing, nondeterminism, queries
from tests.simulation.mistakes.kinds import MISTAKES

__all__ = ["MISTAKES", "aliasing", "nondeterminism", "queries"]
