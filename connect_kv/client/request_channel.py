"""How a client's requests reach the cluster: through a session, or each as a call of its own."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Protocol

from connect_kv.client import retry
from connect_kv.client.endpoints import Endpoints
from connect_kv.rpc.command_pb2 import Command, MachineReply, Result
from connect_kv.rpc.machine_pb2 import MachineCallRequest

if TYPE_CHECKING:
    from connect_kv.client.stubs import Stubs

READS = frozenset({"range", "machine_query", "lease_time_to_live", "lease_leases"})
"""Requests that change nothing, so that they may be repeated freely."""
_CALLS = READS | {"put", "delete_range", "txn", "compact", "lease_grant", "lease_revoke"}
"""Requests that are calls of their own."""


class RequestChannel(Protocol):
    """Carries out one request at a time for many callers."""

    def call(self, command: Command, timeout: float, *, writes: bool) -> Awaitable[Result]:
        """The result of `command`, within `timeout` seconds.

        Raises what the cluster answered, Unavailable (nothing was done) or OutcomeUnknown (if it `writes`).
        """

    def call_encoded(self, request: bytes, timeout: float, *, writes: bool) -> Awaitable[Result]:
        """The same for a Command that is encoded already, without a number."""

    async def close(self) -> None:
        """Give up what is open; calls still waiting fail."""


class UnaryRequests:
    """One gRPC call for each request. A write whose answer is lost is not sent again."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints

    async def call(self, command: Command, timeout: float, *, writes: bool) -> Result:
        """See RequestChannel."""
        return await retry.call(
            self._endpoints,
            lambda stubs, seconds: _carry_out(stubs, command, seconds),
            timeout=timeout,
            writes=writes,
        )

    async def call_encoded(self, request: bytes, timeout: float, *, writes: bool) -> Result:
        """See RequestChannel."""
        return await self.call(Command.FromString(request), timeout, writes=writes)

    async def close(self) -> None:
        """Nothing is kept between calls."""


async def _carry_out(stubs: Stubs, command: Command, seconds: float) -> Result:
    """By the call that has the name of the request, as the fields of commands and of results have."""
    kind = command.WhichOneof("request")
    answers: dict[str, Any] = {}
    if kind in ("machine_call", "machine_query"):
        call = command.machine_call if kind == "machine_call" else command.machine_query
        request = MachineCallRequest(machine=call.machine, method=call.method, msgpack=call.arguments)
        answers[kind] = MachineReply(value=(await stubs.machine_call(request, timeout=seconds)).msgpack)
    else:
        assert kind in _CALLS, kind
        answers[kind] = await getattr(stubs, kind)(getattr(command, kind), timeout=seconds)
    return Result(**answers)
