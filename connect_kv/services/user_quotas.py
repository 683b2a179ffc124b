"""How much one user may have of what all share. With authentication off nobody is told apart, or limited.

Who holds the role root is not limited: an operator must get in when somebody else has taken all there is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from connect_kv.etcd_errors import Code, Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class UserLimits:
    """What one user may have at a time; 0 is no limit."""

    streams: int = 8192
    """Open at a time on this member, of any kind."""
    watches: int = 500_000
    """Watches on this member, over all streams."""
    sessions: int = 5000
    """In the cluster: half of those that there can be, so that nobody drives out all others'. Members that
    open some at the same moment do not see each other's: a few more are possible."""


class UserQuotas:
    """Counts what each user has, and refuses by name what is beyond its limits."""

    def __init__(self, limits: UserLimits, free: Callable[[str], bool] = lambda user: False) -> None:
        """`free`: who is not limited."""
        self._limits = limits
        self._free = free
        self._streams: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        """How often, by what was limited."""

    @contextmanager
    def stream(self, user: str) -> Iterator[None]:
        """Around a stream of that user. Raises Refused."""
        if not user:
            yield
            return
        self._check(user, "streams", self._streams[user], self._limits.streams, "open on this member")
        self._streams[user] += 1
        try:
            yield
        finally:
            self._streams[user] -= 1
            if not self._streams[user]:
                del self._streams[user]

    def watch(self, user: str, there: int) -> None:
        """Before one more beside those that are there. Raises Refused."""
        self._check(user, "watches", there, self._limits.watches, "on this member")

    def session(self, user: str, there: int) -> None:
        """Before one more beside those that are there. Raises Refused."""
        self._check(user, "sessions", there, self._limits.sessions, "open")

    def _check(self, user: str, what: str, there: int, most: int, where: str) -> None:
        if user and 0 < most <= there and not self._free(user):
            self.refused[what] += 1
            shown = user if len(user) <= 64 else f"{user[:64]}..."
            text = f"connect-kv: user {shown!r} has {there} {what} {where}, and may have no more"
            raise Refusal(Code.RESOURCE_EXHAUSTED, text).error()
