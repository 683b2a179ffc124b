"""What was found is told in the words of whoever wrote the machine."""

from __future__ import annotations

from connect_kv.framework import data
from connect_kv.raft.types import Entry, EntryId, EntryKind
from connect_kv.rpc.command_pb2 import Command, CommandBatch, MachineCall, Result, SessionBatch
from connect_kv.rpc.kv_pb2 import PutRequest
from connect_kv.sim.telling import told


def test_calls_and_answers_of_a_session_are_told_in_order() -> None:
    calls = [
        Command(number=1, machine_call=MachineCall(method="increment", arguments=data.encode({"by": 2}))),
        Command(number=2, machine_call=MachineCall(method="fail", arguments=data.encode({}))),
    ]
    batch = CommandBatch(
        commands=[
            Command(session_batch=SessionBatch(session=7, commands=calls)),
            Command(put=PutRequest(key=b"k")),
        ]
    )
    row = [Result(), Result(), Result()]
    row[0].machine_call.value = data.encode(5)
    row[1].failure.type, row[1].failure.message = "ValueError", "no"
    row[2].put.SetInParent()
    entry = Entry(EntryId(1, 9), EntryKind.COMMAND, batch.SerializeToString())
    assert told(entry, row) == ("increment(by=2) → 5; fail() → ValueError no")


def test_without_calls_everything_is_told() -> None:
    batch = CommandBatch(commands=[Command(put=PutRequest(key=b"k"))])
    row = [Result()]
    row[0].put.SetInParent()
    entry = Entry(EntryId(1, 9), EntryKind.COMMAND, batch.SerializeToString())
    assert told(entry, row) == 'put { key: "k" } → put { }'


def test_what_cannot_be_read_is_told_all_the_same() -> None:
    result = Result()
    result.machine_call.value = b"\xc1"
    assert told(Entry(EntryId(1, 9), EntryKind.COMMAND, b"\xff"), [result]) == (
        "an entry that cannot be read, with 1 results"
    )
    assert told(Entry(EntryId(1, 9), EntryKind.NOOP, b""), [result]) == "→ b'\\xc1'"
