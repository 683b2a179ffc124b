"""Entries and their results in words, for whoever reads what was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

import msgspec
from google.protobuf.message import DecodeError

from connect_kv.raft.types import Entry, EntryKind
from connect_kv.rpc.command_pb2 import Command, CommandBatch, Result


def told_apart(entry: Entry, row: Sequence[Result], theirs: Sequence[Result]) -> str:
    """``increment() → 1, the others: → 2``: answers to those commands of an entry to which they differ."""
    try:
        commands = _commands(entry)
    except DecodeError:
        return f"an entry that cannot be read, with {len(row)} results, the others: {len(theirs)}"
    return "; ".join(
        f"{_one(command, ours)}, the others: → {'nothing' if other is None else _answer(other)}".rstrip()
        for command, ours, other in zip_longest(commands, row, theirs)
        if ours != other
    )


def _commands(entry: Entry) -> list[Command]:
    """Raises DecodeError."""
    if entry.kind is not EntryKind.COMMAND:
        return []
    return list(_flat(CommandBatch.FromString(entry.data).commands))


def _flat(commands: Sequence[Command]) -> Iterator[Command]:
    for command in commands:
        if command.HasField("session_batch"):
            yield from command.session_batch.commands
        else:
            yield command


def _one(command: Command | None, result: Result | None) -> str:
    return (
        f"{'' if command is None else _call(command)} → {'' if result is None else _answer(result)}".strip()
    )


def _call(command: Command) -> str:
    if command.WhichOneof("request") == "machine_call":
        call = command.machine_call
        return f"{call.method}({arguments_in_words(call.arguments)})"
    return " ".join(str(command).split())


def _answer(result: Result) -> str:
    match result.WhichOneof("result"):
        case "machine_call":
            return value_in_words(result.machine_call.value)
        case "failure":
            return f"{result.failure.type} {result.failure.message}".strip()
    return " ".join(str(result).split())


def arguments_in_words(packed: bytes) -> str:
    """``by=2, name='a'``: the arguments of a call, as they travel."""
    try:
        decoded = msgspec.msgpack.decode(packed)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return repr(packed)
    if isinstance(decoded, dict):
        return ", ".join(f"{key}={value!r}" for key, value in decoded.items())
    return ", ".join(map(repr, decoded)) if isinstance(decoded, list) else repr(decoded)


def value_in_words(packed: bytes) -> str:
    """What a call returned, as it travels."""
    try:
        return repr(msgspec.msgpack.decode(packed))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return repr(packed)
