"""A mirror follows an etcd into ours, and ours into an etcd, under writes; at the end both are alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

import connect_kv
from connect_kv import errors
from connect_kv.client import txn
from connect_kv.client.client import Client
from connect_kv.client.etcd import connect_etcd
from connect_kv.mirror import Mirror
from connect_kv.testing.processes import ProcessCluster, until
from tests import moving
from tests.cluster.test_backup import command
from tests.etcd import Etcd, etcd_or_skip


@asynccontextmanager
async def both(tmp_path: Path) -> AsyncIterator[tuple[Client, Client, str, str]]:
    """An etcd's client, ours, and the addresses of both."""
    etcd, cluster = Etcd(tmp_path / "etcd", etcd_or_skip(), fsync=False), ProcessCluster(tmp_path / "ours", 1)
    async with (
        etcd,
        cluster,
        connect_etcd(etcd.client_address, timeout=20) as theirs,
        connect_kv.connect(cluster.endpoints, session=False, timeout=20) as ours,
    ):
        yield theirs, ours, etcd.client_address, cluster.endpoints


@pytest.mark.parametrize("direction", ["in", "out"])
async def test_all_changes_are_followed_and_leases_are_kept(tmp_path: Path, direction: str) -> None:
    async with both(tmp_path) as (etcd, own, _, _):
        source, target = (etcd, own) if direction == "in" else (own, etcd)
        history = moving.History(source, 11, 40)
        await history.changes(150, compact=0)
        mirror = Mirror(source, target)
        running = asyncio.create_task(mirror.run())
        try:
            await history.changes(150, compact=0)
            await source.transaction(success=[txn.put(f"t{number}", "v") for number in range(90)])
            await mirror.caught_up()
            found = await mirror.compare()
            assert found.differences == []
            assert found.keys > 90
            theirs = [(kv.key, kv.value, kv.lease) for kv in await moving.all_keys(source, 0)]
            assert [(kv.key, kv.value, kv.lease) for kv in await moving.all_keys(target, 0)] == theirs
            assert len({kv.mod_revision for kv in await target.get_prefix("t")}) == 1, "one transaction"
            held = {lease for _, _, lease in theirs if lease}
            assert held
            for lease in held:
                wanted = await source.lease_time_to_live(lease, keys=True)
                there = await target.lease_time_to_live(lease, keys=True)
                assert (there.grantedTTL, sorted(there.keys)) == (wanted.grantedTTL, sorted(wanted.keys))
            lease = held.pop()
            await source.revoke_lease(lease)
            await mirror.caught_up()

            async def gone() -> bool:
                return lease not in await target.leases()

            await until(gone, 20, "the lease to end there")
            assert (await mirror.compare()).differences == []
            await target.put("more", "than there")
            assert (await mirror.compare()).differences == ["b'more' is only at the target"]
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


async def test_a_short_lease_lives_at_the_target_as_long_as_at_the_source(tmp_path: Path) -> None:
    """Who renews it knows only the source."""
    async with both(tmp_path) as (etcd, own, _, _):
        mirror = Mirror(etcd, own)
        running = asyncio.create_task(mirror.run())
        try:
            async with await etcd.lease(3) as lease:
                await etcd.put("alive", "v", lease=lease)
                loop = asyncio.get_running_loop()
                until = loop.time() + 8
                while loop.time() < until:
                    await mirror.caught_up()
                    assert await own.get("alive") is not None
                    await asyncio.sleep(0.3)
            await mirror.caught_up()
            assert await own.get("alive") is None
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


async def test_the_command_proves_at_the_switch_that_both_hold_the_same(tmp_path: Path) -> None:
    async with both(tmp_path) as (etcd, own, address, endpoints):
        history = moving.History(etcd, 12, 40)
        await history.changes(100)
        arguments = ["mirror", "--from", f"etcd://{address}", "--to", endpoints, "--switch"]
        found = await command(*arguments)
        assert (found["equal"], found["keys"]) == (True, len(await moving.all_keys(etcd, 0)))
        await own.put("k1", "changed here")
        await etcd.put("k2", "changed there")
        with pytest.raises(AssertionError, match="the target holds keys"):
            await command(*arguments)
        assert (await command(*arguments, "--overwrite"))["equal"]
        kv = await own.get("k1")
        there = await etcd.get("k1")
        assert (kv and kv.value) == (there and there.value)


async def test_what_the_source_has_forgotten_is_named(tmp_path: Path) -> None:
    async with both(tmp_path) as (etcd, own, _, _):
        mirror = Mirror(etcd, own)
        await mirror._make_equal(await moving.revision_of(etcd))
        start = await moving.revision_of(etcd)
        for _ in range(5):
            await etcd.put("k", "v")
        await etcd.compact(start + 4)
        with pytest.raises(errors.Compacted):
            await mirror._follow(start + 1)
