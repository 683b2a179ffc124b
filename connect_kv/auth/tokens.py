"""Tokens: what a login gives, and whose a token is.

Simple tokens are random letters and the log index of their login; the table, which each member fills from the
log, says whose they are. JSON Web Tokens carry the name and the auth revision themselves, signed.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import jwt

from connect_kv.auth.table import AuthTable
from connect_kv.etcd_errors import Code, Refusal

INVALID_TOKEN = Refusal(Code.UNAUTHENTICATED, "etcdserver: invalid auth token")
VERIFY_ONLY = Refusal(Code.UNKNOWN, "auth: token signing attempted with verify-only key")
LETTERS = 16
"""Random letters of a simple token."""
MOST_REMEMBERED = 4096
"""JSON Web Tokens of which is known that their signature is right."""
_NEVER = 1e18
LONGEST_REMEMBERED = 2048
"""Bytes of one of them."""


@dataclass(frozen=True, slots=True)
class UserIdentity:
    """Who somebody has proved to be."""

    name: str
    revision: int | None = None
    """The auth revision a JSON Web Token was made at: after any change it is stale. None: never stale."""


class Tokens(Protocol):
    """One way of making tokens."""

    def begin(self, rng: random.Random) -> str:
        """The part that a login puts into the log; empty where nothing is kept there."""

    def finish(self, name: str, revision: int, from_log: str) -> str:
        """The token for the client. Raises Refused."""

    def index_of(self, token: str) -> int | None:
        """The log index this token waits for; None if it is no such token, or waits for none."""

    def identify(self, token: str) -> UserIdentity:
        """Whose it is. Raises Refused (INVALID_TOKEN)."""

    def expire(self) -> None:
        """Forget what nobody has used for long. Called now and then."""


class SimpleTokens:
    """etcd's ``--auth-token simple``."""

    def __init__(self, table: AuthTable, now: Callable[[], float], *, ttl: float = 300.0) -> None:
        """`now`: monotonic seconds; `ttl`: how long one lives without being used."""
        self._table = table
        self._now = now
        self._ttl = ttl
        self._used: dict[str, float] = {}
        self._identities: dict[str, UserIdentity] = {}
        """By name: made once, not for each call."""

    def begin(self, rng: random.Random) -> str:
        """Letters that nobody can guess."""
        return "".join(rng.choices(string.ascii_letters, k=LETTERS))

    def finish(self, name: str, revision: int, from_log: str) -> str:
        """The token, which applying the login has completed with its index."""
        return from_log

    def index_of(self, token: str) -> int | None:
        """What stands behind the dot."""
        letters, dot, number = token.partition(".")
        if not (letters and dot and number.isascii() and number.isdigit() and len(number) < 20):
            return None
        return int(number)

    def identify(self, token: str) -> UserIdentity:
        """By the table; using it keeps it alive on this member."""
        name = self._table.user_of_token(token)
        if name is None:
            raise INVALID_TOKEN.error()
        self._used[token] = self._now()
        identity = self._identities.get(name)
        if identity is None:
            identity = self._identities[name] = UserIdentity(name)
        return identity

    def expire(self) -> None:
        """A token that this member has not seen used counts from when it is first looked at here."""
        now = self._now()
        known = self._table.tokens
        self._used = {token: self._used.get(token, now) for token in known}
        if len(self._identities) > len(self._table.users):
            self._identities.clear()
        for token, used in self._used.items():
            if now - used > self._ttl:
                self._table.forget_token(token)


class JwtTokens:
    """etcd's ``--auth-token jwt,...``: signed, so no member has to remember them."""

    def __init__(
        self,
        table: AuthTable,
        wall: Callable[[], float],
        *,
        method: str,
        verify_key: object,
        sign_key: object | None,
        ttl: float,
    ) -> None:
        """`wall`: seconds since 1970; `method`: as RS256; without a `sign_key` this member verifies only."""
        self._table = table
        self._wall = wall
        self._method = method
        self._verify_key = verify_key
        self._sign_key = sign_key
        self._ttl = ttl
        self._good: dict[str, tuple[UserIdentity, float]] = {}
        """Those whose signature was right, and when each ends."""

    def begin(self, rng: random.Random) -> str:
        """Nothing: the log need not know of it."""
        return ""

    def finish(self, name: str, revision: int, from_log: str) -> str:
        """Sign who it is, and as of which revision."""
        if self._sign_key is None:
            raise VERIFY_ONLY.error()
        claims = {"username": name, "revision": revision, "exp": int(self._wall() + self._ttl)}
        return jwt.encode(claims, self._sign_key, algorithm=self._method)  # type: ignore[arg-type]

    def index_of(self, token: str) -> int | None:
        """It waits for no entry."""
        return None

    def identify(self, token: str) -> UserIdentity:
        """Signature, exactly the configured method, and the time it ends, if it says one.

        A signature is looked at once: it costs 0.1 ms, and a client sends its token with every call.
        """
        known = self._good.get(token)
        if known is not None and self._wall() < known[1]:
            return known[0]
        identity, end = self._read(token)
        if len(self._good) >= MOST_REMEMBERED:
            self._good.clear()
        if len(token) <= LONGEST_REMEMBERED:
            self._good[token] = identity, end
        return identity

    def _read(self, token: str) -> tuple[UserIdentity, float]:
        try:
            claims = jwt.decode(
                token,
                self._verify_key,  # type: ignore[arg-type]
                algorithms=[self._method],
                options={"verify_exp": False, "verify_aud": False, "verify_iat": False, "verify_nbf": False},
            )
        except (jwt.PyJWTError, ValueError, TypeError):
            raise INVALID_TOKEN.error() from None
        name, revision, end = claims.get("username"), claims.get("revision", 0), claims.get("exp")
        ended = end is not None and (not isinstance(end, int | float) or end <= self._wall())
        if not isinstance(name, str) or not isinstance(revision, int) or ended:
            raise INVALID_TOKEN.error()
        return UserIdentity(name, revision), float("inf") if end is None else float(min(end, _NEVER))

    def expire(self) -> None:
        """Nothing to do: a signed token carries its own end."""
