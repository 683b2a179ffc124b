"""What the end of etcd's log says: whether something in it is not in the database beside it."""

from __future__ import annotations

import struct
from pathlib import Path

import google_crc32c
import pytest

from connect_kv.errors import CorruptStorage
from connect_kv.etcd_files.log import log_end
from connect_kv.protowire import field, tag, varint
from connect_kv.rpc.etcd_files_pb2 import EtcdHardState, EtcdLogEntry, EtcdLogRecord

HEADER = field(tag(100), b"\x08\x07")
PUT = field(tag(4), b"\x0a\x01k") + HEADER
LOGIN = HEADER + field(tag(1012), b"\x0a\x01u")
PUBLISH = b"\x08\x07" + field(tag(2), b"PUT") + field(tag(3), b"/0/members") + field(tag(4), b"{}")


class Log:
    """Written as etcd does."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._checksum = 0
        self._files = 0

    def begin(self, first: int) -> None:
        self.path = self.directory / f"{self._files:016x}-{first:016x}.wal"
        self._files += 1
        self.path.write_bytes(b"")
        self._add(EtcdLogRecord(type=4, crc=self._checksum))
        self.record(1, b"metadata")

    def record(self, kind: int, data: bytes) -> None:
        self._checksum = google_crc32c.extend(self._checksum, data)
        self._add(EtcdLogRecord(type=kind, crc=self._checksum, data=data))

    def _add(self, record: EtcdLogRecord) -> None:
        data = record.SerializeToString()
        padding = -len(data) % 8
        length = len(data) | ((1 << 63 | padding << 56) if padding else 0)
        with self.path.open("ab") as file:
            file.write(struct.pack("<Q", length) + data + bytes(padding))

    def entry(self, index: int, request: bytes, kind: int = 0) -> None:
        self.record(2, EtcdLogEntry(type=kind, term=2, index=index, data=request).SerializeToString())

    def commit(self, index: int) -> None:
        self.record(3, EtcdHardState(term=2, commit=index).SerializeToString())


@pytest.fixture
def log(tmp_path: Path) -> Log:
    log = Log(tmp_path)
    log.begin(0)
    for index in range(1, 6):
        log.entry(index, PUT)
    log.commit(5)
    return log


def test_an_entry_that_was_not_applied_is_needed(log: Log) -> None:
    assert not log_end(log.directory, 5).needed
    end = log_end(log.directory, 4)
    assert (end.last, end.needed) == (5, True)


def test_what_changes_no_key_is_not(log: Log) -> None:
    """A new leader's entry, what a member publishes, a login, a change of members."""
    for index, (request, kind) in enumerate([(b"", 0), (PUBLISH, 0), (LOGIN, 0), (PUT, 1), (PUT, 2)], 6):
        log.entry(index, request, kind)
    log.commit(10)
    assert not log_end(log.directory, 5).needed
    log.entry(11, PUT)
    assert log_end(log.directory, 5).needed


def test_an_entry_replaces_all_behind_it(log: Log) -> None:
    log.entry(6, PUT)
    log.entry(7, PUT)
    log.entry(6, b"")
    end = log_end(log.directory, 5)
    assert (end.last, end.needed) == (6, False)


def test_what_is_committed_and_not_there_is_needed(log: Log) -> None:
    log.commit(9)
    end = log_end(log.directory, 5)
    assert (end.last, end.needed) == (9, True)


def test_the_file_is_read_in_which_the_first_one_would_be(log: Log) -> None:
    log.begin(6)
    log.commit(5)
    log.entry(6, PUT)
    log.begin(7)
    log.commit(6)
    assert not log_end(log.directory, 6).needed
    assert log_end(log.directory, 5).needed
    log.directory.joinpath(f"{0:016x}-{0:016x}.wal").unlink()
    assert log_end(log.directory, 5).needed
    with pytest.raises(CorruptStorage, match="begins after entry 4"):
        log_end(log.directory, 4)


def test_a_log_that_is_torn_or_damaged_is_refused(log: Log) -> None:
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + bytes(1000))  # files are made long
    assert not log_end(log.directory, 5).needed
    log.path.write_bytes(whole[:-5])
    with pytest.raises(CorruptStorage, match="ends within a record"):
        log_end(log.directory, 5)
    damaged = bytearray(whole)
    damaged[-20] ^= 1
    log.path.write_bytes(damaged)
    with pytest.raises(CorruptStorage):
        log_end(log.directory, 5)
    log.path.unlink()
    with pytest.raises(CorruptStorage, match="holds no write-ahead log"):
        log_end(log.directory, 5)


def test_a_request_of_any_fields_is_read(log: Log) -> None:
    """Also those of a later etcd, which may be needed."""
    log.entry(6, varint(7 << 3 | 5) + bytes(4) + varint(8 << 3 | 1) + bytes(8) + LOGIN)
    assert log_end(log.directory, 5).needed
    log.entry(6, varint(7 << 3 | 4))
    with pytest.raises(CorruptStorage, match="cannot be read"):
        log_end(log.directory, 5)
