"""Backups of every format are read; what is not ours, or no longer, is told apart."""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial
from pathlib import Path

import pytest

from connect_kv.backup import restoring, stopped
from connect_kv.backup.etcd_format import OUR_BUCKET, STATE_KEY
from connect_kv.errors import CorruptStorage, RefusedToStart
from connect_kv.etcd_files import records, writer
from connect_kv.etcd_files.reader import BoltFile
from connect_kv.kv import layout
from tests.etcd import ENVIRONMENT, find_etcdctl
from tests.services.cluster import configs, running
from tests.services.test_maintenance import client_of

FIRST = Path(__file__).parent / "format-1.ckv"
"""Made by the version that wrote that format: forty puts of nine keys, one deletion, a compaction at 20, a
lease with a key, a user and a role."""


async def test_a_backup_of_the_first_format_is_restored(tmp_path: Path) -> None:
    found = await stopped.contents(FIRST)
    assert (found.revision, found.compacted, found.keys) == (42, 20, 8)
    (config,) = configs(tmp_path, 1)
    await restoring.restore(FIRST, config)
    async with running([config]) as (only,), client_of(only) as client:
        assert (await client.maintenance.hash_kv()).hash == 4259692842
        assert (await client.lease_time_to_live(77, keys=True)).keys == [b"k2"]
        assert await client.auth.user("al") == ["r"]
        assert await client.get("k3") is None
        old = await client.get("k4", revision=20)
        assert old is not None
        assert old.value == b"v13" * 3


async def saved(tmp_path: Path) -> Path:
    """A small backup, with old history that is not cleaned up everywhere."""
    (config,) = configs(tmp_path / "saved", 1)
    async with running([config]) as (only,), client_of(only) as client:
        lease, _ = await client.grant_lease(100, id=-5)
        for number in range(60):
            await client.put(f"k{number % 7}", f"{number}", lease=lease if number % 7 == 1 else 0)
        await client.delete("k2")
        await client.compact(30)
        path = tmp_path / "backup"
        with path.open("wb") as file:
            async for piece in client.maintenance.snapshot():
                file.write(piece.blob)
    return path


async def status_of(program: str, path: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        program, "snapshot", "status", str(path),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**ENVIRONMENT, "ETCDCTL_API": "3"},
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_etcdctl_says_of_a_backup_what_we_say(tmp_path: Path) -> None:
    path = await saved(tmp_path)
    found = await stopped.contents(path)
    tools = find_etcdctl()
    if not tools:
        pytest.skip("no etcdctl")
    for program in tools.values():
        told = await status_of(program, path)
        assert told.split(", ")[:2] == [f"{found.hash:x}", str(found.revision)]


def rewritten(path: Path, changes: dict[bytes, dict[bytes, bytes | None]]) -> None:
    """The same file but for these pairs (None: gone), with a right digest."""
    with BoltFile(path) as file:
        content = {name: dict(file.items(name)) for name in file.buckets}
    for name, pairs in changes.items():
        for key, value in pairs.items():
            if value is None:
                del content[name][key]
            else:
                content[name][key] = value
    walks = [(name, partial(sorted, pairs.items())) for name, pairs in sorted(content.items())]
    plan = next(one for one in writer.plan(walks) if one is not None)
    data = b"".join(writer.write(plan, walks))
    path.write_bytes(data + hashlib.sha256(data).digest())


async def test_a_backup_an_etcd_has_gone_on_with_is_told_apart(tmp_path: Path) -> None:
    """Its keys are newer than what is in our bucket: sessions and machines would be of another moment."""
    path = await saved(tmp_path)
    rewritten(path, {records.META: {records.CONSISTENT_INDEX: records.number(9)}})
    (config,) = configs(tmp_path / "new", 1)
    with pytest.raises(RefusedToStart, match="an etcd has gone on with this backup"):
        await restoring.restore(path, config)
    assert not config.data_dir.exists()


async def test_a_snapshot_of_an_etcd_is_no_backup(tmp_path: Path) -> None:
    path = await saved(tmp_path)
    with BoltFile(path) as file:
        ours = dict.fromkeys(key for key, _ in file.items(OUR_BUCKET))
    rewritten(path, {OUR_BUCKET: ours})
    with pytest.raises(RefusedToStart, match="move in with `connect-kv import-etcd`"):
        await stopped.contents(path)


@pytest.mark.parametrize("what", ["a change less", "numbers", "a strange record", "no numbers"])
async def test_a_backup_whose_parts_do_not_fit_is_refused(tmp_path: Path, what: str) -> None:
    path = await saved(tmp_path)
    with BoltFile(path) as file:
        last = list(file.items(records.KEY))[-1][0]
    state = layout.StoreState(99, 30, 6, 12)
    numbers = STATE_KEY + layout.STATE
    rewritten(
        path,
        {
            "a change less": {records.KEY: {last: None}},
            "numbers": {OUR_BUCKET: {numbers: state.encode()}},
            "a strange record": {OUR_BUCKET: {b"t": b""}},
            "no numbers": {OUR_BUCKET: {numbers: None}},
        }[what],  # type: ignore[arg-type]
    )
    (config,) = configs(tmp_path / "new", 1)
    with pytest.raises(CorruptStorage):
        await restoring.restore(path, config)
    assert not config.data_dir.exists()
