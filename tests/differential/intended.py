"""Differences that are meant, each listed in docs/api.md with its reason."""

from __future__ import annotations

from typing import Any


def explained(request: Any, theirs: Any, ours: Any) -> bool:
    """Whether this difference is one we intend."""
    return False
