"""What an entry holds: commands, some of them in the batches in which their session's client sent them."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import DecodeError

from connect_kv.errors import UnknownEntry
from connect_kv.raft.types import Entry
from connect_kv.rpc.command_pb2 import Command, CommandBatch, SessionBatch

ELAPSED = 50
"""Not a command, but a number beside theirs: who can apply it understands entries that have `elapsed`."""


def parse(entry: Entry) -> CommandBatch:
    """The commands of an entry. Raises UnknownEntry."""
    try:
        return CommandBatch.FromString(entry.data)
    except DecodeError as error:
        raise UnknownEntry(f"entry {entry.index} is no batch of commands: {error}") from error


def commands_of(batch: CommandBatch) -> Iterator[Command]:
    """Each command, in the order of their results; those of a SessionBatch name their session."""
    for command in batch.commands:
        if command.HasField("session_batch"):
            yield from with_session(command.session_batch)
        else:
            yield command


def with_session(batch: SessionBatch) -> Iterator[Command]:
    """Its commands as they would stand alone. The floor is said once: it only rises."""
    floor = batch.floor
    for command in batch.commands:
        command.session = batch.session
        command.floor = floor
        floor = 0
        yield command
