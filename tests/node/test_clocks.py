"""Time: the system's clock, the simulator's, a loop that is held; and limits that are no limits."""

import asyncio
from collections.abc import Coroutine

import pytest

from connect_kv.node.clock import SystemClock
from connect_kv.node.context import NoMetrics
from connect_kv.node.health import watch_loop
from connect_kv.testing.simulation.clock import VirtualClock, VirtualLoop
from tests.node.parts import config


def run_real(test: Coroutine[object, object, None]) -> None:
    """On a loop whose time is real: threads need one."""
    asyncio.run(test)


def test_the_system_clock_goes_on() -> None:
    async def check() -> None:
        clock = SystemClock()
        before, wall = clock.now(), clock.wall()
        await clock.sleep(0.001)
        assert clock.now() > before
        assert clock.wall() > wall

    run_real(check())


async def test_virtual_hours_take_no_time() -> None:
    clock = VirtualClock(offset=5)
    wall = clock.wall()
    await clock.sleep(3600)
    assert clock.now() >= 3600
    assert clock.wall() - wall == pytest.approx(3600e9)


async def test_a_stalled_loop_is_counted() -> None:
    stalls: list[float] = []

    class Stalls(NoMetrics):
        def loop_stalled(self, seconds: float) -> None:
            stalls.append(seconds)

    watch = asyncio.create_task(watch_loop(VirtualClock(), Stalls(), every=0.02, limit=0.005))
    await asyncio.sleep(1)
    assert stalls == []
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.stall(0.05)
    await asyncio.sleep(0.1)
    watch.cancel()
    assert len(stalls) == 1
    assert stalls[0] > 0.03


@pytest.mark.parametrize("field", ["tick_seconds", "max_batch_bytes", "keep_entries"])
def test_a_limit_must_be_positive(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        config(**{field: 0})
