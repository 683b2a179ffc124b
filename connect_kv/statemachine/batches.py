"""What an entry holds: commands, some of them in the batches in which their session's client sent them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from google.protobuf.message import DecodeError

from connect_kv.errors import UnknownEntry
from connect_kv.protowire import varint
from connect_kv.raft.types import Entry
from connect_kv.rpc.command_pb2 import (
    Command,
    CommandBatch,
    EncodedBatch,
    EncodedSessionBatch,
    EncodedSessionCommand,
    SessionBatch,
)

_SESSION_BATCH = varint(Command.SESSION_BATCH_FIELD_NUMBER << 3 | 2)
"""What a command that is a batch begins with: it has nothing else (`SessionBatch`)."""

ELAPSED = 50
"""Not a command, but a number beside theirs: who can apply it understands entries that have `elapsed`."""


def parse(entry: Entry) -> CommandBatch:
    """The commands of an entry. Raises UnknownEntry."""
    try:
        return CommandBatch.FromString(entry.data)
    except DecodeError as error:
        raise _no_batch(entry.index, error) from error


def encoded(entry: Entry) -> EncodedBatch:
    """The batch of an entry, commands still encoded: parsing all may hold the loop. Raises UnknownEntry."""
    try:
        return EncodedBatch.FromString(entry.data)
    except DecodeError as error:
        raise _no_batch(entry.index, error) from error


def traced(payload: bytes, traceparent: str) -> bytes:
    """A payload of commands (`CommandBatch`), with the trace that it belongs to."""
    return payload + CommandBatch(traces=[traceparent]).SerializeToString()


def traces(data: bytes) -> Sequence[str]:
    """Those that an entry's data belongs to; none where it cannot be read: applying it will say so."""
    try:
        return list(EncodedBatch.FromString(data).traces)
    except DecodeError:
        return ()


def session_batch(data: bytes, index: int) -> EncodedSessionBatch | None:
    """The batch that an encoded command of the entry at `index` is, if it is one. Raises UnknownEntry."""
    try:
        if data.startswith(_SESSION_BATCH):
            return EncodedSessionCommand.FromString(data).session_batch
    except DecodeError as error:
        raise _no_batch(index, error) from error
    return None


def command_from(data: bytes, index: int) -> Command:
    """A command of the entry at `index`. Raises UnknownEntry."""
    try:
        return Command.FromString(data)
    except DecodeError as error:
        raise _no_batch(index, error) from error


def commands_from(encoded: Iterable[bytes], index: int) -> list[Command]:
    """Some commands of the entry at `index`. Raises UnknownEntry."""
    try:
        return list(map(Command.FromString, encoded))
    except DecodeError as error:
        raise _no_batch(index, error) from error


def commands_of(batch: CommandBatch) -> Iterator[Command]:
    """Each command, in the order of their results; those of a SessionBatch name their session."""
    for command in batch.commands:
        if command.HasField("session_batch"):
            yield from with_session(command.session_batch, command.session_batch.commands)
        else:
            yield command


def with_session(batch: SessionBatch | EncodedSessionBatch, commands: Iterable[Command]) -> Iterator[Command]:
    """Its commands as they would stand alone. The floor is said once: it only rises."""
    floor = batch.floor
    for command in commands:
        command.session = batch.session
        command.floor = floor
        floor = 0
        yield command


def _no_batch(index: int, error: DecodeError) -> UnknownEntry:
    return UnknownEntry(f"entry {index} is no batch of commands: {error}")
