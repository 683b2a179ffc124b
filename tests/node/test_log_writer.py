"""The log writer: what waits while the disk writes becomes one batch, and nothing is reported early."""

import asyncio
from collections.abc import Sequence

import pytest

from connect_kv.errors import StorageError
from connect_kv.interfaces import Worker
from connect_kv.node.context import NoMetrics
from connect_kv.node.log_writer import LogWriter
from connect_kv.node.workers import InlineWorker
from connect_kv.raft.messages import AppendResponse
from connect_kv.raft.ready import Ready
from connect_kv.raft.types import EntryId, HardState, SnapshotMeta
from connect_kv.testing.simulation.clock import VirtualClock
from tests.node.fakes import GatedWorker
from tests.node.parts import entry


class Saves:
    """The part of a LogStore that the writer calls."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.fail = False

    def save(self, readies: Sequence[Ready]) -> None:
        if self.fail:
            raise StorageError("log", "input/output error")
        self.batches.append([ready.number for ready in readies])


class Writer:
    def __init__(self, worker: Worker) -> None:
        self.saves = Saves()
        self.reported: list[int] = []
        self.events: list[str] = []
        self.writer = LogWriter(
            log=self.saves,  # type: ignore[arg-type]  # only `save` is called
            worker=worker,
            clock=VirtualClock(),
            metrics=NoMetrics(),
            install=self._install,
            persisted=lambda readies: self.reported.extend(ready.number for ready in readies),
            written=lambda: None,
        )
        self.task = asyncio.create_task(self.writer.run())

    async def _install(self, meta: SnapshotMeta) -> None:
        self.events.append(f"install after {self.saves.batches}")


def ready(number: int, *, sync: bool = True) -> Ready:
    return Ready(number=number, entries=(entry(1, number),) if sync else (), must_sync=sync)


async def test_what_queues_while_the_disk_writes_becomes_one_batch() -> None:
    worker = GatedWorker()
    under = Writer(worker)
    worker.block()
    under.writer.submit(ready(1))
    await worker.reached()
    for number in (2, 3, 4):
        under.writer.submit(ready(number))
    assert under.reported == []
    worker.unblock()
    await under.writer.rest()
    assert under.saves.batches == [[1], [2, 3, 4]]
    assert under.reported == [1, 2, 3, 4]
    under.task.cancel()


def acknowledging(number: int) -> Ready:
    """A step without a disk part that sends something afterwards."""
    message = AppendResponse(source=1, target=2, term=1, accepted=True, match_index=1)
    return Ready(number=number, messages_after_persist=(message,))


async def test_a_step_without_a_disk_part_waits_only_for_those_before_it() -> None:
    worker = GatedWorker()
    under = Writer(worker)
    under.writer.submit(acknowledging(1))
    assert under.reported == [1]
    assert under.writer.idle
    worker.block()
    under.writer.submit(ready(2))
    under.writer.submit(acknowledging(3))
    await worker.reached()
    assert under.reported == [1]
    worker.unblock()
    await under.writer.rest()
    assert under.reported == [1, 2, 3]
    under.task.cancel()


async def test_a_step_that_nothing_waits_for_costs_no_turn_of_its_own() -> None:
    worker = GatedWorker()
    under = Writer(worker)
    under.writer.submit(Ready(number=1))
    worker.block()
    under.writer.submit(ready(2))
    await worker.reached()
    under.writer.submit(Ready(number=3))
    worker.unblock()
    await under.writer.rest()
    assert under.reported == [2]
    under.task.cancel()


async def test_a_hint_rides_with_the_next_write() -> None:
    worker = GatedWorker()
    under = Writer(worker)
    under.writer.submit(Ready(number=1, hard_state=HardState(1, None, 5)))
    assert under.saves.batches == []
    under.writer.submit(ready(2))
    await under.writer.rest()
    assert under.saves.batches == [[1, 2]]
    worker.block()
    under.writer.submit(ready(3))
    await worker.reached()
    under.writer.submit(Ready(number=4, hard_state=HardState(1, None, 6)))
    worker.unblock()
    await under.writer.rest()
    assert under.saves.batches == [[1, 2], [3]]
    under.writer.submit(ready(5))
    await under.writer.rest()
    assert under.saves.batches == [[1, 2], [3], [4, 5]]
    under.task.cancel()


async def test_a_snapshot_is_installed_between_what_came_before_and_its_own_entries() -> None:
    worker = GatedWorker()
    under = Writer(worker)
    under.writer.submit(ready(1))
    meta = SnapshotMeta(EntryId(1, 9), membership=None)  # type: ignore[arg-type]
    under.writer.submit(Ready(number=2, install=meta, must_sync=True))
    await under.writer.rest()
    assert under.events == ["install after [[1]]"]
    assert under.saves.batches == [[1], [2]]
    under.task.cancel()


async def test_after_a_failed_write_nothing_is_reported() -> None:
    under = Writer(InlineWorker())
    under.saves.fail = True
    under.writer.submit(ready(1))
    with pytest.raises(StorageError):
        await under.task
    assert under.reported == []


async def test_the_age_of_the_oldest_write_is_known() -> None:
    worker = GatedWorker()
    under = Writer(worker)
    worker.block()
    under.writer.submit(ready(1))
    began = asyncio.get_running_loop().time()
    await asyncio.sleep(3)
    under.writer.submit(ready(2))
    assert under.writer.oldest == began
    worker.unblock()
    await under.writer.rest()
    assert under.writer.oldest is None
    under.task.cancel()
