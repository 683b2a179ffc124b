"""Reads of this member's state, made behind a read barrier that the caller has waited for.

Shared by the unary services and by the session door, where they travel beside commands.
"""

from __future__ import annotations

from connect_kv.api.status import failure_of
from connect_kv.kv import validation
from connect_kv.kv.machine import KvMachine
from connect_kv.machines.host import MachineHost
from connect_kv.rpc.command_pb2 import Command, MachineReply, Result
from connect_kv.rpc.kv_pb2 import RangeRequest, RangeResponse

NAMES = frozenset(("range", "machine_query", "lease_time_to_live", "lease_leases"))
"""The requests of Command's oneof that are reads."""


class Reads:
    """Answers reads from the local state."""

    def __init__(self, kv: KvMachine, host: MachineHost) -> None:
        self._kv = kv
        self._host = host

    def is_local(self, command: Command, name: str) -> bool:
        """Whether it asks for no barrier."""
        return name == "range" and command.range.serializable

    async def answer(self, command: Command, name: str) -> Result:
        """The result for one read of a session; a refusal is a result too."""
        try:
            match name:
                case "range":
                    return Result(number=command.number, range=await self.range(command.range))
                case "machine_query":
                    call = command.machine_query
                    value = await self._host.query(call.machine, call.method, call.arguments)
                    return Result(number=command.number, machine_query=MachineReply(value=value))
                case "lease_time_to_live":
                    found = self._kv.time_to_live(command.lease_time_to_live)
                    return Result(number=command.number, lease_time_to_live=found)
                case _:
                    return Result(number=command.number, lease_leases=self._kv.lease_list())
        except Exception as error:
            return Result(number=command.number, failure=failure_of(error))

    async def range(self, request: RangeRequest) -> RangeResponse:
        """One range of keys."""
        validation.check_range(request)
        return await self._kv.range(request)
