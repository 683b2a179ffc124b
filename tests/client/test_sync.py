"""The blocking client: the same calls from plain threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from inspect import signature
from typing import TypeVar

import pytest

import connect_kv.sync
from connect_kv import errors
from connect_kv.client import client as asynchronous
from tests.client.fake_server import FakeCluster

T = TypeVar("T")


async def in_thread(call: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(None, call)


async def test_reads_what_it_wrote(cluster: FakeCluster, endpoints: str) -> None:
    def program() -> bytes:
        with connect_kv.sync.connect(endpoints) as client:
            client.put("greeting", "hello")
            found = client.get("greeting")
            assert found is not None
            return found.value

    assert await in_thread(program) == b"hello"


async def test_many_threads_share_one_session(cluster: FakeCluster, endpoints: str) -> None:
    def program() -> None:
        with connect_kv.sync.connect(endpoints) as client, ThreadPoolExecutor(20) as pool:
            list(pool.map(lambda i: client.put(f"k{i}", "v"), range(200)))

    await in_thread(program)
    assert cluster.opened == 1
    assert len(cluster.executed) == 200


async def test_a_watch_iterates_and_closing_the_client_ends_its_thread(endpoints: str) -> None:
    def program() -> list[bytes]:
        with connect_kv.sync.connect(endpoints) as client, client.watch("k", prefix=True) as watch:
            client.put("k1", "v")
            client.put("k2", "v")
            return [next(watch).kv.key, next(watch).kv.key]

    assert await in_thread(program) == [b"k1", b"k2"]
    assert not any(thread.name == "connect-kv client" for thread in threading.enumerate())


async def test_a_lease_is_revoked_at_the_end(cluster: FakeCluster, endpoints: str) -> None:
    def program() -> None:
        with connect_kv.sync.connect(endpoints) as client, client.lease(5) as lease:
            assert lease.alive
            assert lease.id in cluster.leases

    await in_thread(program)
    assert not cluster.leases


async def test_a_lease_can_be_renewed_by_hand(cluster: FakeCluster, endpoints: str) -> None:
    def program() -> None:
        with connect_kv.sync.connect(endpoints) as client:
            id, ttl = client.grant_lease(5)
            assert (ttl, client.renew_lease(id)) == (5, 5)
            with client.keep_lease_alive(id, ttl) as lease:
                client.put("k", "v", lease=lease)
                assert lease.alive

    await in_thread(program)
    assert not cluster.leases


def test_the_blocking_client_has_the_calls_of_the_other() -> None:
    beside = {"cluster", "maintenance"}
    for name, call in vars(asynchronous.Client).items():
        if name.startswith("_") or name in beside or not callable(call):
            continue
        blocking = getattr(connect_kv.sync.Client, name)
        assert list(signature(blocking).parameters) == list(signature(call).parameters), name


def test_calls_before_opening_say_so() -> None:
    with pytest.raises(errors.Unavailable, match="not open"):
        connect_kv.sync.connect("127.0.0.1:1").put("a", "1")
