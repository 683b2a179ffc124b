"""What an etcd's file says comes over, in files that are made here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from connect_kv.backup.moving_in import import_etcd
from connect_kv.etcd_files import records, writer
from connect_kv.etcd_files.writer import Pairs
from connect_kv.rpc.etcd_files_pb2 import EtcdLease
from connect_kv.rpc.kv_pb2 import KeyValue
from tests.services.cluster import configs, running
from tests.services.test_maintenance import client_of


def snapshot(path: Path, **buckets: list[tuple[bytes, bytes]]) -> Path:
    """A file with these, and all others empty."""
    content: dict[bytes, Callable[[], Pairs]] = {name: tuple for name in records.BUCKETS}
    content.update({name.encode(): partial(sorted, pairs) for name, pairs in buckets.items()})
    layout = None
    for planned in writer.plan(sorted(content.items())):
        layout = planned or layout
    assert layout is not None
    whole = b"".join(writer.write(layout, sorted(content.items())))
    path.write_bytes(whole + hashlib.sha256(whole).digest())
    return path


def lease(id: int, ttl: int, left: int = 0) -> tuple[bytes, bytes]:
    return records.number(id), EtcdLease(ID=id, TTL=ttl, RemainingTTL=left).SerializeToString()


@pytest.mark.parametrize("again", [False, True])
async def test_leases_have_the_time_that_was_left(tmp_path: Path, again: bool) -> None:
    """Also after the member has been started anew; a number that makes no sense is not believed."""
    key = KeyValue(key=b"k", create_revision=2, mod_revision=2, version=1, value=b"v", lease=2)
    path = snapshot(
        tmp_path / "snapshot",
        key=[(records.place(2, 0), key.SerializeToString())],
        lease=[lease(1, 1000), lease(2, 5000, 77), lease(-3, 100_000, 99_000), lease(4, 500, 600)],
    )
    (config,) = configs(tmp_path / "new", 1)
    report = await import_etcd(path, config)
    assert (report.leases, report.keys) == (4, 1)
    if again:
        async with running([config]) as (only,), client_of(only) as client:
            await client.put("other", "v")
    async with running([config]) as (only,), client_of(only) as client:
        found = {id: await client.lease_time_to_live(id, keys=True) for id in await client.leases()}
        assert {id: one.grantedTTL for id, one in found.items()} == {1: 1000, 2: 5000, -3: 100_000, 4: 500}
        for id, left in {1: 1000, 2: 77, -3: 99_000, 4: 500}.items():
            assert left - 30 < found[id].TTL <= left
        assert list(found[2].keys) == [b"k"]
