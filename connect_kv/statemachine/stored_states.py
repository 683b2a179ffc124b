"""In-memory machines in the state database: their stored states, and the calls a replay must skip.

A state is a header, which says where it stands, and chunks of its generation. Chunks are written
first, in batches of their own; the header names them in one batch with the removal of what it
replaces, so that at any moment one whole state is there.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from connect_kv.errors import CorruptStorage
from connect_kv.statemachine.code_records import OLD, standing_from, standing_record
from connect_kv.statemachine.hosted import Standing
from connect_kv.storage import codec
from connect_kv.storage.engine import Reader

_HEADER = struct.Struct(">QQQII")
_SKIP = struct.Struct(">BQI")
_HEADER_KIND = b"\x00"
_CHUNK_KIND = b"\x01"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What is known of the stored state of a machine, beside its chunks."""

    index: int
    """The last entry whose effect it holds."""
    log_time: int
    generation: int
    """Which chunks: the index at which they were taken."""
    chunks: int
    checksum: int
    standing: Standing = OLD
    """The version of the machine that was active."""
    first: bool = False
    """Nothing is stored: the state is the first one, or, of a persistent machine, in its store."""


@dataclass(frozen=True, slots=True)
class MachineState:
    """A machine's state, taken but not written yet."""

    chunks: list[bytes]
    runs: int = 0
    """How often it had changed then."""
    standing: Standing = OLD

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(map(len, self.chunks))


def headers(reader: Reader) -> dict[str, Header]:
    """The stored state of each machine, by name. Raises CorruptStorage."""
    found: dict[str, Header] = {}
    prefix = bytes((codec.MACHINE_SNAPSHOTS,))
    try:
        at = prefix
        # Seek from one machine to the next: chunks may be large and are not looked at.
        while (name := _next_name(reader, at)) is not None:
            value = reader.get(_of(name) + _HEADER_KIND)
            if value is not None:
                found[name] = _decode(value)
            at = _of(name) + b"\xff"
    except (struct.error, UnicodeDecodeError, DecodeError) as error:
        raise CorruptStorage("state", f"machine states: {error}") from error
    return found


def chunks(reader: Reader, name: str, header: Header) -> Iterator[bytes]:
    """The chunks of a stored state. Raises CorruptStorage if they are not those that were written."""
    count, checksum = 0, 0
    generation = _generation(name, header.generation)
    for _, chunk in reader.iterate(generation, generation + b"\xff" * 9):
        count, checksum = count + 1, zlib.crc32(chunk, checksum)
        yield chunk
    if (count, checksum) != (header.chunks, header.checksum):
        raise CorruptStorage("state", f"the stored state of machine {name!r} is damaged")


def chunk_changes(name: str, generation: int, state: MachineState) -> Iterator[tuple[bytes, bytes]]:
    """The records of its chunks, to be written before its header."""
    prefix = _generation(name, generation)
    for number, chunk in enumerate(state.chunks):
        yield prefix + codec.u64(number), chunk


def leftover_chunks(reader: Reader, name: str, generation: int) -> dict[bytes, bytes | None]:
    """The removal of chunks under that generation which no header names."""
    prefix = _generation(name, generation)
    return {key: None for key, _ in reader.iterate(prefix, prefix + b"\xff" * 9)}


def header_for(state: MachineState, index: int, log_time: int) -> Header:
    """The header of a state that was taken at `index`."""
    checksum = 0
    for chunk in state.chunks:
        checksum = zlib.crc32(chunk, checksum)
    return Header(
        index=index,
        log_time=log_time,
        generation=index,
        chunks=len(state.chunks),
        checksum=checksum,
        standing=state.standing,
    )


def awaiting(index: int, log_time: int) -> Header:
    """The header of a machine that has no stored state and did not run what comes after `index`."""
    return Header(index=index, log_time=log_time, generation=index, chunks=0, checksum=0, first=True)


def header_record(name: str, header: Header) -> tuple[bytes, bytes]:
    """Where a header is, and what it is."""
    fixed = _HEADER.pack(header.index, header.log_time, header.generation, header.chunks, header.checksum)
    return _of(name) + _HEADER_KIND, fixed + standing_record(header.standing, first=header.first)


def header_changes(reader: Reader, new: Mapping[str, Header]) -> dict[bytes, bytes | None]:
    """Headers, and the removal of every chunk that none of them names any more."""
    changes: dict[bytes, bytes | None] = {}
    for name, header in new.items():
        key, record = header_record(name, header)
        changes[key] = record
        kept = _generation(name, header.generation)
        for key, _ in reader.iterate(_of(name) + _CHUNK_KIND, _of(name) + b"\xff"):
            if not key.startswith(kept):
                changes[key] = None
    return changes


def removal(reader: Reader, name: str) -> dict[bytes, bytes | None]:
    """Of all that is stored of a machine."""
    return {key: None for key, _ in reader.iterate(_of(name), _of(name) + b"\xff")}


def skip_key(index: int, position: int) -> bytes:
    """Marks a machine call of the log that was not run, so that a replay does not run it either."""
    return _SKIP.pack(codec.SKIPPED, index, position)


def skipped(reader: Reader) -> set[tuple[int, int]]:
    """(index, position) of all of them."""
    prefix, stop = bytes((codec.SKIPPED,)), bytes((codec.SKIPPED + 1,))
    return {_SKIP.unpack(key)[1:] for key, _ in reader.iterate(prefix, stop)}


def skips_up_to(reader: Reader, index: int) -> dict[bytes, bytes | None]:
    """The removal of those that no replay can meet any more."""
    start, stop = bytes((codec.SKIPPED,)), _SKIP.pack(codec.SKIPPED, index + 1, 0)
    return {key: None for key, _ in reader.iterate(start, stop)}


def _of(name: str) -> bytes:
    encoded = name.encode()
    return bytes((codec.MACHINE_SNAPSHOTS, len(encoded))) + encoded


def _generation(name: str, generation: int) -> bytes:
    return _of(name) + _CHUNK_KIND + codec.u64(generation)


def _next_name(reader: Reader, at: bytes) -> str | None:
    pairs = reader.iterate(at, bytes((codec.MACHINE_SNAPSHOTS + 1,)))
    try:
        for key, _ in pairs:
            return key[2 : 2 + key[1]].decode()
        return None
    finally:
        if (close := getattr(pairs, "close", None)) is not None:
            close()


def _decode(value: bytes) -> Header:
    index, log_time, generation, count, checksum = _HEADER.unpack_from(value)
    standing, first = standing_from(value[_HEADER.size :])
    return Header(
        index=index,
        log_time=log_time,
        generation=generation,
        chunks=count,
        checksum=checksum,
        standing=standing,
        first=first,
    )
