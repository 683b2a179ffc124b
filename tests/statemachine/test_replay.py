"""In-memory machines restart from a stored state and the log; whatever happened, the state is the same."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from connect_kv.errors import CorruptStorage
from connect_kv.framework.replicated import Replicated, command
from connect_kv.node.workers import ThreadWorker
from connect_kv.rpc.command_pb2 import Command
from connect_kv.statemachine import stored_states
from connect_kv.statemachine.host import HostConfig
from connect_kv.statemachine.sessions import SessionLimits
from connect_kv.storage import codec
from connect_kv.storage.leveldb import LevelDbDisk
from connect_kv.storage.memory import MemoryDisk
from tests.statemachine.conftest import (
    SECOND,
    Counter,
    Member,
    Names,
    add,
    call,
    close_session,
    copy_snapshot,
    number_in,
    open_session,
    put,
)

MACHINES: dict[str, type[Replicated]] = {"counter": Counter, "names": Names}
LIMITS = SessionLimits(sessions=3, replies=6, min_ttl=2)


def history(seed: int, entries: int) -> list[tuple[list[Command], int]]:
    """Entries with sessions that expire, duplicates, refusals, failures: (commands, log_time)."""
    rng = random.Random(seed)
    made: list[tuple[list[Command], int]] = []
    sessions: list[int] = [99]
    log_time = 0
    for index in range(1, entries + 1):
        log_time += rng.choice((0, 0, SECOND // 2, SECOND))
        commands: list[Command] = []
        for position in range(rng.randrange(1, 5)):
            inside: dict[str, int] = {}
            if rng.random() < 0.8:
                inside = {
                    "session": rng.choice(sessions[-4:]),
                    "number": rng.randrange(1, 9),
                    "floor": rng.randrange(0, 4),
                }
            if rng.random() < 0.15:
                sessions.append(index << 20 | position)
                commands.append(open_session(ttl=2))
            elif rng.random() < 0.03:
                commands.append(close_session(rng.choice(sessions), 1))
            else:
                commands.append(any_command(rng, inside))
        # A new leader's clock may be behind.
        made.append((commands, max(0, log_time - rng.choice((0, 0, 3 * SECOND)))))
    return made


def any_command(rng: random.Random, inside: dict[str, int]) -> Command:
    match rng.randrange(5):
        case 0:
            return add(rng.choice((1, 2, 13)), **inside)
        case 1:
            return add(rng.choice((1, 2)), **inside)
        case 2:
            return call("names", "add", {"name": str(rng.randrange(5))}, **inside)
        case 3:
            return call("persistent", "send", {"message": b""}, **inside)
        case _:
            return put(b"%d" % rng.randrange(5), b"v", **inside)


async def new_member(**limits: int) -> Member:
    config = HostConfig(snapshot_entries=limits.get("snapshot_entries", 1), sessions=LIMITS)
    return await Member(MACHINES, config=config, persistent=True).start()


async def reference(seed: int, entries: int) -> tuple[list[dict[str, object]], list[list[bytes]]]:
    """States and results after each entry, of a member that never restarts and never stores."""
    member = await new_member(snapshot_entries=10**9)
    states, results = [], []
    for commands, log_time in history(seed, entries):
        found = await member.run(*commands, log_time=log_time)
        results.append([result.SerializeToString(deterministic=True) for result in found])
        states.append(comparable(member))
    return states, results


def comparable(member: Member) -> dict[str, object]:
    """A copy: the objects themselves go on changing."""
    machines = {
        name: {
            key: sorted(value) if isinstance(value, set) else repr(value) for key, value in vars(one).items()
        }
        for name, one in member.objects.items()
    }
    return member.state() | {"machines": machines}


@pytest.mark.parametrize("seed", range(12))
async def test_a_restart_at_any_point_gives_the_same_state_on_all_machines(seed: int) -> None:
    entries = 40
    states, expected = await reference(seed, entries)
    rng = random.Random(seed)
    member = await new_member()
    for commands, log_time in history(seed, entries):
        member.append(*commands, log_time=log_time)
    results: list[list[bytes]] = []
    while member.host.last_applied < entries:
        for row in await member.apply_rest(member.host.last_applied + rng.randrange(1, 6)):
            results.append([result.SerializeToString(deterministic=True) for result in row])
        if rng.random() < 0.3:
            await member.make_durable()
        if rng.random() < 0.6:
            await (member.crash() if rng.random() < 0.7 else member.restart())
        assert comparable(member) == states[member.host.last_applied - 1]
    assert results == expected


@pytest.mark.parametrize("seed", range(6))
async def test_a_snapshot_installed_elsewhere_is_the_same_state(seed: int) -> None:
    states, _ = await reference(seed, 30)
    source, target = await new_member(), await new_member()
    for commands, log_time in history(seed, 30):
        source.append(*commands, log_time=log_time)
    await source.apply_rest(20)
    await target.run(add(7))  # what the target had is replaced
    await copy_snapshot(source, target)
    assert comparable(target) == states[19]
    await target.crash()
    assert comparable(target) == states[19]
    target.log = source.log
    await target.apply_rest()
    assert comparable(target) == states[29]


async def test_storing_and_sending_states_beside_applying_changes_nothing() -> None:
    entries = 120
    states, _ = await reference(5, entries)
    workers = ThreadWorker("state-test"), ThreadWorker("apply-test")
    config = HostConfig(snapshot_entries=7, sessions=LIMITS)
    member = await Member(MACHINES, config=config, persistent=True, workers=workers).start()
    for commands, log_time in history(5, entries):
        member.append(*commands, log_time=log_time)

    async def apply_all() -> None:
        while member.host.last_applied < entries:
            await member.apply_rest(member.host.last_applied + 3)

    async def store_all() -> None:
        while member.host.last_applied < entries:
            await member.make_durable()

    async def send_all() -> None:
        while member.host.last_applied < entries:
            source = await member.host.snapshot()
            assert [chunk async for chunk in source.chunks()]
            source.close()

    async with asyncio.timeout(30):
        await asyncio.gather(apply_all(), store_all(), send_all())
    assert comparable(member) == states[-1]
    await member.crash()
    assert comparable(member) == states[-1]
    await member.host.close()
    for worker in workers:
        await worker.close()


async def test_the_same_on_a_real_disk(tmp_path: Path) -> None:
    states, _ = await reference(4, 30)
    workers = ThreadWorker("state-test"), ThreadWorker("apply-test")
    config = HostConfig(snapshot_entries=4, sessions=LIMITS)
    member, other = [
        Member(
            MACHINES,
            config=config,
            persistent=True,
            workers=workers,
            disk=LevelDbDisk(),
            root=tmp_path / name,
        )
        for name in ("one", "two")
    ]
    await member.start()
    await other.start()
    for commands, log_time in history(4, 30):
        member.append(*commands, log_time=log_time)
    for end in (7, 15, 20):
        await member.apply_rest(end)
        await member.make_durable()
        await member.restart()
        assert comparable(member) == states[end - 1]
    await copy_snapshot(member, other)
    other.log = member.log
    await other.apply_rest()
    assert comparable(other) == states[-1]
    for one in (member, other):
        await one.host.close()
    for worker in workers:
        await worker.close()


async def test_skipped_calls_are_forgotten_once_no_replay_can_meet_them() -> None:
    member = await new_member()
    session = await member.open_session()
    duplicate = add(session=session, number=1)
    await member.run(duplicate, duplicate, duplicate)
    engine = member.host._writer.database.engine
    assert stored_states.skipped(engine) == {(2, 1), (2, 2)}
    await member.make_durable()
    await member.make_durable()
    assert stored_states.skipped(engine) == set()


async def test_durable_is_what_can_be_rebuilt_without_the_log() -> None:
    member = await Member(MACHINES, config=HostConfig(snapshot_entries=5)).start()
    for _ in range(4):
        await member.run(add())
    assert await member.host.make_durable() == 0, "not enough was applied to store machines again"
    await member.run(add())
    assert await member.host.make_durable() == 5
    await member.run(put(b"k", b"v"))
    assert await member.host.make_durable() == 5
    assert await Member({}).start() is not None


async def test_without_machines_in_memory_everything_synced_is_durable() -> None:
    member = await Member({}, persistent=True).start()
    await member.run(put(b"k", b"v"))
    assert await member.host.make_durable() == 1


async def test_large_states_are_stored_less_often() -> None:
    config = HostConfig(snapshot_entries=1, snapshot_ratio=2)
    member = await Member({"names": Names}, config=config).start()
    await member.run(call("names", "add", {"name": "x" * 100_000}))
    assert await member.host.make_durable() == 1
    await member.run(call("names", "add", {"name": "y"}))
    assert await member.host.make_durable() == 1
    await member.run(call("names", "add", {"name": "z" * 60_000}))
    assert await member.host.make_durable() == 3


async def test_a_machine_nobody_calls_does_not_hold_the_log_back() -> None:
    member = await new_member()
    await member.run(put(b"k", b"v"))
    before = stored_states.headers(member.host._writer.database.engine)["counter"]
    assert await member.host.make_durable() == 1
    after = stored_states.headers(member.host._writer.database.engine)["counter"]
    assert (before.generation, after.generation, after.index) == (0, 0, 1), "the same chunks, further on"


async def test_a_machine_added_later_starts_where_the_member_stands() -> None:
    member = await Member({"counter": Counter}, config=HostConfig(snapshot_entries=1)).start()
    await member.run(add(5))
    await member.make_durable()
    member._classes = MACHINES
    await member.restart()
    await member.run(call("names", "add", {"name": "a"}), add(1))
    await member.crash()
    assert vars(member.objects["names"]) == {"names": {"a"}}
    assert vars(member.objects["counter"])["total"] == 6


async def test_a_machine_left_out_is_suspended_and_goes_on_once_it_is_back() -> None:
    member = await new_member()
    await member.run(add())
    await member.host.close()
    classes, member._classes = member._classes, {"counter": Counter}
    await member.start()
    assert "does not host it" in member.host.machines.suspended["names"].reason
    first, second = await member.run(add(), call("names", "add", {"name": "a"}))
    assert number_in(first) == 2
    assert second.failure.code == 14
    await member.make_durable()
    member._classes = classes
    await member.crash()
    assert not member.host.machines.suspended
    assert vars(member.objects["names"]) == {"names": {"a"}}
    assert vars(member.objects["counter"])["total"] == 2


async def test_an_unknown_machine_of_a_snapshot_is_suspended() -> None:
    source, target = await new_member(), await Member({"counter": Counter}, persistent=True).start()
    await source.run(call("names", "add", {"name": "a"}))
    await copy_snapshot(source, target)
    assert "names" in target.host.machines.suspended
    await target.run(add())
    target._classes = MACHINES
    await target.crash()
    assert vars(target.objects["names"]) == {"names": {"a"}}


async def test_a_machine_missing_from_a_snapshot_goes_back_to_its_first_state() -> None:
    source, target = await Member({"counter": Counter}, persistent=True).start(), await new_member()
    await source.run(add(5))
    await source.run(add(6))
    await target.run(call("names", "add", {"name": "gone"}))
    await copy_snapshot(source, target)
    assert vars(target.objects["names"]) == {"names": set()}
    assert vars(target.objects["counter"])["total"] == 11
    await target.run(call("names", "add", {"name": "new"}))
    await target.crash()
    assert vars(target.objects["names"]) == {"names": {"new"}}


async def test_a_state_that_a_class_cannot_take_is_named() -> None:
    class Other(Replicated):
        def __init__(self) -> None:
            self.different = 0

        @command
        def add(self, by: int = 1) -> int:
            return by

    member = await Member({"counter": Counter}, config=HostConfig(snapshot_entries=1)).start()
    await member.run(add())
    await member.make_durable()
    await member.host.close()
    member._classes = {"counter": Other}
    await member.start()
    assert "its stored state cannot be restored" in member.host.machines.suspended["counter"].reason


async def test_damaged_chunks_of_a_stored_state_are_noticed() -> None:
    member = await new_member()
    await member.run(add())
    await member.make_durable()
    engine = member.host._writer.database.engine
    header = stored_states.headers(engine)["counter"]
    ((key, chunk),) = engine.iterate(
        stored_states._generation("counter", header.generation),
        stored_states._generation("counter", header.generation + 1),
    )
    assert key[0] == codec.MACHINE_SNAPSHOTS
    engine.batch({key: chunk[:-1] + b"?"}).write(sync=False)
    await member.host.close()
    with pytest.raises(CorruptStorage, match="stored state of machine 'counter' is damaged"):
        await member.start()


async def test_a_crash_while_states_are_stored_leaves_one_whole_state() -> None:
    """Chunks that a crash left behind are not mistaken for part of the next state."""
    member = await new_member()
    await member.run(call("names", "add", {"name": "a"}))
    engine = member.host._writer.database.engine
    left = dict(stored_states.chunk_changes("names", 1, stored_states.MachineState([b"1", b"2", b"3", b"4"])))
    engine.batch(left).write(sync=False)
    await member.crash()
    await member.make_durable()
    await member.crash()
    assert vars(member.objects["names"]) == {"names": {"a"}}


async def test_large_states_travel_in_several_batches() -> None:
    member = await new_member()
    for letter in "abcdefgh":
        await member.run(call("names", "add", {"name": letter * 1_000_000}))
    await member.make_durable()
    await member.crash()
    assert len(vars(member.objects["names"])["names"]) == 8


@pytest.mark.parametrize("seed", range(20))
async def test_after_a_power_loss_the_state_is_whole_or_refused(seed: int) -> None:
    entries = 30
    states, _ = await reference(3, entries)
    rng = random.Random(seed)
    disk = MemoryDisk(random.Random(seed), wal_bytes=2000)
    config = HostConfig(snapshot_entries=3, sessions=LIMITS)
    member = await Member(MACHINES, config=config, persistent=True, disk=disk).start()
    for commands, log_time in history(3, entries):
        member.append(*commands, log_time=log_time)
    while member.host.last_applied < entries:
        await member.apply_rest(member.host.last_applied + rng.randrange(1, 6))
        if rng.random() < 0.3:
            await member.make_durable()
        if rng.random() < 0.3:
            member.kv.close()
            disk.crash()
            await member.start()
            assert member.host.last_applied >= member.durable
            if member.host.last_applied:
                assert comparable(member) == states[member.host.last_applied - 1]
