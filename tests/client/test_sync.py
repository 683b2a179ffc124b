"""The blocking client: the same calls from plain threads."""

from __future__ import annotations

import asyncio
import sys
import threading
from asyncio.subprocess import PIPE
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from inspect import signature
from typing import Self, TypeVar

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
    with pytest.raises(errors.ClientNotOpen, match="not open"):
        connect_kv.sync.connect("127.0.0.1:1").put("a", "1")


SEVERAL = """
import asyncio, gc, sys, threading
import connect_kv.sync

def program(number):
    for _ in range(5):
        with connect_kv.sync.connect(sys.argv[1]) as client:
            with client.watch(f"k{number}") as changes:
                for i in range(20):
                    client.put(f"k{number}", str(i))
                    next(changes)
            with client.lease(5):
                pass

threads = [threading.Thread(target=program, args=(number,)) for number in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
gc.collect()
# gRPC's own thread is told to end, and not waited for: one that ends has five seconds for it.
for thread in threading.enumerate()[1:]:
    thread.join(5)
print([thread.name for thread in threading.enumerate()])
"""


async def test_several_in_one_process_say_nothing_and_leave_no_thread(endpoints: str) -> None:
    """Each had a loop, and gRPC wakes all loops for the events of each: a traceback for each in vain."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SEVERAL, endpoints), stdout=PIPE, stderr=PIPE
    )
    out, err = await process.communicate()
    assert (out.decode(), err.decode()) == ("['MainThread']\n", "")


def loops() -> int:
    """Threads of blocking clients."""
    return sum(thread.name == "connect-kv client" for thread in threading.enumerate())


class Breaks(asynchronous.Client):
    """A client that cannot be opened, or not be closed in order."""

    def __init__(self, *, opens: bool) -> None:
        super().__init__("127.0.0.1:1", timeout=1, session=True, session_ttl=9, rng=None)
        self._opens = opens

    async def open(self) -> Self:
        if not self._opens:
            raise OSError("cannot open")
        return await super().open()

    async def close(self) -> None:
        await super().close()
        raise OSError("cannot close")


@pytest.mark.parametrize("opens", [True, False])
def test_no_thread_is_left_when_opening_or_closing_fails(opens: bool) -> None:
    client = connect_kv.sync.Client(Breaks(opens=opens))
    with pytest.raises(OSError, match="cannot"), client:
        assert loops() == 1
    assert loops() == 0
    client.close()


async def test_entered_twice_it_has_one_thread_until_the_last_leaves(endpoints: str) -> None:
    def program() -> None:
        with connect_kv.sync.connect(endpoints) as client:
            with client:
                client.put("a", "1")
                assert loops() == 1
            client.put("a", "2")
        assert loops() == 0
        with client.open():
            client.put("a", "3")
        assert loops() == 0

    await in_thread(program)


async def test_closing_one_client_ends_its_calls_and_not_those_of_others(endpoints: str) -> None:
    def program() -> None:
        with connect_kv.sync.connect(endpoints) as other, ThreadPoolExecutor(1) as pool:
            client = connect_kv.sync.connect(endpoints).open()
            waiting = pool.submit(next, client.watch("never"))
            client.close()
            with pytest.raises(errors.ClientNotOpen):
                waiting.result(10)
            other.put("a", "1")

    await in_thread(program)
    assert loops() == 0
