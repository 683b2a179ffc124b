"""One depth for the code of users: a recursion fails after as many calls on every member, each time."""

from __future__ import annotations

import sys
from types import CodeType, FrameType

CALLS = 1000
"""So many calls within each other are possible from where a machine is entered, as in a new program."""


STACK_BYTES = 64 << 20
"""Of the thread that runs machines: enough for so many calls, whatever each of them is."""


_MOST_WAYS = 256


_limits: dict[tuple[CodeType, ...], int] = {}
"""What limit gives CALLS calls, by the way that led to where it is set."""


class FixedDepth:
    """While it lasts, whoever began it can go about CALLS calls deeper. Then the limit is what it was.

    How deep the interpreter is already depends on who asks: the applier, a replay, a simulation. Frames
    can be counted, what lies between them in C cannot; so the first time that a way leads here it is tried.
    """

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before = sys.getrecursionlimit()
        way: list[CodeType] = []
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            way.append(frame.f_code)
            frame = frame.f_back
        limit = _limits.get(key := tuple(way))
        if limit is None:
            if len(_limits) >= _MOST_WAYS:
                _limits.clear()
            sys.setrecursionlimit(len(way) + CALLS)
            limit = _limits[key] = len(way) + 2 * CALLS - _possible(0)
        if sys.getrecursionlimit() != limit:
            sys.setrecursionlimit(limit)

    def __exit__(self, *_: object) -> None:
        if sys.getrecursionlimit() != self._before:
            sys.setrecursionlimit(self._before)


def _possible(depth: int) -> int:
    """How many calls deeper it goes from here."""
    try:
        return _possible(depth + 1)
    except RecursionError:
        return depth
