"""What is refused because it is too much: counted, and told in one line of the audit log a second and peer.

Calls of a member with too many, logins that come too fast, messages and connections beyond a limit: they say
who abuses a member, and how. A line for each would let whoever does it fill the disk with them, and the other
lines of the log would drown in these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from connect_kv.errors import Overloaded, Refused, RequestTooLarge
from connect_kv.etcd_errors import NO_SPACE, Code

SECONDS = 1.0
"""From the first one to the lines that tell of it, and of all that came until then."""
MOST_LINES = 64
"""In that time; what else is refused is one more line, of nobody in particular."""
OTHERS = "others"
"""Where that comes from."""


def is_limit(error: BaseException | None) -> bool:
    """Whether something was refused for there was too much of it, and nothing was done.

    No space is another matter: that is a state of the cluster, and of each write.
    """
    if isinstance(error, Refused):
        return error.code == Code.RESOURCE_EXHAUSTED and error.message != NO_SPACE.message
    return isinstance(error, Overloaded | RequestTooLarge)


@dataclass(frozen=True, slots=True)
class LimitedPeer:
    """Those of one peer, user and method within a second."""

    host: str
    user: str
    by: str
    call: str
    """Empty: of connections."""


@dataclass(slots=True)
class LimitNotice:
    """What is said of them."""

    code: str
    reason: str
    """The last one's."""
    times: int = 0


class LimitCounts:
    """Gathers them, and gives them to `tell` a second after the first."""

    def __init__(
        self,
        tell: Callable[[LimitedPeer, LimitNotice], None],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        """`later` calls something after so many seconds."""
        self._tell = tell
        self._later = later
        self._gathered: dict[LimitedPeer, LimitNotice] = {}

    def note(self, address: str, user: str, by: str, call: str, code: str, reason: str) -> None:
        """One more. `address`: ``host:port``."""
        if not self._gathered:
            self._later(SECONDS, self.flush)
        key = LimitedPeer(address.rpartition(":")[0], user, by, call)
        told = self._gathered.get(key)
        if told is None:
            if len(self._gathered) >= MOST_LINES:
                key = LimitedPeer(OTHERS, "", "", "")
            told = self._gathered.setdefault(key, LimitNotice(code, reason))
        told.times += 1
        told.code, told.reason = code, reason

    def flush(self) -> None:
        """Tell what has gathered."""
        gathered, self._gathered = self._gathered, {}
        for key, told in gathered.items():
            self._tell(key, told)
