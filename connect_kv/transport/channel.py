"""Connections to other members, in the clear or over TLS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc

from connect_kv.credentials import Credentials, Material
from connect_kv.transport.limits import TransportLimits, channel_options
from connect_kv.transport.stream import PermissionDenied


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """Makes them, alike for all that is said to members."""

    limits: TransportLimits
    credentials: Credentials | None = None

    def open(self, address: str) -> grpc.aio.Channel:
        """To the member there; over TLS its certificate must be for the host of that address."""
        options = channel_options(self.limits)
        if self.credentials is None:
            return grpc.aio.insecure_channel(address, options=options)
        return grpc.aio.secure_channel(address, self.credentials.grpc_channel(), options=options)

    @property
    def material(self) -> Material | None:
        """What the files of TLS hold: a channel keeps what they held when it was opened."""
        return None if self.credentials is None else self.credentials.latest

    def presented(self, context: grpc.aio.ServicerContext[Any, Any]) -> frozenset[str] | None:
        """Who the caller is by its certificate; None without TLS.

        Raises PermissionDenied for a certificate that is revoked, not allowed, or no member's: the CA that
        signs members' certificates may sign those of clients as well, and these may not serve.
        """
        if self.credentials is None:
            return None
        from connect_kv.certificates import BadCertificate, presented

        certificate = next(iter(context.auth_context().get("x509_pem_cert", ())), None)
        if certificate is None:
            raise PermissionDenied("there is no certificate")
        if refusal := self.credentials.refusal(certificate):
            raise PermissionDenied(refusal)
        try:
            shown = presented(certificate)
        except BadCertificate as error:
            raise PermissionDenied(f"the certificate {error}") from None
        if not shown.may_serve:
            raise PermissionDenied(f"the certificate of {shown} is a client's, not a member's")
        return shown.all_names
