"""How long a call may take, as its caller says it."""

from __future__ import annotations

LONGEST = 365 * 86_400.0
"""Seconds, and as good as for ever: loops and gRPC do not take infinity."""


def within(timeout: float | None, default: float) -> float:
    """Seconds: those given, else the default. 0 is not to wait at all; ``math.inf`` as long as it takes.

    Raises ValueError if it is negative or no number.
    """
    if timeout is None:
        return default
    if not timeout >= 0:
        raise ValueError(f"timeout {timeout!r}: expected 0 or more seconds")
    return min(timeout, LONGEST)
