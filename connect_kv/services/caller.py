"""Who calls: what a service is told beside a request, whatever wire it came over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from connect_kv.auth.authenticator import NOTHING, CallCredentials

Request_co = TypeVar("Request_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what they want to be told."""

    credentials: CallCredentials = NOTHING
    """What came with the call to show whose it is; `services.access` judges it."""
    needs_leader: bool = False
    """The caller wants to be refused, rather than wait, while there is no leader (etcd: ``hasleader``)."""
    address: str = ""
    """Where the call comes from, ``host:port``; empty where nobody asked for it."""
    trace: str = ""
    """The traceparent it came with, if traces are collected and this one is."""


class RequestStream(Protocol[Request_co]):
    """A bidirectional stream. One task reads, one writes; both may wait for the client."""

    @property
    def caller(self) -> Caller:
        """What came with the first message."""

    async def read(self) -> Request_co | None:
        """The next request; None once the client has half-closed the stream."""

    async def write(self, response: Message | bytes) -> None:
        """Send one response; it may be encoded already. Waits while the client takes nothing."""
