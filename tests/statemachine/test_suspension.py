"""What goes wrong in a machine suspends it, on that member: keys, sessions and other machines go on."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from connect_kv.errors import MachineSuspended
from connect_kv.framework.replicated import Replicated, command, query
from connect_kv.framework.types import MessageType, ServiceType, Store
from connect_kv.rpc.command_pb2 import Command, Result
from connect_kv.rpc.versions_pb2 import MachineChange
from connect_kv.statemachine.callbacks import CallbackMachine
from connect_kv.statemachine.host import HostConfig
from connect_kv.statemachine.machine_snapshots import MachineSnapshots
from connect_kv.statemachine.stored_states import MachineState
from tests.statemachine.conftest import Counter, Member, add, call, copy_snapshot, number_in, put


class Memory:
    """Of one process: how much there is."""

    enough = True


class Fragile(Replicated):
    """Runs out of memory where there is not enough."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.last_even: int = 0

    @command
    def add(self, name: str) -> int:
        self.names.append(name)
        if name == "large" and not Memory.enough:
            self.names.append("half of it")
            raise MemoryError
        return len(self.names)

    @query
    def all(self) -> list[str]:
        return self.names


MACHINES: dict[str, type[Replicated]] = {"counter": Counter, "fragile": Fragile}
EMPTY = msgspec.msgpack.encode({})


def name(text: str, **session: int) -> Command:
    return call("fragile", "add", {"name": text}, **session)


def skip(index: int, position: int = 0) -> Command:
    change = MachineChange(machine="fragile", skip=MachineChange.Skip(index=index, position=position))
    return Command(machine_change=change)


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Memory, "enough", False)


async def suspended_member(config: HostConfig | None = None) -> Member:
    member = await Member(MACHINES, config=config).start()
    await member.run(name("a"), add(1))
    results = await member.run(name("b"), put(b"k", b"v"), name("large"), add(2), name("c"))
    assert [number_in(results[0]), number_in(results[3])] == [2, 3], "others go on, and what came before"
    assert results[1].WhichOneof("result") == "put"
    assert [results[at].failure.code for at in (2, 4)] == [14, 14]
    assert "at entry 2: out of memory; others may have run this call" in results[2].failure.message
    return member


async def test_only_the_machine_that_ran_out_of_memory_is_suspended() -> None:
    member = await suspended_member()
    suspension = member.host.machines.suspended["fragile"]
    assert (suspension.index, suspension.position) == (2, 2)
    with pytest.raises(MachineSuspended, match="machine 'fragile' is suspended on this member at entry 2"):
        await member.host.query("fragile", "all", EMPTY)
    assert number_in((await member.run(add(1)))[0]) == 4


async def test_a_restart_tries_again_and_ends_where_the_others_are() -> None:
    member = await suspended_member()
    await member.run(name("d"))
    await member.crash()
    assert member.host.machines.suspended["fragile"].index == 2, "still not enough memory"
    Memory.enough = True
    await member.crash()
    assert not member.host.machines.suspended
    assert vars(member.objects["fragile"])["names"] == ["a", "b", "large", "c", "d"]
    assert number_in((await member.run(name("e")))[0]) == 6


async def test_its_last_stored_state_and_the_log_after_it_are_kept() -> None:
    member = await suspended_member(HostConfig(snapshot_entries=1))
    assert await member.make_durable() < 2
    for _ in range(5):
        await member.run(add(1), name("x"))
        assert await member.make_durable() < 2
    Memory.enough = True
    await member.crash()
    assert len(vars(member.objects["fragile"])["names"]) == 9
    assert vars(member.objects["counter"])["total"] == 8


async def test_the_log_is_kept_within_a_limit() -> None:
    member = await suspended_member(HostConfig(snapshot_entries=1, suspended_bytes=100))
    for _ in range(10):
        await member.run(add(1))
    assert await member.make_durable() == member.host.last_applied


async def test_without_the_log_after_its_state_it_stays_suspended_and_others_go_on() -> None:
    member = await suspended_member(HostConfig(snapshot_entries=1, suspended_bytes=100))
    for _ in range(10):
        await member.run(add(1))
    await member.make_durable()
    Memory.enough = True
    await member.crash()
    assert "the log begins later" in member.host.machines.suspended["fragile"].reason
    assert number_in((await member.run(add(1)))[0]) == 14


async def test_a_state_of_which_a_part_is_missing_is_not_sent() -> None:
    member = await suspended_member()
    with pytest.raises(MachineSuspended, match="the state of this member is not whole"):
        await member.host.snapshot()


async def test_a_state_from_elsewhere_ends_it() -> None:
    Memory.enough = True
    source = await Member(MACHINES).start()
    for one in ("a", "b", "large"):
        await source.run(name(one))
    Memory.enough = False
    member = await suspended_member()
    await copy_snapshot(source, member)
    assert not member.host.machines.suspended
    assert number_in((await member.run(name("d")))[0]) == 4


async def test_a_command_that_is_passed_over_by_decision_is_never_run() -> None:
    member = await suspended_member()
    await member.run(name("d"))
    await member.run(skip(2, 2))
    await member.settled()
    assert not member.host.machines.suspended
    assert vars(member.objects["fragile"])["names"] == ["a", "b", "c", "d"]
    for _ in range(2):
        await member.crash()
        assert vars(member.objects["fragile"])["names"] == ["a", "b", "c", "d"]
    assert number_in((await member.run(name("e")))[0]) == 5


async def test_it_is_rebuilt_beside_all_else_however_long_the_log_has_become() -> None:
    member = await suspended_member()
    for _ in range(200):
        await member.run(name("x"), add(1))
    await member.run(skip(2, 2))
    results = []
    while member.host.machines.suspended:
        results += await member.run(add(1), name("y"))
        await asyncio.sleep(0)
    assert number_in(results[0]) == 204, "others go on meanwhile"
    assert number_in((await member.run(name("z")))[0]) == 3 + 200 + len(results) // 2 + 1
    await member.crash()
    assert len(vars(member.objects["fragile"])["names"]) == 3 + 200 + len(results) // 2 + 1


async def test_a_machine_that_is_retired_while_it_is_rebuilt_stays_so() -> None:
    member = await suspended_member()
    for _ in range(200):
        await member.run(name("x"))
    await member.run(skip(2, 2))
    await asyncio.sleep(0)
    await member.run(change("retire"))
    await member.settled()
    assert vars(member.objects["fragile"])["names"] == []
    (refused,) = await member.run(name("y"))
    assert refused.failure.code == 5


async def test_to_pass_over_a_command_twice_is_the_same_as_once() -> None:
    member = await suspended_member()
    await member.run(skip(2, 2), skip(2, 2))
    await member.settled()
    await member.run(name("d"), skip(2, 2))
    await member.settled()
    assert vars(member.objects["fragile"])["names"] == ["a", "b", "c", "d"]


async def test_who_has_run_what_was_passed_over_rebuilds_without_it() -> None:
    Memory.enough = True
    member = await Member(MACHINES).start()
    await member.run(name("a"))
    await member.run(name("large"))
    await member.run(skip(2))
    assert "start this member again" in member.host.machines.suspended["fragile"].reason
    await member.crash()
    assert vars(member.objects["fragile"])["names"] == ["a"]


class Odd(Fragile):
    """A state that arises and cannot be stored."""

    @command
    def spoil(self) -> None:
        self.names.append(object())  # type: ignore[arg-type]  # the mistake under test


async def test_a_state_that_cannot_be_stored_suspends_its_machine() -> None:
    member = await Member({"counter": Counter, "fragile": Odd}, config=HostConfig(snapshot_entries=1)).start()
    results = await member.run(call("fragile", "spoil", {}), add(1))
    if not results[0].failure.code:
        await member.make_durable()
        assert "cannot be stored" in member.host.machines.suspended["fragile"].reason
    assert number_in((await member.run(add(1)))[0]) == 2


async def test_a_machine_that_is_not_here_is_suspended_and_runs_all_once_it_is() -> None:
    member = await Member({"counter": Counter}).start()
    await member.run(add(1))
    first, second = await member.run(name("a"), add(1))
    assert (first.failure.code, number_in(second)) == (14, 2)
    await member.run(name("b"))
    await member.make_durable()
    member._classes = MACHINES
    await member.crash()
    assert vars(member.objects["fragile"])["names"] == ["a", "b"]


async def test_a_command_that_this_code_lacks_suspends_its_machine() -> None:
    member = await Member(MACHINES).start()
    (result,) = await member.run(call("fragile", "newer", {}))
    assert result.failure.code == 14
    assert "there is no command 'newer'" in member.host.machines.suspended["fragile"].reason


def on_disk(enough: bool) -> CallbackMachine:
    """Counts in its store, and has not always enough memory."""

    def on_write(message: bytes, store: Store) -> bytes:
        store.put(b"total", b"%d" % (int(store.get(b"total") or b"0") + 1))
        if message == b"large" and not enough:
            raise MemoryError
        return store.get(b"total") or b""

    def on_read(message: bytes, store: Store) -> bytes:
        return store.get(b"total") or b"0"

    return CallbackMachine(lambda message: MessageType.WRITE, on_read, on_write, ServiceType.PERSISTENT)


def send(message: bytes) -> Command:
    return call("disk", "send", {"message": message})


def told(result: Result) -> bytes:
    return msgspec.msgpack.decode(result.machine_call.value, type=bytes)


async def test_a_persistent_machine_is_suspended_with_its_store_as_it_was() -> None:
    member = await Member({"counter": Counter}).start(others={"disk": on_disk(False)})
    (one,) = await member.run(send(b"a"))
    assert told(one) == b"1"
    results = await member.run(send(b"b"), send(b"large"), add(1))
    assert [result.failure.code for result in results] == [14, 14, 0]
    await member.run(send(b"c"))
    await member.make_durable()
    await member.crash(disk=on_disk(False))
    assert "out of memory" in member.host.machines.suspended["disk"].reason
    await member.crash(disk=on_disk(True))
    assert not member.host.machines.suspended
    assert told((await member.run(send(b"d")))[0]) == b"5"
    await member.crash(disk=on_disk(True))
    assert told((await member.run(send(b"e")))[0]) == b"6"


def change(what: str, machine: str = "fragile") -> Command:
    change = MachineChange(machine=machine)
    getattr(change, what).SetInParent()
    return Command(machine_change=change)


async def test_a_retired_machine_is_gone_and_can_be_hosted_again() -> None:
    member = await Member(MACHINES, config=HostConfig(snapshot_entries=1)).start()
    await member.run(name("a"))
    await member.make_durable()
    _, _, refused = await member.run(name("b"), change("retire"), name("c"))
    assert (refused.failure.code, "was retired" in refused.failure.message) == (5, True)
    for _ in range(2):
        await member.crash()
        assert vars(member.objects["fragile"])["names"] == []
        (refused,) = await member.run(name("c"))
        assert refused.failure.code == 5
    await member.run(name("d"), change("host"), name("e"))
    await member.run(name("f"))
    for _ in range(2):
        await member.crash()
        assert vars(member.objects["fragile"])["names"] == ["e", "f"]
        await member.make_durable()


async def test_a_retired_machine_need_not_be_here() -> None:
    member = await suspended_member()
    await member.run(change("retire"))
    assert not member.host.machines.suspended
    member._classes = {"counter": Counter}
    await member.crash()
    assert not member.host.machines.suspended
    await member.run(name("x"))
    assert not member.host.machines.suspended


@pytest.mark.parametrize("again", [False, True])
async def test_a_machine_that_is_retired_while_its_state_is_stored(
    monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """What is on its way to disk then is of a machine that is no more, though it has the same name."""
    member = await Member(MACHINES, config=HostConfig(snapshot_entries=1)).start()
    await member.run(name("a"))
    write = MachineSnapshots._write_chunks

    async def retired_meanwhile(
        self: MachineSnapshots, machine: str, generation: int, state: MachineState
    ) -> None:
        await write(self, machine, generation, state)
        if machine == "fragile":
            await member.run(change("retire"), *([change("host"), name("b")] if again else []))

    with monkeypatch.context() as patched:
        patched.setattr(MachineSnapshots, "_write_chunks", retired_meanwhile)
        await member.make_durable()
    for _ in range(2):
        await member.crash()
        assert not member.host.machines.suspended
        assert vars(member.objects["fragile"])["names"] == (["b"] if again else [])
        await member.make_durable()
