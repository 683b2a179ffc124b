"""Authenticator: who a caller is, by the token or the certificate that came with a call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from connect_kv.auth.table import AuthTable
from connect_kv.auth.tokens import Tokens, UserIdentity


@dataclass(frozen=True, slots=True)
class CallCredentials:
    """What came with a call to show whose it is."""

    token: str | None = None
    """As sent, without a ``Bearer`` before it; None: none was sent. Never shown in a log line."""
    certificate: str | None = None
    """The CommonName of a client certificate that was verified; None without one."""

    def __repr__(self) -> str:
        return f"Credentials(token={'...' if self.token else self.token!r}, certificate={self.certificate!r})"


NOTHING = CallCredentials()


class Authenticator:
    """Looks tokens and certificates up. With authentication off it is not asked."""

    def __init__(
        self,
        table: AuthTable,
        tokens: Tokens,
        *,
        applied: Callable[[int], Awaitable[object]],
        last_applied: Callable[[], int],
        patience: float,
    ) -> None:
        """`applied` waits until this member has applied an index; `patience`: seconds that may take."""
        self._table = table
        self._tokens = tokens
        self._applied = applied
        self._last_applied = last_applied
        self._patience = patience

    def late(self, credentials: CallCredentials) -> bool:
        """Whether its token may be of a login that this member has not applied yet: then `catch_up` first."""
        if credentials.token is None or self._table.user_of_token(credentials.token) is not None:
            return False
        index = self._tokens.index_of(credentials.token)
        return index is not None and index > self._last_applied()

    async def catch_up(self, credentials: CallCredentials) -> None:
        """Wait for the entry that its token names, but not for ever: anybody can make up a number."""
        index = self._tokens.index_of(credentials.token or "")
        if index is not None:
            try:
                async with asyncio.timeout(self._patience):
                    await self._applied(index)
            except TimeoutError:
                pass  # `identify` says what that means

    def identify(self, credentials: CallCredentials) -> UserIdentity | None:
        """Who it is; None for nobody. Raises Refused for a token that is not good.

        A token counts before a certificate: a bad one is not made good by it.
        """
        if credentials.token is not None:
            return self._tokens.identify(credentials.token)
        if credentials.certificate is not None:
            return UserIdentity(credentials.certificate)
        return None
