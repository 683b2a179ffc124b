"""The members a client knows: one channel each, the working ones first."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, TypeAlias

from connect_kv import errors
from connect_kv.client import trouble
from connect_kv.client.failures import CallFailed
from connect_kv.credentials import Material, Tls, client_credentials
from connect_kv.hosts import split_address
from connect_kv.rpc.maintenance_pb2 import StatusRequest

if TYPE_CHECKING:
    import grpc.aio

    from connect_kv.client.login import Login
    from connect_kv.client.stubs import Stubs

FIRST_BACKOFF = 0.05
LONGEST_BACKOFF = 1.0
"""Seconds. A member that failed is asked again after at most this, and a little chance."""
LOOK_AHEAD = 1.0
"""Seconds before a call is given up, and at most half of its time: then members are asked how they are."""

_SCHEME = re.compile(r"(https?)://")


def parse_endpoints(endpoints: str | Iterable[str]) -> list[str]:
    """``host:port`` of each; a comma-separated text or several. They may have a scheme (`asks_tls`)."""
    found = [bare_address(text).rstrip("/") for text in _texts(endpoints)]
    for text in found:
        try:
            _, port = split_address(text)
        except ValueError:
            port = 0
        if not port:
            raise errors.ConfigError(f"endpoint {text!r}: expected HOST:PORT")
    if not found:
        raise errors.ConfigError("no endpoints given: expected HOST:PORT[,HOST:PORT...]")
    return list(dict.fromkeys(found))


def bare_address(url: str) -> str:
    """A member's URL without its scheme."""
    return _SCHEME.sub("", url, count=1)


def asks_tls(endpoints: str | Iterable[str], given: bool) -> bool:
    """Whether they are reached over TLS: ``https://`` stands before them, or TLS is `given`.

    Raises ConfigError where one says what the others, or the caller, do not.
    """
    schemes = {found[1] for text in _texts(endpoints) if (found := _SCHEME.match(text))}
    if len(schemes) > 1 or (given and "http" in schemes):
        raise errors.ConfigError("an endpoint with http:// is reached without TLS, and the others with it")
    return given or "https" in schemes


def _texts(endpoints: str | Iterable[str]) -> list[str]:
    texts = endpoints.split(",") if isinstance(endpoints, str) else list(endpoints)
    return [text.strip() for text in texts if text.strip()]


ChannelTo: TypeAlias = "Callable[[str], grpc.aio.Channel]"
"""Makes the channel to an address; a simulator makes its own."""


class SecureChannels:
    """Makes channels over TLS. One keeps what the files held when it was made."""

    def __init__(self, tls: Tls) -> None:
        """Raises ConfigError for files that cannot be used."""
        self._credentials = client_credentials(tls)
        self._server_name = tls.server_name

    def __call__(self, address: str) -> grpc.aio.Channel:
        """A new one, by the files as they are now."""
        from connect_kv.client.stubs import open_channel

        return open_channel(address, self._credentials, self._server_name)

    @property
    def latest(self) -> Material:
        """What the files hold."""
        return self._credentials.latest


class Endpoint:
    """One member's address, its channel (made when first used) and how it fared lately."""

    def __init__(self, address: str, channel_to: ChannelTo | None = None, login: Login | None = None) -> None:
        self.address = address
        self._channel_to = channel_to
        self._login = login
        self.failures = 0
        self.trouble = ""
        """What was wrong with it when it was asked last; empty: nothing."""
        self.retry_at = 0.0
        self._channel: grpc.aio.Channel | None = None
        self._stubs: Stubs | None = None
        self._material: Material | None = None
        self._replaced: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def stubs(self) -> Stubs:
        """The calls of this member. Raises ClientNotOpen after `close`: nobody connects again then."""
        if self._closed:
            raise errors.ClientNotOpen("the client was closed")
        if self._stubs is None:
            # Here, and not above: nobody needs gRPC who only imports the client.
            from connect_kv.client.stubs import Stubs, open_channel

            if isinstance(self._channel_to, SecureChannels):
                self._material = self._channel_to.latest
            self._channel = (self._channel_to or open_channel)(self.address)
            self._stubs = Stubs(self._channel, self._login)
        return self._stubs

    def renew(self) -> None:
        """A call failed: if files of TLS have changed since, the next one makes a connection by these."""
        channel = self._channel
        if channel is None or not isinstance(self._channel_to, SecureChannels):
            return
        if self._channel_to.latest is not self._material:
            self._channel = self._stubs = None
            task = asyncio.get_running_loop().create_task(channel.close())
            self._replaced.add(task)
            task.add_done_callback(self._replaced.discard)

    async def close(self) -> None:
        """End its connection for good; calls on it fail."""
        self._closed = True
        await asyncio.gather(*self._replaced)
        if self._channel is not None:
            await self._channel.close()
            self._channel = self._stubs = None


class Endpoints:
    """Chooses whom to ask: stays with one that works, goes round past those that failed just now."""

    def __init__(
        self,
        endpoints: str | Iterable[str],
        rng: random.Random,
        channel_to: ChannelTo | None = None,
        login: Login | None = None,
    ) -> None:
        self.all = [Endpoint(address, channel_to, login) for address in parse_endpoints(endpoints)]
        self._rng = rng
        self._current = 0
        self._looking: asyncio.Task[None] | None = None

    def pick(self, now: float) -> tuple[Endpoint, float]:
        """Whom to ask, and in how many seconds (0: now).

        The current one, else the next that has not failed lately, else the one due first.
        """
        count = len(self.all)
        for step in range(count):
            index = (self._current + step) % count
            if self.all[index].retry_at <= now:
                self._current = index
                return self.all[index], 0.0
        soonest = min(self.all, key=lambda endpoint: endpoint.retry_at)
        self._current = self.all.index(soonest)
        return soonest, soonest.retry_at - now

    def turn_from(self, endpoint: Endpoint) -> None:
        """It is well and cannot help with one thing: the next one is asked."""
        self._current = (self.all.index(endpoint) + 1) % len(self.all)

    def find(self, address: str) -> Endpoint:
        """The endpoint with that address. Raises ConfigError."""
        for endpoint in self.all:
            if endpoint.address == address:
                return endpoint
        raise errors.ConfigError(f"{address} is not one of the client's endpoints")

    def failed(self, endpoint: Endpoint, now: float, why: str) -> None:
        """It did not answer, or could not help: go on to others, and leave it alone for a while."""
        backoff = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** min(endpoint.failures, 10))
        endpoint.failures += 1
        endpoint.renew()
        endpoint.retry_at = now + backoff * (0.5 + self._rng.random() / 2)
        if not endpoint.trouble.startswith(f"{why}: "):  # else it is known in more detail
            endpoint.trouble = why

    def reached(self, endpoint: Endpoint) -> None:
        """There is a connection."""
        endpoint.failures = 0
        endpoint.retry_at = 0.0

    def worked(self, endpoint: Endpoint) -> None:
        """It did what it was asked."""
        self.reached(endpoint)
        endpoint.trouble = ""

    def account(self) -> str:
        """What is wrong with which members, in one line; empty if nothing is known."""
        return trouble.account((endpoint.address, endpoint.trouble) for endpoint in self.all)

    def look_before(self, deadline: float, timeout: float) -> asyncio.TimerHandle:
        """Have `look` done shortly before a call of `timeout` seconds is given up; cancel it if it is not."""
        ahead = min(LOOK_AHEAD, timeout / 2)
        return asyncio.get_running_loop().call_at(deadline - ahead, self.look, ahead)

    def look(self, seconds: float) -> None:
        """Ask every member how it is, beside all else: `account` has the answers within `seconds`.

        A member without a leader keeps calls waiting in the hope of one. Who gives up before it does
        would otherwise know only that it was silent.
        """
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._ask_all(seconds))

    async def _ask_all(self, seconds: float) -> None:
        await asyncio.gather(*(self._ask(endpoint, seconds) for endpoint in self.all))

    async def _ask(self, endpoint: Endpoint, seconds: float) -> None:
        try:
            status = await endpoint.stubs.status(StatusRequest(), timeout=0.8 * seconds)
        except CallFailed as error:
            endpoint.trouble = trouble.of(error)
        except errors.ClientNotOpen:
            pass
        else:
            endpoint.trouble = trouble.told(status)

    async def close(self) -> None:
        """Close all channels."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        async with AsyncExitStack() as stack:
            for endpoint in self.all:
                stack.push_async_callback(endpoint.close)
