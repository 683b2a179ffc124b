"""What compactions leave behind is removed a little at a time, on whatever path the process takes."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from connect_kv.kv import compaction, layout
from connect_kv.rpc.command_pb2 import Command
from connect_kv.rpc.kv_pb2 import TxnRequest
from connect_kv.storage.memory import MemoryDisk
from connect_kv.storage.overlay import Overlay
from tests.kv.conftest import Kv, delete_op, new_engine, put_op, run


def stored(kv: Kv) -> int:
    return sum(1 for _ in kv.engine.iterate(layout.HISTORY, layout.META))


async def test_space_comes_back_in_bounded_steps(kv: Kv) -> None:
    for _ in range(10):
        for key in range(100):
            kv.put(b"%03d" % key, b"v")
    assert stored(kv) == 2000
    kv.compact(kv.machine.revision)
    assert kv.clean() == 3, "one of searches, two of a sweep over what is left"
    assert stored(kv) == 200
    assert (await kv.get(b"\0", b"\0")).count == 100
    assert kv.machine.take_emptied() == (layout.HISTORY, layout.META)
    assert kv.machine.take_emptied() is None


async def test_a_restart_in_the_middle_goes_on_where_it_was(kv: Kv) -> None:
    for _ in range(500):
        kv.put(b"a")
    kv.compact(400)
    overlay = Overlay(kv.engine)
    kv.machine.cleanup(overlay)
    kv.write(overlay)
    kv.restart()
    assert kv.machine.cleanup_pending
    kv.clean()
    assert stored(kv) == 2 * 102


async def test_a_second_compaction_during_a_cleanup_is_cleaned_up_too(kv: Kv) -> None:
    for number in range(600):
        kv.put(b"a")
        if number % 7 == 0:
            kv.delete(b"a")
    kv.compact(300)
    overlay = Overlay(kv.engine)
    kv.machine.cleanup(overlay)
    kv.write(overlay)
    kv.compact(600)
    kv.clean()
    at_600 = (await kv.get(b"a", revision=600)).count
    assert at_600 == 1
    assert stored(kv) == 2 * (kv.machine.revision - 600 + 1)


async def test_waiting_for_the_cleanup_ends_with_it(kv: Kv) -> None:
    for _ in range(300):
        kv.put(b"a")
    kv.compact(300)
    waiting = asyncio.create_task(kv.machine.cleaned(300))
    await asyncio.sleep(0)
    assert not waiting.done()
    kv.clean()
    await waiting
    await kv.machine.cleaned(300)


@pytest.mark.parametrize("seed", range(8))
def test_both_ways_of_cleaning_up_leave_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes of one key in one transaction, at the compacted revision and around it, included."""

    def left(searches: int) -> list[tuple[bytes, bytes]]:
        monkeypatch.setattr(compaction, "_ENTRIES_PER_SEARCH", searches)
        kv = Kv(MemoryDisk(random.Random(1)).open(Path("state")))
        rng = random.Random(seed)
        for _ in range(4):
            for _ in range(400):
                random_write(kv, rng)
            kv.compact(kv.machine.revision - rng.randrange(30))
            for _ in range(rng.randrange(3)):  # a later compaction may come in the middle
                overlay = Overlay(kv.engine)
                kv.machine.cleanup(overlay)
                kv.write(overlay)
            random_write(kv, rng)
            kv.compact(kv.machine.revision)
            kv.clean()
        assert kv.machine.keys == sum(1 for _ in kv.engine.iterate(layout.CURRENT, layout.HISTORY))
        return list(kv.engine.iterate(b"", layout.CLEANUP))

    searched, swept = left(0), left(1_000_000)
    assert searched == swept
    assert len(searched) < 500


def random_write(kv: Kv, rng: random.Random) -> None:
    key = b"k%d" % rng.randrange(40)
    actions: list[Callable[[], object]] = [
        lambda: kv.put(key, rng.randbytes(3)),
        lambda: kv.put(key, rng.randbytes(3)),
        lambda: kv.delete(key),
        lambda: kv.txn(TxnRequest(success=[delete_op(key), put_op(key + b"+")])),
        lambda: kv.txn(TxnRequest(success=[delete_op(b"a", b"\0"), put_op(key)])),
    ]
    rng.choice(actions)()


def begun(kv: Kv, revision: int) -> Overlay:
    """A compaction that was applied and is not on disk yet: its batch is being written."""
    overlay = Overlay(kv.engine)
    command = Command()
    command.compact.revision = revision
    kv.index += 1
    run(kv.machine.apply(command, kv.index, kv.at, overlay))
    kv.machine.seal(overlay)
    return overlay


async def loop_turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_hash_waits_for_the_cleanup_although_another_compaction_is_on_its_way(kv: Kv) -> None:
    """Members stand at different points of the cleanup then: only what is cleaned up can be compared."""
    other = Kv(new_engine())
    for number in range(600):
        for one in (kv, other):
            one.put(b"%d" % (number % 7))
    for one in (kv, other):
        one.compact(300)
    other.clean()
    whole = await other.machine.hash_kv(0)
    overlay = begun(kv, 500)
    hashing = asyncio.create_task(kv.machine.hash_kv(0))
    await loop_turns()
    assert not hashing.done()
    kv.write(overlay)
    kv.clean()
    other.compact(500)
    other.clean()
    assert await hashing == await other.machine.hash_kv(0) != whole
    other.machine.close()
    other.engine.close()


async def test_a_hash_lets_others_run_while_a_compaction_is_written_and_not_published(kv: Kv) -> None:
    kv.put(b"a")
    kv.put(b"a")
    overlay = begun(kv, 2)
    kv.engine.batch(overlay.changes).write(sync=False)
    hashing = asyncio.create_task(kv.machine.hash_kv(0))
    await loop_turns()  # it would never come back
    assert not hashing.done()
    kv.machine.published()
    kv.clean()
    assert (await hashing)[1] == 2


async def test_a_restart_knows_what_is_cleaned_up(kv: Kv) -> None:
    for _ in range(500):
        kv.put(b"a")
    kv.compact(400)
    kv.restart()
    hashing = asyncio.create_task(kv.machine.hash_kv(0))
    await loop_turns()
    assert not hashing.done()
    kv.clean()
    found = await hashing
    kv.restart()
    assert await kv.machine.hash_kv(0) == found
