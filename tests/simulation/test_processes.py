"""The loop, the processes and the threads of the simulator: what can be paused, killed, and cancelled."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from connect_kv.errors import NodeStopped
from connect_kv.testing.simulation.clock import Stuck
from connect_kv.testing.simulation.process import Process, SimLoop, StepLimit, across
from connect_kv.testing.simulation.worker import SimWorker


def run(work: Callable[[SimLoop], Awaitable[None]], *, step_limit: int | None = None) -> SimLoop:
    loop = SimLoop(step_limit=step_limit)

    async def main() -> None:
        await work(loop)

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    return loop


def test_no_real_thread_takes_part() -> None:
    """One in `KvServer.stop` made runs differ now and then, in which turn it was done."""

    async def work(loop: SimLoop) -> None:
        with pytest.raises(RuntimeError, match=r"test_no_real_thread_takes_part.*thread of its own"):
            await asyncio.to_thread(lambda: None)

    run(work)


def test_a_sleep_ends_at_its_time_and_a_cancelled_one_at_once() -> None:
    async def work(loop: SimLoop) -> None:
        await loop.sleep(2)
        assert loop.time() == 2
        sleeper = loop.create_task(loop.sleep(5))
        await asyncio.sleep(1)
        sleeper.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeper
        assert loop.time() == 3
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await loop.sleep(5)
        assert loop.time() == 4
        await loop.sleep(0)
        assert loop.time() == 4

    assert run(work).time() == 4


def test_what_is_due_together_runs_in_the_order_in_which_it_was_set() -> None:
    seen: list[int] = []

    async def work(loop: SimLoop) -> None:
        handles = [loop.call_later(1, seen.append, number) for number in range(4)]
        handles[1].cancel()
        assert handles[1].cancelled()
        await loop.sleep(1)

    run(work)
    assert seen == [0, 2, 3]


def test_a_process_that_stands_still_goes_on_where_it_was() -> None:
    seen: list[tuple[str, float]] = []

    async def work(loop: SimLoop) -> None:
        process = loop.process("p")

        async def sleeper() -> None:
            await loop.sleep(1)
            seen.append(("slept", loop.time()))

        task = process.spawn(sleeper())
        await loop.sleep(0.5)
        process.pause()
        process.call_now(lambda: seen.append(("called", loop.time())))
        await loop.sleep(3)
        assert seen == []
        process.resume()
        await task

    run(work)
    assert seen == [("called", 3.5), ("slept", 3.5)]


def test_a_dead_process_runs_nothing_any_more() -> None:
    seen: list[str] = []

    async def work(loop: SimLoop) -> None:
        process = loop.process("p")
        waiting = loop.create_task(across(process, process.spawn(loop.sleep(10))))
        process.call_later(1, seen.append, "timer")
        process.pause()
        process.call_now(seen.append, "message while it stood still")
        await process.kill()
        process.call_now(seen.append, "message")
        process.call_soon(seen.append, "callback")
        with pytest.raises(ConnectionError):
            await waiting
        await loop.sleep(2)

    run(work)
    assert seen == []


def test_what_is_asked_of_a_dead_process_fails_at_once() -> None:
    async def work(loop: SimLoop) -> None:
        process = loop.process("p")
        await process.kill()
        never = loop.create_future()

        async def asked() -> None:
            await never

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(across(process, process.spawn(asked())), 1)

    run(work)


def test_ended_tasks_are_not_kept() -> None:
    async def work(loop: SimLoop) -> None:
        process = loop.process("p")
        for _ in range(1000):
            await process.spawn(asyncio.sleep(0))
        assert len(process._tasks) < 200

    run(work)


def worker(process: Process, before: float = 0.0, after: float = 0.0) -> SimWorker:
    return SimWorker(process, lambda: (before, after))


def test_a_thread_runs_calls_in_order_each_after_its_time() -> None:
    seen: list[tuple[int, float]] = []

    async def work(loop: SimLoop) -> None:
        thread = worker(loop.process("p"), before=1.0, after=0.5)

        def call(number: int) -> int:
            seen.append((number, loop.time()))
            if number == 2:
                raise ValueError("torn")
            return number

        tasks = [loop.create_task(thread.run(lambda n=n: call(n))) for n in range(3)]  # type: ignore[misc]
        await asyncio.sleep(0)
        tasks[1].cancel()  # its caller stops waiting; the call is made
        assert await tasks[0] == 0
        assert loop.time() == 1.5
        with pytest.raises(ValueError, match="torn"):
            await tasks[2]
        await thread.close()
        with pytest.raises(NodeStopped):
            await thread.run(lambda: None)

    run(work)
    assert seen == [(0, 1.0), (1, 2.5), (2, 4.0)]


def test_a_thread_dies_with_its_process() -> None:
    seen: list[str] = []

    async def work(loop: SimLoop) -> None:
        process = loop.process("p")
        thread = worker(process, before=1.0)
        caller = process.spawn(thread.run(lambda: seen.append("done")))
        await asyncio.sleep(0.5)
        await process.kill()
        await loop.sleep(2)
        assert caller.cancelled()

    run(work)
    assert seen == []


def test_nothing_left_to_happen_is_an_error_and_so_is_too_much() -> None:
    async def for_ever(loop: SimLoop) -> None:
        await loop.create_future()

    with pytest.raises(Stuck):
        run(for_ever)

    async def busy(loop: SimLoop) -> None:
        for _ in range(1000):
            await loop.sleep(0)

    with pytest.raises(RuntimeError, match="stopped"):
        run(busy, step_limit=100)
    assert issubclass(StepLimit, Exception)
