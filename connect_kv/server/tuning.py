"""How the interpreter is set for a node: found by measuring, see docs/performance.md."""

from __future__ import annotations

import gc
import sys

YOUNG_OBJECTS = 50_000
"""Containers made before the collector looks at the young ones. A slice of a thousand commands makes
a few thousand, nearly all of which are gone when it ends; with 700 they were looked at again and again."""
SWITCH_SECONDS = 0.0005
"""How soon a thread that asks for the interpreter gets it: the log's, which has just synced, must not
wait 5 ms for the loop to pause."""


def tune_threads() -> None:
    """Call once in a node's process, before it has any threads."""
    sys.setswitchinterval(SWITCH_SECONDS)


def tune_collector() -> None:
    """Call once in a node's process, when all modules are loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 50)
