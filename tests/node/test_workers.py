"""Workers: calls in order, one at a time, on a thread of their own or at once."""

import asyncio
import os
import threading
from collections.abc import Coroutine
from functools import partial

import pytest

from connect_kv.errors import NodeStopped, StorageError
from connect_kv.node.workers import InlineWorker, ThreadWorker, _report


def run_real(test: Coroutine[object, object, None]) -> None:
    """On a loop whose time is real: threads need one."""
    asyncio.run(test)


def test_a_thread_worker_runs_calls_in_order_on_one_thread() -> None:
    async def check() -> None:
        worker = ThreadWorker("log")
        seen: list[int] = []
        threads = set()

        def call(number: int) -> int:
            seen.append(number)
            threads.add(threading.current_thread().name)
            return number

        results = await asyncio.gather(*(worker.run(partial(call, n)) for n in range(50)))
        assert results == seen == list(range(50))
        assert threads == {"log"}
        await worker.close()

    run_real(check())


def test_a_thread_worker_leaves_nothing_open() -> None:
    async def check() -> None:
        before = os.listdir("/proc/self/fd")
        workers = [ThreadWorker("of fifty") for _ in range(50)]
        threads = [thread for thread in threading.enumerate() if thread.name == "of fifty"]
        assert len(os.listdir("/proc/self/fd")) > len(before)
        await asyncio.gather(*(worker.close() for worker in workers))
        for thread in threads:
            thread.join(10)
        assert len(os.listdir("/proc/self/fd")) == len(before)

    run_real(check())


def test_a_thread_worker_hands_exceptions_back_and_goes_on() -> None:
    async def check() -> None:
        worker = ThreadWorker("log")

        def broken() -> None:
            raise StorageError("log", "no space")

        with pytest.raises(StorageError):
            await worker.run(broken)
        assert await worker.run(lambda: 7) == 7
        await worker.close()

    run_real(check())


def test_a_cancelled_caller_does_not_cancel_the_call() -> None:
    async def check() -> None:
        worker = ThreadWorker("log")
        go = threading.Event()
        done: list[bool] = []

        def work() -> None:
            done.append(go.wait(5))

        call = asyncio.create_task(worker.run(work))
        await asyncio.sleep(0)
        call.cancel()
        go.set()
        await worker.close()
        assert done == [True]

    run_real(check())


def test_a_cancelled_caller_does_not_hear_of_a_failure() -> None:
    async def check() -> None:
        worker = ThreadWorker("log")
        gate = threading.Event()

        def fail() -> None:
            gate.wait()
            raise ValueError("after its caller has gone")

        call = asyncio.create_task(worker.run(fail))
        await asyncio.sleep(0)
        call.cancel()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await worker.run(lambda: 7) == 7
        await worker.close()

    run_real(check())


def test_what_a_thread_ends_with_after_the_loop_is_nobodys() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    _report(loop, print)

    class Refusing(asyncio.SelectorEventLoop):
        def call_soon_threadsafe(self, *_: object, **__: object) -> asyncio.Handle:
            raise RuntimeError("not because it has ended")

    running = Refusing()
    with pytest.raises(RuntimeError, match="not because"):
        _report(running, print)
    running.close()


def test_closing_waits_for_what_was_given_and_refuses_more() -> None:
    async def check() -> None:
        worker = ThreadWorker("log")
        done: list[int] = []
        calls = [asyncio.create_task(worker.run(partial(done.append, 1))) for _ in range(10)]
        await asyncio.sleep(0)
        await worker.close()
        await worker.close()
        assert len(done) == 10
        await asyncio.gather(*calls)
        with pytest.raises(NodeStopped):
            await worker.run(lambda: None)

    run_real(check())


async def test_an_inline_worker_keeps_the_same_contract() -> None:
    worker = InlineWorker()
    assert await worker.run(lambda: 3) == 3
    await worker.close()
    with pytest.raises(NodeStopped):
        await worker.run(lambda: None)
