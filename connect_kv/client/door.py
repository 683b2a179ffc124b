"""How a client's requests reach the cluster: through a session, or each as a call of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from connect_kv.client import retry
from connect_kv.client.endpoints import Endpoints
from connect_kv.rpc.command_pb2 import Command, MachineCall, MachineReply, Result
from connect_kv.rpc.machine_pb2 import MachineCallRequest

if TYPE_CHECKING:
    from connect_kv.client.stubs import Stubs

READS = frozenset({"range", "machine_query", "lease_time_to_live", "lease_leases"})
"""Requests that change nothing, so that they may be repeated freely."""


class Door(Protocol):
    """Carries out one request at a time for many callers."""

    def call(self, command: Command, timeout: float, *, writes: bool) -> Awaitable[Result]:
        """The result of `command`, within `timeout` seconds.

        Raises what the cluster answered, Unavailable (nothing was done) or OutcomeUnknown (if it `writes`).
        """

    async def close(self) -> None:
        """Give up what is open; calls still waiting fail."""


class UnaryDoor:
    """One gRPC call for each request. A write whose answer is lost is not sent again."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints

    async def call(self, command: Command, timeout: float, *, writes: bool) -> Result:
        """See Door."""
        make = _CALLS[command.WhichOneof("request") or ""]
        return await retry.call(
            self._endpoints,
            lambda stubs, seconds: make(stubs, command, seconds),
            timeout=timeout,
            writes=writes,
        )

    async def close(self) -> None:
        """Nothing is kept between calls."""


async def _machine(stubs: Stubs, call: MachineCall, seconds: float) -> MachineReply:
    request = MachineCallRequest(machine=call.machine, method=call.method, msgpack=call.arguments)
    return MachineReply(value=(await stubs.machine_call(request, timeout=seconds)).msgpack)


async def _range(stubs: Stubs, command: Command, seconds: float) -> Result:
    return Result(range=await stubs.range(command.range, timeout=seconds))


async def _put(stubs: Stubs, command: Command, seconds: float) -> Result:
    return Result(put=await stubs.put(command.put, timeout=seconds))


async def _delete_range(stubs: Stubs, command: Command, seconds: float) -> Result:
    return Result(delete_range=await stubs.delete_range(command.delete_range, timeout=seconds))


async def _txn(stubs: Stubs, command: Command, seconds: float) -> Result:
    return Result(txn=await stubs.txn(command.txn, timeout=seconds))


async def _compact(stubs: Stubs, command: Command, seconds: float) -> Result:
    return Result(compact=await stubs.compact(command.compact, timeout=seconds))


async def _lease_grant(stubs: Stubs, command: Command, seconds: float) -> Result:
    return Result(lease_grant=await stubs.lease_grant(command.lease_grant, timeout=seconds))


async def _lease_revoke(stubs: Stubs, command: Command, seconds: float) -> Result:
    return Result(lease_revoke=await stubs.lease_revoke(command.lease_revoke, timeout=seconds))


async def _lease_time_to_live(stubs: Stubs, command: Command, seconds: float) -> Result:
    answer = await stubs.lease_time_to_live(command.lease_time_to_live, timeout=seconds)
    return Result(lease_time_to_live=answer)


async def _lease_leases(stubs: Stubs, command: Command, seconds: float) -> Result:
    return Result(lease_leases=await stubs.lease_leases(command.lease_leases, timeout=seconds))


async def _machine_call(stubs: Stubs, command: Command, seconds: float) -> Result:
    return Result(machine_call=await _machine(stubs, command.machine_call, seconds))


async def _machine_query(stubs: Stubs, command: Command, seconds: float) -> Result:
    return Result(machine_query=await _machine(stubs, command.machine_query, seconds))


_CALLS: Mapping[str, Callable[[Stubs, Command, float], Awaitable[Result]]] = {
    "range": _range,
    "put": _put,
    "delete_range": _delete_range,
    "txn": _txn,
    "compact": _compact,
    "lease_grant": _lease_grant,
    "lease_revoke": _lease_revoke,
    "lease_time_to_live": _lease_time_to_live,
    "lease_leases": _lease_leases,
    "machine_call": _machine_call,
    "machine_query": _machine_query,
}
