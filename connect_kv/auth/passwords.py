"""Passwords: only their bcrypt hashes are kept, and comparing one never holds the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import bcrypt

from connect_kv.errors import Overloaded
from connect_kv.etcd_errors import Code, Refusal
from connect_kv.interfaces import Worker

T = TypeVar("T")

LONGEST = 72
"""Bytes of a password that bcrypt looks at; longer ones are refused."""
TOO_LONG = Refusal(Code.UNKNOWN, "bcrypt: password length exceeds 72 bytes")
_NO_HASH = b"." * 21 + b"u" + b"." * 31
"""Salt and hash in bcrypt's letters."""
MOST_WAITING = 64
"""Hashes and comparisons that may wait; each takes about 50 ms of one processor at the default cost. More are
refused: whoever guesses passwords must not make everybody else wait for their login."""


class Passwords:
    """Hashes and compares on a thread of its own, one after the other."""

    def __init__(self, worker: Worker, *, cost: int = 10) -> None:
        """`cost`: the logarithm of bcrypt's rounds, 4 to 31, of passwords set from now on."""
        self._worker = worker
        self._cost = cost
        self.decoy = b"$2b$%02d$" % cost + _NO_HASH
        """To be compared where there is no user: takes as long as a real one, and is nobody's."""
        self._waiting = 0

    def check(self, password: str) -> None:
        """Raises Refused for a password that is too long."""
        if len(password.encode()) > LONGEST:
            raise TOO_LONG.error()

    async def hash(self, password: str) -> str:
        """The hash to keep. Raises Refused for a password that is too long, Overloaded."""
        self.check(password)
        data = password.encode()
        return await self._run(lambda: bcrypt.hashpw(data, bcrypt.gensalt(self._cost)).decode())

    async def matches(self, password: str, hashed: bytes) -> bool:
        """Whether that is its hash; never for a password that is too long, or for a hash that is none."""
        data = password.encode()
        if len(data) > LONGEST or not hashed:
            return False

        def compare() -> bool:
            try:
                return bcrypt.checkpw(data, hashed)
            except ValueError:
                return False

        return await self._run(compare)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= MOST_WAITING:
            raise Overloaded("too many logins wait")
        self._waiting += 1
        try:
            return await self._worker.run(work)
        finally:
            self._waiting -= 1
