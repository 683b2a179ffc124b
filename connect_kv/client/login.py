"""Who a client is to the cluster, where users are asked for: a password that gets tokens, or a token alone.

A token dies with the member that forgot it, with a change of users (JSON Web Tokens), or by idleness; whoever
has the password logs in again then, once for all calls that wait, and nobody above hears of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from connect_kv import errors
from connect_kv.client.failures import (
    CANNOT_LOG_IN,
    DEADLINE_EXCEEDED,
    LOGGED_OUT,
    UNAUTHENTICATED,
    CallFailed,
    Fate,
    fate,
)

NOT_ENABLED = "etcdserver: authentication is not enabled"
NOBODY = "etcdserver: user name is empty"
"""What who shows no token is told, once authentication is on."""
NOT_KNOWN = ("etcdserver: invalid auth token", "etcdserver: revision of auth store is old")
"""What is said of a token that was good, perhaps, and is no longer."""
LOGIN_SECONDS = 5.0
"""A member that takes longer is left, and another asked; comparing a password is meant to take time."""

Metadata: TypeAlias = tuple[tuple[str, str], ...]
Authenticate: TypeAlias = Callable[[str, str, float], Awaitable[str]]
"""(name, password, seconds) at one member; gives a token. Raises CallFailed."""


def login_of(user: str, password: str | None, token: str) -> Login | None:
    """From what a program gives; None for nobody. Raises ConfigError for half of it."""
    if user and password is not None and not token:
        return Login(user, password)
    if token and not user and password is None:
        return Login(token=token)
    if user or token or password is not None:
        raise errors.ConfigError("expected a user and a password, or a token, or none of them")
    return None


class Login:
    """One for all members: a token that one of them gave is good at the others."""

    def __init__(self, user: str = "", password: str = "", *, token: str = "") -> None:
        """`token`: of a login made before; without a user it is all there is."""
        self._user = user
        self._password = password
        self._shown: Metadata | None = (("token", token),) if token else None
        """Beside each call; None: to be found out."""
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"Login(user={self._user!r})"

    async def show(self, authenticate: Authenticate, timeout: float | None = None) -> Metadata:
        """What to send beside a call: a token, after a login if need be; nothing where nobody is asked.

        `authenticate` is that of the member which is going to be called. Raises CallFailed.
        """
        if self._shown is not None:
            return self._shown
        seconds = LOGIN_SECONDS if timeout is None else min(timeout, LOGIN_SECONDS)
        try:
            async with asyncio.timeout(seconds), self._turn:
                if self._shown is None:  # somebody who waited before us may have got one
                    self._shown = await self._log_in(authenticate, seconds)
                return self._shown
        except TimeoutError:
            raise CallFailed(DEADLINE_EXCEEDED, f"{CANNOT_LOG_IN}no answer in time") from None

    def refused(self, shown: Metadata, text: str) -> bool:
        """Whether a call was refused for what was `shown`, and another login may help: the next one makes it.

        `text`: of the refusal, or the reason with which a watch was ended.
        """
        if not self._user or not text.endswith(NOT_KNOWN if shown else NOBODY):
            return False
        if self._shown is shown:  # else somebody has noticed before
            self._shown = None
        return True

    async def _log_in(self, authenticate: Authenticate, seconds: float) -> Metadata:
        try:
            return (("token", await authenticate(self._user, self._password, seconds)),)
        except CallFailed as error:
            if error.text == NOT_ENABLED:
                return ()
            if fate(error.code, error.text) is Fate.REFUSED:
                raise
            # Whatever became of the login: the call for which it was made was not sent.
            raise CallFailed(error.code, f"{CANNOT_LOG_IN}{error.text}", error.beside) from error


class Badge:
    """A login as one member's calls use it."""

    def __init__(self, login: Login, authenticate: Authenticate) -> None:
        self._login = login
        self._authenticate = authenticate

    async def show(self, timeout: float | None = None) -> Metadata:
        """See `Login.show`."""
        return await self._login.show(self._authenticate, timeout)

    def refused(self, shown: Metadata, text: str) -> bool:
        """See `Login.refused`."""
        return self._login.refused(shown, text)


def logged_out() -> CallFailed:
    """What a stream ends with when its token is no longer known: nothing was done, begin another."""
    return CallFailed(UNAUTHENTICATED, LOGGED_OUT)
