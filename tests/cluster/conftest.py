"""Every test in this folder starts real processes on loopback."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.cluster)


def rounds(default: int) -> int:
    """How often to repeat a fault: few in CI, CONNECT_KV_ROUNDS for a long run."""
    return int(os.environ.get("CONNECT_KV_ROUNDS", default))


def scaled(brief: float, full: float) -> float:
    """An amount: brief in CI, full where CONNECT_KV_FULL is set (docs/verification.md has the results)."""
    return full if os.environ.get("CONNECT_KV_FULL") else brief


def needs(tool: str) -> str:
    """The path of a tool; skips the test, loudly, where it is not installed."""
    path = shutil.which(tool)
    if path is None:
        print(f"\nSKIPPED FOR LACK OF {tool}: run scripts/ci-tools", file=sys.stderr)
        pytest.skip(f"{tool} is not installed; scripts/ci-tools installs it")
    return path
