"""The rule of users and roles in a few lines, to check the real one against: slow, and plainly right.

A request is allowed if each key that each of its ranges can hold is in a permission of the needed kind of
some role of the user, and an open end is in an open one. Enough keys are tried to tell any two ranges apart
that are made of the keys it is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

READ, WRITE, READWRITE = 0, 1, 2
OPEN = b"\x00"
"""As the end of a range: it has none."""
ROOT = "root"


class Span(NamedTuple):
    """A permission, or what a request needs one for."""

    kind: int
    key: bytes
    end: bytes

    def holds(self, point: bytes) -> bool:
        """Whether that key is in it; one whose end is at or below its key is that key alone."""
        if self.end == OPEN:
            return point >= self.key
        return self.key <= point < self.end if self.end > self.key else point == self.key


@dataclass
class RightsModel:
    """Who there is, and what each may do."""

    keys: Iterable[bytes]
    """All that ranges are made of."""
    users: dict[str, set[str]] = field(default_factory=dict)
    """Names of roles."""
    roles: dict[str, list[Span]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._points = sorted({key + more for key in self.keys for more in (b"", b"\x00", b"\x01")})

    def allowed(self, user: str, needs: Sequence[Span]) -> bool:
        """The rule."""
        held = self.users.get(user, set())
        spans = [span for role in held for span in self.roles.get(role, ())]
        return user in self.users and (ROOT in held or all(self._covered(spans, need) for need in needs))

    def _covered(self, held: Sequence[Span], need: Span) -> bool:
        good = [span for span in held if span.kind in (need.kind, READWRITE)]
        if need.end == OPEN and not any(span.end == OPEN for span in good):
            return False
        return all(any(one.holds(point) for one in good) for point in self._points if need.holds(point))
