"""How a load reaches a cluster: over TLS or not, and as whom."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import grpc.aio

from connect_kv.client.client import Client, connect
from connect_kv.client.failures import readable
from connect_kv.client.login import NOT_ENABLED, Metadata, login_of
from connect_kv.client.stubs import open_channel
from connect_kv.credentials import Tls, client_credentials
from connect_kv.errors import Refused, Unavailable
from connect_kv.rpc.auth_pb2 import AuthenticateRequest, AuthenticateResponse

LOGIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchAccess:
    """TLS files and who calls, by the names of the parameters of `connect`."""

    tls: Tls | None = None
    user: str = ""
    password: str | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)

    def client(self, endpoints: Iterable[str], *, timeout: float) -> Client:
        """A client of those members that sends its commands within a session."""
        return connect(
            endpoints,
            timeout=timeout,
            tls=self.tls,
            user=self.user,
            password=self.password,
            token=self.token,
        )

    def channels(
        self, addresses: Iterable[str], options: tuple[tuple[str, int], ...] = ()
    ) -> list[grpc.aio.Channel]:
        """One for each, with the client's options and these. Raises ConfigError for files of TLS."""
        credentials = None if self.tls is None else client_credentials(self.tls)
        name = "" if self.tls is None else self.tls.server_name
        return [open_channel(one, credentials, name, options) for one in addresses]

    async def metadata(self, channel: grpc.aio.Channel) -> Metadata:
        """What goes beside each call: the token of one login. Raises Refused, Unavailable, ConfigError."""
        login_of(self.user, self.password, self.token)  # half of it is refused
        if not self.user:
            return (("token", self.token),) if self.token else ()
        authenticate: grpc.aio.UnaryUnaryMultiCallable[AuthenticateRequest, AuthenticateResponse] = (
            channel.unary_unary(
                "/etcdserverpb.Auth/Authenticate",
                request_serializer=AuthenticateRequest.SerializeToString,
                response_deserializer=AuthenticateResponse.FromString,
            )
        )
        request = AuthenticateRequest(name=self.user, password=self.password or "")
        try:
            return (("token", (await authenticate(request, timeout=LOGIN_SECONDS)).token),)
        except grpc.aio.AioRpcError as error:
            text = error.details() or ""
            if text == NOT_ENABLED:
                return ()
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise Unavailable(readable(text)) from error
            raise Refused(error.code().value[0], text) from error


ANYBODY = BenchAccess()
"""In the clear, and as nobody."""
