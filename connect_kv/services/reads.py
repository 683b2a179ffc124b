"""Reads of this member's state, made behind a read barrier that the caller has waited for.

Shared by the unary services and by the session door, where they travel beside commands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from connect_kv.kv.lessor import Lessor
from connect_kv.kv.machine import KvMachine
from connect_kv.protowire import varint
from connect_kv.rpc.command_pb2 import Command, MachineCall, MachineReply, Result
from connect_kv.rpc.kv_pb2 import ResponseHeader
from connect_kv.rpc.lease_pb2 import (
    LeaseLeasesResponse,
    LeaseStatus,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
)
from connect_kv.services.status import failure_of
from connect_kv.statemachine.host import MachineHost

_NUMBER = bytes((Result.NUMBER_FIELD_NUMBER << 3,))
_RANGE = varint(Result.RANGE_FIELD_NUMBER << 3 | 2)
"""Tags of the two fields of a result that holds a range."""


@lru_cache(4096)
def _range_head(size: int) -> bytes:
    """What stands before a range of that many bytes."""
    return _RANGE + varint(size)


class Reads:
    """Answers reads from the local state."""

    def __init__(
        self, kv: KvMachine, host: MachineHost, lessor: Lessor, read_date: Callable[[], int] = lambda: 0
    ) -> None:
        """`read_date` is at what time queries are asked, or later ones."""
        self._read_date = read_date
        self._kv = kv
        self._host = host
        self._lessor = lessor

    async def answer(self, command: Command) -> bytes:
        """The encoded result for one read of a session; a refusal is a result too."""
        if not command.HasField("range"):
            return (await self._small(command)).SerializeToString()
        try:
            found = await self._kv.range_encoded(command.range, ResponseHeader())
        except Exception as error:
            return Result(number=command.number, failure=failure_of(error)).SerializeToString()
        return b"".join((_NUMBER, varint(command.number), _range_head(len(found)), found))

    async def _small(self, command: Command) -> Result:
        """The result of a read that is never large."""
        number = command.number
        try:
            match command.WhichOneof("request"):
                case "machine_query":
                    return Result(number=number, machine_query=await self._query(command.machine_query))
                case "machine_call":  # one that turned out to change nothing
                    return Result(number=number, machine_call=await self._query(command.machine_call))
                case "lease_time_to_live":
                    found = await self.time_to_live(command.lease_time_to_live)
                    return Result(number=number, lease_time_to_live=found)
                case _:
                    return Result(number=number, lease_leases=self.leases())
        except Exception as error:
            return Result(number=number, failure=failure_of(error))

    def gets(self, commands: Sequence[Command]) -> list[bytes]:
        """Encoded results of commands that each get one key as it is now (`kv.gets.is_plain`)."""
        try:
            found = self._kv.gets([command.range.key for command in commands])
        except Exception as error:
            failure = failure_of(error)
            return [Result(number=one.number, failure=failure).SerializeToString() for one in commands]
        return [
            _NUMBER + varint(command.number) + _range_head(len(response)) + response
            for command, response in zip(commands, found, strict=True)
        ]

    async def time_to_live(self, request: LeaseTimeToLiveRequest) -> LeaseTimeToLiveResponse:
        """What remains of a lease by this member's clock; TTL -1 for an unknown one."""
        response = self._lessor.time_to_live(request.ID)
        response.header.revision = self._kv.revision
        if request.keys and response.TTL >= 0:
            response.keys.extend(await self._kv.lease_keys(request.ID))
        return response

    def leases(self) -> LeaseLeasesResponse:
        """All leases, those that end first in front."""
        response = LeaseLeasesResponse(leases=[LeaseStatus(ID=id) for id in self._kv.leases.by_expiry()])
        response.header.revision = self._kv.revision
        return response

    async def _query(self, call: MachineCall) -> MachineReply:
        return MachineReply(
            value=await self._host.query(call.machine, call.method, call.arguments, self._read_date())
        )
