"""What does not fit is refused by what the disk holds now, not by what it held when it was last measured."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from connect_kv.errors import Refused
from connect_kv.rpc.command_pb2 import Command
from connect_kv.rpc.kv_pb2 import PutRequest, RequestOp, TxnRequest
from connect_kv.services.quota import Quota
from tests.services.conftest import until

LIMIT = 10_000
PUT = PutRequest(key=b"k", value=b"v" * 1000)


class Disk:
    """Holds so many bytes; measuring it may take until it is let go on."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.measured = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def measure(self) -> int:
        self.measured += 1
        size = self.size
        await self.answers.wait()
        return size


class Stopped:
    """A clock whose pauses never end: nothing is measured that nobody asks for."""

    def now(self) -> float:
        return 0.0

    def wall(self) -> int:
        return 0

    async def sleep(self, seconds: float) -> None:
        await asyncio.Event().wait()


@pytest.fixture
def disk() -> Disk:
    return Disk(LIMIT)


@pytest.fixture
async def quota(disk: Disk) -> Quota:
    """One that has measured a full disk."""
    made = Quota(LIMIT, clock=Stopped(), measure=disk.measure, exceeded=lambda: refusals.append(None))
    refusals.clear()
    running.append(asyncio.create_task(made.run()))
    await until(lambda: not made.fits(1))
    return made


refusals: list[None] = []
running: list[asyncio.Task[None]] = []


async def test_room_that_was_made_counts_at_once(quota: Quota, disk: Disk) -> None:
    disk.size = 100
    await quota.admit_put(PUT)
    assert not refusals


async def of_a_session(quota: Quota) -> None:
    await quota.make_room([Command(put=PUT)])
    quota.admit(Command(put=PUT))


@pytest.mark.parametrize(
    "ask",
    [
        lambda quota: quota.admit_put(PUT),
        lambda quota: quota.admit_txn(TxnRequest(success=[RequestOp(request_put=PUT)])),
        lambda quota: quota.admit_lease(),
        of_a_session,
    ],
    ids=["put", "txn", "lease", "session"],
)
async def test_what_still_does_not_fit_is_refused(
    quota: Quota, ask: Callable[[Quota], Awaitable[None]]
) -> None:
    with pytest.raises(Refused, match="database space exceeded"):
        await ask(quota)
    assert refusals == [None]


async def test_a_batch_of_a_session_that_fits_into_new_room_is_taken(quota: Quota, disk: Disk) -> None:
    disk.size = LIMIT - 3000
    batch = [Command(put=PUT) for _ in range(3)]
    await quota.make_room(batch)
    quota.admit(batch[0])
    quota.admit(batch[1])
    with pytest.raises(Refused):
        quota.admit(batch[2])


async def test_what_was_let_in_while_it_was_measured_is_counted_on_top(quota: Quota, disk: Disk) -> None:
    disk.size = LIMIT - 3000
    await quota.make_room([Command(put=PUT)])
    disk.answers.clear()
    before = disk.measured
    measuring = asyncio.create_task(quota.make_room([Command(put=PUT)] * 10))
    await until(lambda: disk.measured > before)
    quota.admit(Command(put=PUT))
    quota.admit(Command(put=PUT))
    disk.answers.set()
    await measuring
    with pytest.raises(Refused):
        quota.admit(Command(put=PUT))


async def test_many_that_do_not_fit_share_a_measurement_that_began_after_they_came(
    quota: Quota, disk: Disk
) -> None:
    disk.answers.clear()
    before = disk.measured
    first = asyncio.create_task(quota.admit_put(PUT))
    await until(lambda: disk.measured > before)
    disk.size = 100  # too late for the first, not for those that come now
    others = [asyncio.create_task(quota.admit_put(PUT)) for _ in range(5)]
    await asyncio.sleep(0)
    disk.answers.set()
    with pytest.raises(Refused):
        await first
    await asyncio.gather(*others)
    assert disk.measured == before + 2
