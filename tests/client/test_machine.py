"""What a call of a machine asks of the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import msgspec
import pytest

from connect_kv.client.machine import MachineClient
from connect_kv.framework.replicated import Replicated, command, query
from connect_kv.rpc.command_pb2 import Command, MachineCall, MachineReply, Result


class Notes(Replicated):
    def __init__(self) -> None:
        self.notes: list[str] = []

    @command
    def write(self, text: str, times: int = 1) -> int:
        self.notes += [text] * times
        return len(self.notes)

    @query
    def read(self) -> int:
        return len(self.notes)


class Recorder:
    """A request channel that writes down what it is given."""

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, bool]] = []

    def call(self, command: Command, timeout: float, *, writes: bool) -> Awaitable[Result]:
        return self.call_encoded(command.SerializeToString(), timeout, writes=writes)

    def call_encoded(self, request: bytes, timeout: float, *, writes: bool) -> Awaitable[Result]:
        self.requests.append((request, writes))
        reply = MachineReply(value=msgspec.msgpack.encode(3))
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        future.set_result(Result(machine_call=reply) if writes else Result(machine_query=reply))
        return future

    async def close(self) -> None: ...


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 16_400, 200_000])
async def test_a_command_is_encoded_as_protobuf_encodes_it(size: int) -> None:
    channel = Recorder()
    notes = MachineClient(channel, "notes", Notes, 1.0)
    assert await notes.call(Notes.write, "n" * size) == 3
    call = MachineCall(
        machine="notes", method="write", arguments=msgspec.msgpack.encode({"text": "n" * size})
    )
    assert channel.requests == [(Command(machine_call=call).SerializeToString(), True)]


async def test_a_query_is_no_write() -> None:
    channel = Recorder()
    assert await MachineClient(channel, "notes", Notes, 1.0).call(Notes.read) == 3
    call = MachineCall(machine="notes", method="read", arguments=msgspec.msgpack.encode({}))
    assert channel.requests == [(Command(machine_query=call).SerializeToString(), False)]


async def test_nothing_is_asked_before_the_call_is_awaited() -> None:
    channel = Recorder()
    call = MachineClient(channel, "notes", Notes, 1.0).call(Notes.write, "n")
    assert not channel.requests
    assert await call == 3
