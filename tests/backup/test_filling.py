"""A state made from a history by several processes, in small parts, is the one it was taken from."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connect_kv.backup import filling_job, history, restoring, spool
from connect_kv.errors import CorruptStorage
from connect_kv.etcd_files import writer
from connect_kv.etcd_files.checksums import crc32c, joined
from tests.backup.test_formats import saved
from tests.moving import History, differences, holds
from tests.services.cluster import configs, running
from tests.services.test_maintenance import client_of


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything has more than one piece."""
    monkeypatch.setattr(history, "PART_BYTES", 40_000)
    monkeypatch.setattr(history, "ALONE_BYTES", 0)
    monkeypatch.setattr(filling_job, "_HISTORY_PAIRS", 10)
    monkeypatch.setattr(filling_job, "WAITING_BYTES", 3000)


@pytest.mark.parametrize("alone", [True, False])
async def test_restored_in_parts(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    if alone:
        monkeypatch.setattr(history, "ALONE_BYTES", 1 << 30)
    (config,) = configs(tmp_path / "saved", 1)
    path = tmp_path / "backup"
    async with running([config]) as (only,), client_of(only) as client:
        await History(client, 3, 90, negative_leases=True).changes(300)
        before = await holds(client)
        with path.open("wb") as file:
            async for piece in client.maintenance.snapshot():
                file.write(piece.blob)
    (config,) = configs(tmp_path / "restored", 1)
    await restoring.restore(path, config)
    assert not (config.data_dir / "work").exists()
    async with running([config]) as (only,), client_of(only) as client:
        assert differences(before, await holds(client)) == []


async def test_a_process_that_finds_damage_tells(tmp_path: Path, small: None) -> None:
    path = await saved(tmp_path)
    content = bytearray(path.read_bytes())
    at = content.index(b"k3", writer.PAGE_SIZE * 3)
    content[at : at + 2] = b"\x80\x80"
    damaged = tmp_path / "damaged"
    damaged.write_bytes(content[:-32])
    (config,) = configs(tmp_path / "restored", 1)
    with pytest.raises(CorruptStorage):
        await restoring.restore(damaged, config)
    assert not config.data_dir.exists()


def test_parts_of_a_spool(tmp_path: Path) -> None:
    writer = spool.SpoolWriter(tmp_path / "s", [b"g", b"p"])
    changes = [(bytes((letter,)), b"%012d+" % number, None, 0) for number, letter in enumerate(b"zapgfoqa")]
    writer.add(changes[:4])
    writer.flush()
    writer.add(changes[4:])
    writer.finish()
    reader = spool.SpoolReader(tmp_path / "s")
    parts = [[change[0] for piece in reader.part(number) for change in piece] for number in range(3)]
    reader.close()
    assert parts == [[b"a", b"f", b"a"], [b"g", b"o"], [b"z", b"p", b"q"]]


@settings(deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_checksums_are_joined(first: bytes, second: bytes) -> None:
    extend = crc32c()
    assert joined(extend(0, first), extend(0, second), len(second)) == extend(0, first + second)
