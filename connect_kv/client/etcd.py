"""The client, talking to an etcd: the same calls under etcd's names.

What only we have (sessions, replicated classes, locks that say who holds them) an etcd refuses as unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from connect_kv.client.client import DEFAULT_TIMEOUT, Client, connect
from connect_kv.client.endpoints import ChannelTo, SecureChannels, asks_tls
from connect_kv.credentials import Tls

if TYPE_CHECKING:
    import grpc.aio

_OURS = "/connect_kv.v1."
_THEIRS = "/etcdserverpb."


def connect_etcd(
    endpoints: str | Iterable[str],
    *,
    timeout: float = DEFAULT_TIMEOUT,
    tls: Tls | None = None,
    user: str = "",
    password: str | None = None,
) -> Client:
    """A client of the etcd with these members; see `connect_kv.connect`. Each call is a call of its own."""
    channel_to: ChannelTo | None = None
    if asks_tls(endpoints, tls is not None):
        channel_to = SecureChannels(tls or Tls())
    return connect(
        endpoints,
        timeout=timeout,
        session=False,
        user=user,
        password=password,
        channel_to=_renamed(channel_to),
    )


def _renamed(channel_to: ChannelTo | None) -> ChannelTo:
    def open_to(address: str) -> grpc.aio.Channel:
        from connect_kv.client.stubs import open_channel

        channel = (channel_to or open_channel)(address)
        # It has what a client uses of a channel.
        return cast("grpc.aio.Channel", _RenamedChannel(channel))

    return open_to


class _RenamedChannel:
    """A channel on which our services have etcd's names."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    def unary_unary(self, method: str, **options: Any) -> object:
        """See grpc.aio.Channel."""
        return self._channel.unary_unary(_named(method), **options)

    def unary_stream(self, method: str, **options: Any) -> object:
        """See grpc.aio.Channel."""
        return self._channel.unary_stream(_named(method), **options)

    def stream_stream(self, method: str, **options: Any) -> object:
        """See grpc.aio.Channel."""
        return self._channel.stream_stream(_named(method), **options)

    async def close(self) -> None:
        """See grpc.aio.Channel."""
        await self._channel.close()


def _named(method: str) -> str:
    return method.replace(_OURS, _THEIRS, 1)
