"""What was found is told in the words of whoever wrote the machine."""

from __future__ import annotations

from connect_kv.framework import data
from connect_kv.raft.types import Entry, EntryId, EntryKind
from connect_kv.rpc.command_pb2 import Command, CommandBatch, MachineCall, Result, SessionBatch
from connect_kv.rpc.kv_pb2 import PutRequest
from connect_kv.testing.simulation.telling import told_apart


def test_calls_of_a_session_and_both_answers_are_told_in_order() -> None:
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
    theirs = [row[1], row[0], row[2]]
    assert told_apart(entry, row, theirs) == (
        "increment(by=2) → 5, the others: → ValueError no; fail() → ValueError no, the others: → 5"
    )


def test_another_request_is_told_as_it_is() -> None:
    batch = CommandBatch(commands=[Command(put=PutRequest(key=b"k"))])
    row = [Result()]
    row[0].put.SetInParent()
    entry = Entry(EntryId(1, 9), EntryKind.COMMAND, batch.SerializeToString())
    assert told_apart(entry, row, [Result()]) == 'put { key: "k" } → put { }, the others: →'


def test_what_cannot_be_read_is_told_all_the_same() -> None:
    result = Result()
    result.machine_call.value = b"\xc1"
    assert told_apart(Entry(EntryId(1, 9), EntryKind.COMMAND, b"\xff"), [result], []) == (
        "an entry that cannot be read, with 1 results, the others: 0"
    )
    assert told_apart(Entry(EntryId(1, 9), EntryKind.NOOP, b""), [result], []) == (
        "→ b'\\xc1', the others: → nothing"
    )


def test_of_two_members_only_what_differs_is_told() -> None:
    calls = [Command(machine_call=MachineCall(method="increment", arguments=data.encode({}))) for _ in "ab"]
    entry = Entry(EntryId(1, 9), EntryKind.COMMAND, CommandBatch(commands=calls).SerializeToString())
    ours, theirs = [Result(), Result()], [Result(), Result()]
    for number, result in enumerate((*ours, *theirs)):
        result.machine_call.value = data.encode((7, 1, 7, 2)[number])
    assert told_apart(entry, ours, theirs) == "increment() → 1, the others: → 2"
    assert told_apart(entry, ours[:1], theirs[:0]) == "increment() → 7, the others: → nothing"
