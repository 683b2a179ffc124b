"""Slows failed logins down: who guesses passwords waits longer with every wrong one.

Counted twice. By user and address, so that one password cannot be guessed fast, and so that whoever guesses
from one address keeps nobody out who comes from another. By address alone, so that trying a few passwords of
many users is slow as well; there the waits stay short, for many honest users may share an address.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from connect_kv.etcd_errors import Code, Refusal

MOST_KNOWN = 10_000
"""Users at addresses, and addresses, of which failures are remembered; the ones that failed longest ago are
forgotten first. Of each about 300 bytes."""
FORGET_SECONDS = 900.0
"""Without a failure: then it begins anew."""
LONGEST_WAIT = 5.0
"""Seconds that a login waits for its turn here; whoever would wait longer is refused at once."""
MOST_WAITING = 256
"""Logins that may wait for their turn at a time."""
LONGEST_NAME = 256
"""Of the name that is remembered: names that are longer, and alike up to here, are slowed together."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How failures become waits."""

    free: int
    """Failures without a wait after them."""
    first: float
    """Seconds after the next one; each further one doubles it."""
    longest: float

    def wait(self, failures: int) -> float:
        """Seconds between the last of so many failures and the next attempt."""
        if failures <= self.free:
            return 0.0
        return min(self.longest, self.first * 2.0 ** min(failures - self.free - 1, 32))


USER_AND_ADDRESS = Pace(free=4, first=0.25, longest=60.0)
ADDRESS = Pace(free=32, first=0.1, longest=2.0)


@dataclass(slots=True)
class _Failures:
    count: int = 0
    last: float = 0.0
    not_before: float = 0.0


class _Remembered:
    """Failures by some key, the latest at the end."""

    def __init__(self, pace: Pace, most: int) -> None:
        self._pace = pace
        self._most = most
        self._known: OrderedDict[object, _Failures] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def wait(self, key: object, now: float) -> float:
        """Seconds until its next attempt."""
        found = self._known.get(key)
        if found is None or now - found.last > FORGET_SECONDS:
            return 0.0
        return max(0.0, found.not_before - now)

    def begin(self, key: object, at: float) -> None:
        """Its next attempt is made at that time: those beside it come after it, one by one."""
        found = self._known.get(key)
        if found is not None:
            found.not_before = at + self._pace.wait(found.count)

    def failed(self, key: object, now: float) -> None:
        """An attempt with this key failed at `now`: the next one has to wait longer."""
        found = self._known.pop(key, None)
        if found is None or now - found.last > FORGET_SECONDS:
            found = _Failures()
        self._known[key] = found
        found.count, found.last = found.count + 1, now
        found.not_before = max(found.not_before, now + self._pace.wait(found.count))
        if len(self._known) > self._most:
            self._known.popitem(last=False)

    def forget(self, key: object) -> None:
        """An attempt with this key succeeded: failures before it do not count any more."""
        self._known.pop(key, None)


class LoginAttempts:
    """Says of each login when it may be tried. It has no clock of its own: `now` is monotonic seconds."""

    def __init__(self, now: Callable[[], float], *, most_known: int = MOST_KNOWN) -> None:
        self._now = now
        self._pairs = _Remembered(USER_AND_ADDRESS, most_known)
        self._addresses = _Remembered(ADDRESS, most_known)
        self.failed = self.succeeded = self.slowed = self.refused = 0
        """Logins that ended so; `slowed` ones had to wait for their turn."""

    @property
    def known(self) -> int:
        """Users at addresses, and addresses, of which something is remembered."""
        return len(self._pairs) + len(self._addresses)

    def begin(self, name: str, address: str) -> float:
        """Seconds to wait before the password is looked at. Raises Refused where that is too long.

        `address` is ``host:port``, or empty where none is known.
        """
        now, (pair, host) = self._now(), _keys(name, address)
        wait = max(self._pairs.wait(pair, now), self._addresses.wait(host, now))
        if wait > LONGEST_WAIT:
            self.refused += 1
            raise too_many_failures(wait).error()
        self._pairs.begin(pair, now + wait)
        self._addresses.begin(host, now + wait)
        self.slowed += wait > 0
        return wait

    def end(self, name: str, address: str, *, good: bool) -> None:
        """How it went. A success forgets the failures of this user from there; those of the address stay,
        else who has an account could use it to guess others' passwords.
        """
        pair, host = _keys(name, address)
        if good:
            self.succeeded += 1
            self._pairs.forget(pair)
            return
        self.failed += 1
        now = self._now()
        self._pairs.failed(pair, now)
        self._addresses.failed(host, now)


def too_many_failures(wait: float) -> Refusal:
    """What is said, whether there is such a user or not."""
    return Refusal(
        Code.RESOURCE_EXHAUSTED, f"connect-kv: too many failed logins: try again in {max(1, round(wait))} s"
    )


def _keys(name: str, address: str) -> tuple[tuple[str, str], str]:
    host = host_of(address)
    return (name[:LONGEST_NAME], host), host


@lru_cache(1024)
def host_of(address: str) -> str:
    """Who is slowed together: a host of IPv4, a network of IPv6 (its first 64 bits are one customer's)."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
    return str(found)
