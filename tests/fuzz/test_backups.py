"""A backup of any content, as somebody else may have stored it, is restored whole or refused by name."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_kv.backup.file import MAGIC, BackupFile, BackupHead, new_file
from connect_kv.backup.restoring import restore
from connect_kv.config import InitialMember, ServerConfig
from connect_kv.errors import CorruptStorage
from tests.backup.format_1 import BackupWriter
from tests.fuzz.conftest import damaged, fuzz
from tests.fuzz.test_records import CHUNKS, META

pytestmark = pytest.mark.long

HEAD = BackupHead(
    cluster_id=7, node_id=2**64 - 1, name="n1", last_applied=META.last.index, taken=1, version="1"
)


def backup(chunks: list[bytes]) -> bytes:
    writer = BackupWriter(HEAD)
    return b"".join([writer.start(), *map(writer.piece, chunks), writer.end(), writer.digest()])


def with_digest(content: bytes) -> bytes:
    """As somebody would make it who knows the format."""
    content += bytes(-len(content) % 512)
    return content + hashlib.sha256(content).digest()


def with_head(head: bytes) -> bytes:
    return with_digest(MAGIC + len(head).to_bytes(4, "big") + head + bytes(4))


WHOLE = backup(CHUNKS)


def pieces_of(content: bytes) -> list[bytes]:
    """Raises CorruptStorage."""

    async def read(path: Path) -> list[bytes]:
        with BackupFile(path) as file:
            return [piece async for piece in file.pieces()]

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "backup"
        path.write_bytes(content)
        return asyncio.run(read(path))


@fuzz(300)
@given(damaged(st.just(WHOLE)) | damaged(st.just(WHOLE[:-32])).map(with_digest) | st.binary(max_size=600))
def test_a_file_is_read_or_refused(content: bytes) -> None:
    assert pieces_of(WHOLE) == CHUNKS
    with suppress(CorruptStorage):
        pieces_of(content)


def head_with(**fields: object) -> bytes:
    return json.dumps({"format": 1, **asdict(HEAD), **fields}).encode()


@pytest.mark.parametrize(
    "head",
    [b"[" * 100_000, b"9" * 10_000, b"\xff", b"{}", b"[]", b'{"format": 2}', b'{"format": 1, "name": "n1"}',
     head_with(last_applied="7"), head_with(last_applied=-1), head_with(last_applied=2**64),
     head_with(cluster_id=None), head_with(name=1), head_with(taken=True)],
)  # fmt: skip
def test_a_head_of_any_form_is_refused(head: bytes) -> None:
    with pytest.raises(CorruptStorage, match=r"head|format"):
        pieces_of(with_head(head))


def test_what_claims_to_be_long_is_not_waited_for() -> None:
    head_end = len(BackupWriter(HEAD).start())
    huge = WHOLE[:head_end] + b"\xff" * 4 + WHOLE[head_end + 4 :]
    with pytest.raises(CorruptStorage, match="damaged"):
        pieces_of(huge)


@fuzz(20)
@given(st.data())
def test_a_file_with_a_right_checksum_is_restored_or_refused(data: st.DataObject) -> None:
    """Pieces that were damaged before the checksum was made; nothing is left behind."""
    chunks = list(CHUNKS)
    at = data.draw(st.integers(0, len(chunks) - 1))
    chunks[at] = data.draw(damaged(st.just(chunks[at])))
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "backup").write_bytes(backup(chunks))
        member = InitialMember(name="n1", peer_address="127.0.0.1:1")
        config = ServerConfig(
            name="n1", data_dir=directory / "data", advertise_peer="127.0.0.1:1", initial_cluster=(member,)
        )
        try:
            asyncio.run(restore(directory / "backup", config))
        except CorruptStorage:
            assert [one.name for one in directory.iterdir()] == ["backup"]
            return
        assert (directory / "data" / "log").is_dir()


def test_a_backup_does_not_replace_a_file(tmp_path: Path) -> None:
    (tmp_path / "backup").write_bytes(b"older")
    with pytest.raises(FileExistsError), new_file(tmp_path / "backup") as file:
        file.write(b"newer")
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"older"]


def test_what_follows_the_end_of_the_pieces_is_refused() -> None:
    longer = with_digest(WHOLE[:-32] + b"\0" * 1024)
    with pytest.raises(CorruptStorage, match="goes on after its end"):
        pieces_of(longer)
