"""Bytes read back from disk: each record is decoded, or refused with an error that names it."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_kv.errors import ConnectKvError, CorruptStorage
from connect_kv.interfaces import Identity
from connect_kv.node.workers import InlineWorker
from connect_kv.raft.types import Entry, EntryId, EntryKind, HardState, Membership, SnapshotMeta
from connect_kv.rpc.command_pb2 import Command
from connect_kv.rpc.kv_pb2 import PutRequest
from connect_kv.storage import codec, inspect, manifest, transfer, wal
from connect_kv.storage.leveldb import LevelDbDisk
from connect_kv.storage.log_store import EngineLogStore
from connect_kv.storage.memory import MemoryDisk
from connect_kv.storage.state_dirs import StateDirs
from tests.fuzz.conftest import damaged, fuzz
from tests.statemachine.conftest import Member, add, put
from tests.storage.helpers import commands, member_entry, new_log, only_wal, ready, voters

pytestmark = pytest.mark.long

U64 = st.integers(0, 2**64 - 1)
IDENTITY = Identity(cluster_id=2**64 - 1, node_id=1, name="n1", directory_id=b"\1" * 16)

RECORDS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "entry": (
        lambda data: codec.decode_entry(7, data),
        codec.encode_entry(Entry(EntryId(3, 7), EntryKind.COMMAND, b"some data")),
    ),
    "hard state": (codec.decode_hard_state, codec.encode_hard_state(HardState(3, 1, 2))),
    "base": (codec.Base.decode, codec.Base(EntryId(3, 7), 1).encode()),
    "runs": (codec.decode_runs, codec.encode_runs([codec.DiscardedRun(1, 2, 3)] * 3)),
    "identity": (codec.decode_identity, codec.encode_identity(IDENTITY)),
    "state": (codec.decode_state, codec.encode_state("12", 99)),
    "membership": (lambda data: codec.decode_membership(7, data), voters(1, 2, 3).encode()),
    "number": (codec.decode_u64, codec.u64(7)),
    "pair": (codec.decode_pair, codec.pair(7, 8)),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_decoded_or_refused(name: str) -> None:
    decode, valid = RECORDS[name]
    decode(valid)

    @fuzz(300)
    @given(damaged(st.just(valid)) | st.binary(max_size=200))
    def run(data: bytes) -> None:
        with suppress(ValueError):
            decode(data)

    run()


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000, b"\xff", b"[[1]]", b'"a"']
)
def test_json_records_of_any_form_are_refused(data: bytes) -> None:
    for decode in (Membership.decode, codec.decode_identity):
        with pytest.raises(ValueError, match="not a"):
            decode(data)


@pytest.mark.parametrize("field", ["cluster_id", "node_id", "name"])
def test_an_identity_holds_numbers_and_a_name(field: str) -> None:
    good = codec.encode_identity(IDENTITY)
    for wrong in (b"null", b"[1]", b"1.5", b"true"):
        data = codec.encode_identity(IDENTITY).replace(
            {"cluster_id": b": 18446744073709551615", "node_id": b": 1", "name": b': "n1"'}[field],
            b": " + wrong,
            1,
        )
        assert data != good
        with pytest.raises(ValueError, match="not an identity"):
            codec.decode_identity(data)


# Files of LevelDB that we look into before it does.


@fuzz(300)
@given(st.data())
def test_a_manifest_of_any_content_is_read_or_refused(data: st.DataObject) -> None:
    content = data.draw(damaged(st.just(a_manifest())) | st.binary(max_size=400))
    with suppress(ValueError, IndexError):
        manifest.numbers(content)


def test_a_manifest_with_an_endless_number_is_refused_at_once() -> None:
    """Numbers end after 64 bits: adding up millions of digits would take hours."""
    block = bytearray()
    for first in range(64):
        kind = 2 if first == 0 else 3
        block += b"\0\0\0\0" + (32761).to_bytes(2, "little") + bytes([kind]) + b"\xff" * 32761
    block += b"\0\0\0\0" + (1).to_bytes(2, "little") + b"\4\1"
    started = time.monotonic()
    with pytest.raises(ValueError, match="64 bits"):
        manifest.numbers(bytes(block))
    assert time.monotonic() - started < 1


@fuzz(60)
@given(st.data())
def test_a_database_with_damaged_files_opens_or_is_refused(data: st.DataObject) -> None:
    """One error, of our own; and what opens can be read to its end."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "n1"
        log = new_log(LevelDbDisk(), path)
        for index in range(1, 4):
            log.save([ready(commands(index, index, index + 1), term=index)])
        log.close()
        names = [
            "CURRENT",
            only_wal(path / "log").name,
            *(one.name for one in (path / "log").glob("MANIFEST*")),
        ]
        victim = path / "log" / data.draw(st.sampled_from(names))
        victim.write_bytes(data.draw(damaged(st.just(victim.read_bytes()))))
        try:
            store = EngineLogStore.open(LevelDbDisk(), path)
        except ConnectKvError:
            return
        try:
            store.load()
        except ConnectKvError:
            pass
        finally:
            store.close()


@fuzz(300)
@given(st.data())
def test_a_log_with_a_damaged_record_is_loaded_or_refused(data: st.DataObject) -> None:
    """Damage that the database did not notice, in one record or in how they fit together."""
    disk = MemoryDisk(random.Random(1))
    path = Path("/n1")
    log = new_log(disk, path)
    for index in range(1, 6):
        changed = () if index != 3 else (member_entry(index, index, voters(1, 2)),)
        log.save([ready(changed or commands(index, index, index + 1), term=index)])
    log.save([ready(commands(6, 4, 5), term=6)])
    log.set_durable(2)
    log.compact(EntryId(2, 2), voters(1))
    log.close()
    engine = disk.open(path / "log")
    stored = list(engine.iterate(b"", None))
    key, value = data.draw(st.sampled_from(stored))
    broken = data.draw(st.none() | damaged(st.just(value)) | st.sampled_from(stored).map(lambda one: one[1]))
    engine.batch({key: broken}).write(sync=True)
    engine.close()
    try:
        store = EngineLogStore.open(disk, path)
    except ConnectKvError:
        return
    try:
        restored = store.load()
        found = store.entries(store.first_index, restored.last.index + 1, 1 << 20)
        assert [one.index for one in found] == [*range(store.first_index, restored.last.index + 1)]
        store.save([ready(commands(7, restored.last.index + 1, restored.last.index + 2), term=7)])
    except ConnectKvError:
        pass
    finally:
        store.close()


@fuzz(25)
@given(st.data())
def test_a_damaged_directory_can_be_inspected_and_verified(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "n1"
        log = new_log(LevelDbDisk(), path)
        log.save([ready(commands(1, 1, 4), term=1)])
        log.close()
        StateDirs(LevelDbDisk(), path).create("1").close()
        files = sorted(one for one in path.rglob("*") if one.is_file())
        victim = data.draw(st.sampled_from(files))
        victim.write_bytes(data.draw(damaged(st.just(victim.read_bytes()))))
        with suppress(ConnectKvError):
            inspect.inspect(path)
        with suppress(ConnectKvError):
            list(inspect.read_entries(path))
        reports = inspect.verify(path)
        assert {Path(one.database).name for one in reports} == {"log", "1"}


def test_looking_for_whole_records_in_a_tail_ends_soon(tmp_path: Path) -> None:
    """The worst tail: at every place what seems to be a record, none with the right checksum."""
    pattern = b"\0\0\0\0\xe8\x03\1" + b"\0" * 6 + b"\0\0" + b"\1\0\0\0" + b"\1"
    block = b"\0\0\0\0\xff\xff\1" + pattern * 1600
    (tmp_path / "000003.log").write_bytes(block[:32767])
    started = time.monotonic()
    wal.check(tmp_path)
    assert time.monotonic() - started < 5


def a_manifest() -> bytes:
    """As LevelDB writes it: comparator, log, next file, last sequence, a new file."""
    edit = b"\1\x03cmp" + b"\2\5" + b"\3\7" + b"\4\x90\1" + b"\7\0\6\x80\x10\1a\1b" + b"\6\0\5"
    return b"\0\0\0\0" + len(edit).to_bytes(2, "little") + b"\1" + edit


# Snapshots.


async def dumped() -> list[bytes]:
    member = await Member().start()
    session = await member.open_session()
    await member.run(*(put(b"k%d" % number, b"value" * number) for number in range(20)))
    await member.run(add(3, session=session, number=1))
    await member.run(Command(lease_grant={"TTL": 10}))  # type: ignore[arg-type]
    snapshot = await member.host.snapshot()
    chunks = [chunk async for chunk in snapshot.chunks()]
    snapshot.close()
    await member.host.close()
    return chunks


CHUNKS = asyncio.run(dumped())
META = SnapshotMeta(EntryId(1, 4), Membership())


@fuzz(200)
@given(st.data())
def test_a_snapshot_of_any_content_is_taken_or_refused(data: st.DataObject) -> None:
    chunks = list(CHUNKS)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(chunks) - 1))
        match data.draw(st.sampled_from(["damage", "drop", "repeat", "swap"])):
            case "damage":
                chunks[at] = data.draw(damaged(st.just(chunks[at])))
            case "drop" if len(chunks) > 1:
                del chunks[at]
            case "repeat":
                chunks.insert(at, chunks[at])
            case "swap":
                chunks[at], chunks[0] = chunks[0], chunks[at]

    async def run() -> None:
        database = StateDirs(MemoryDisk(random.Random(1)), Path("/data")).create("2")
        try:
            await transfer.fill(database, META, pieces(chunks), InlineWorker())
        except CorruptStorage:
            return
        assert chunks == CHUNKS
        assert database.last_applied == META.last.index

    asyncio.run(run())


async def pieces(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@fuzz(150)
@given(st.data())
def test_a_state_with_a_damaged_record_is_served_or_refused(data: st.DataObject) -> None:
    """Whatever a record holds, what cannot be read is called damage."""

    async def run() -> None:
        member = await Member().start()
        session = await member.open_session()
        await member.run(put(b"a", b"1"), put(b"b", b"2"))
        await member.run(Command(lease_grant={"TTL": 10, "ID": 5}))  # type: ignore[arg-type]
        await member.run(Command(put=PutRequest(key=b"l", lease=5)), add(1, session=session, number=1))
        await member.host.close()
        database = member.dirs.open(member.name, 0)
        stored = [(key, value) for key, value in database.engine.iterate(b"\x10", None)]
        key, value = data.draw(st.sampled_from(stored))
        broken = data.draw(damaged(st.just(value)))
        database.engine.batch({key: broken}).write(sync=True)
        database.close()
        try:
            await member.start()
            await member.run(put(b"a", b"2"), add(1, session=session, number=1), log_time=1)
        except ConnectKvError:
            return
        await member.host.close()

    asyncio.run(run())
