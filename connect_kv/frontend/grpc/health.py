"""grpc.health.v1: what a client or a load balancer asks before it sends calls here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from grpc_health.v1.health_pb2 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListRequest,
    HealthListResponse,
)

from connect_kv.etcd_errors import Code, Refusal
from connect_kv.events import Signal
from connect_kv.services.caller import Caller

ALL = ""
"""The name that stands for the whole member."""
_SERVING = int(HealthCheckResponse.SERVING)
_NOT_SERVING = int(HealthCheckResponse.NOT_SERVING)
_UNKNOWN = int(HealthCheckResponse.SERVICE_UNKNOWN)


class HealthService:
    """Every service by its full name, and the member as a whole by the empty one.

    What is answered is looked up when asked, so it is never older than the answer.
    """

    def __init__(self, services: Sequence[str], serving: Callable[[str], bool], changed: Signal) -> None:
        """`serving(name)` says whether calls of that service can be answered now.

        `changed` is fired whenever that may have become different.
        """
        self._names = frozenset((ALL, *services))
        self._serving = serving
        self._stopping = False
        self._changed = asyncio.Event()
        """Of the present state: another one has its own."""
        changed.subscribe(self._tell)

    def stop(self) -> None:
        """From now on nothing is served: who watches goes elsewhere before the connection ends."""
        self._stopping = True
        self._tell()

    async def Check(self, request: HealthCheckRequest, caller: Caller) -> HealthCheckResponse:
        """Whether that service can be used now. NOT_FOUND if there is none of that name."""
        if request.service not in self._names:
            raise Refusal(Code.NOT_FOUND, "unknown service").error()
        return HealthCheckResponse(status=self._status(request.service))

    async def List(self, request: HealthListRequest, caller: Caller) -> HealthListResponse:
        """The state of every service that is known here."""
        return HealthListResponse(
            statuses={name: HealthCheckResponse(status=self._status(name)) for name in sorted(self._names)}
        )

    async def Watch(self, request: HealthCheckRequest, caller: Caller) -> AsyncIterator[Any]:
        """The status of a service, now and after every change, until this member stops."""
        shown: int | None = None
        while True:
            # Before the look: what changes while an answer is written is seen in the next.
            changed, stopping = self._changed, self._stopping
            status = self._status(request.service)
            if status != shown:
                yield HealthCheckResponse(status=status)
                shown = status
            if stopping:
                return
            await changed.wait()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _status(self, service: str) -> int:
        if service not in self._names:
            return _UNKNOWN
        return _SERVING if not self._stopping and self._serving(service) else _NOT_SERVING
