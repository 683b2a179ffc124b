"""The tutorial's key/value machine: a dict in the low-level form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from connect_kv.raft.types import Entry

_PAIRS_PER_CHUNK = 1024


class Put(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Sets a key; its result is the value before."""

    key: str
    value: bytes


class Delete(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Removes a key; its result is the value before."""

    key: str


_decode_command = msgspec.msgpack.Decoder(Put | Delete).decode
_decode_pairs = msgspec.msgpack.Decoder(list[tuple[str, bytes]]).decode


def encode(command: Put | Delete) -> bytes:
    """A command as it is proposed."""
    return msgspec.msgpack.encode(command)


class DictKv:
    """Keys and values in memory. A query's request is a key; None is no value.

    A command that cannot be read is refused by its result, never by an exception: that would stop
    every member.
    """

    def __init__(self) -> None:
        self.last_applied = 0
        self.values: dict[str, bytes] = {}

    def apply(self, entries: Sequence[Entry]) -> list[bytes | str | None]:
        """One result each: the value before, None for none, or as text why it was refused."""
        results = [self._apply_one(entry.data) for entry in entries]
        self.last_applied = entries[-1].index
        return results

    def query(self, request: bytes) -> bytes | None:
        """The value of a key."""
        return self.values.get(request.decode())

    def snapshot(self) -> Iterator[bytes]:
        """All pairs as they are now; the values themselves never change, so they are not copied."""
        pairs = list(self.values.items())
        starts = range(0, len(pairs), _PAIRS_PER_CHUNK)
        return (msgspec.msgpack.encode(pairs[start : start + _PAIRS_PER_CHUNK]) for start in starts)

    def restore(self, last_applied: int, chunks: Iterable[bytes]) -> None:
        """Take over what `snapshot` gave elsewhere."""
        self.values = {key: value for chunk in chunks for key, value in _decode_pairs(chunk)}
        self.last_applied = last_applied

    def _apply_one(self, data: bytes) -> bytes | str | None:
        try:
            command = _decode_command(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return f"refused: {error}"
        if isinstance(command, Delete):
            return self.values.pop(command.key, None)
        before = self.values.get(command.key)
        self.values[command.key] = command.value
        return before
