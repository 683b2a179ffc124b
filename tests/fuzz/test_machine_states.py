"""Stored states of machines, and commands of the low-level ones: taken over, or refused by name."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_kv.errors import CommandFailed, CorruptStorage
from connect_kv.framework import data as wire
from connect_kv.framework.replicated import Replicated, command
from connect_kv.statemachine import stored_states
from connect_kv.statemachine.hosted import HostedMachine, MachineCall, ReplicatedMachine
from connect_kv.statemachine.lowlevel import LowLevelMachine
from connect_kv.statemachine.stored_states import MachineState
from connect_kv.statemachine.user_machines import UserMachines
from connect_kv.storage import codec
from connect_kv.storage.memory import MemoryDisk
from examples.lowlevel import counter, dict_kv
from tests.fuzz.conftest import damaged, fuzz

pytestmark = pytest.mark.long


class Everything(Replicated):
    """Attributes of many types."""

    def __init__(self) -> None:
        self.number = 2**70
        self.text = "text"
        self.data = b"\0"
        self.tags: list[str] = ["a", "b"]
        self.tree: dict[str, list[int | None]] = {"x": [1, None]}
        self.pair: tuple[float, bool] = (0.5, True)

    @command
    def touch(self) -> int:
        self.number += len(self.tags) + len(self.tree) + int(self.pair[0])
        return self.number


MACHINES: dict[str, Callable[[], HostedMachine]] = {
    "class": lambda: ReplicatedMachine(Everything()),
    "dictionary": lambda: LowLevelMachine(dict_kv.DictKv()),
    "counter": lambda: LowLevelMachine(counter.Counter()),
}
COMMANDS = [dict_kv.encode(dict_kv.Put("k", b"v")), dict_kv.encode(dict_kv.Delete("k")), b"\1"]


def applied(machine: HostedMachine, command: bytes) -> object:
    arguments = wire.encode({"command": command})
    (outcome,) = machine.execute([MachineCall("apply", arguments, 1_000_000, 1)], None)
    return outcome


@pytest.mark.parametrize("name", MACHINES)
def test_a_stored_state_is_taken_over_or_refused(name: str) -> None:
    make = MACHINES[name]
    filled = make()
    if name != "class":
        for one in COMMANDS:
            applied(filled, one)
    valid = filled.snapshot()

    @fuzz(300)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        chunks = list(valid)
        at = data.draw(st.integers(0, len(chunks) - 1))
        chunks[at] = data.draw(damaged(st.just(chunks[at])))
        if data.draw(st.booleans()):
            del chunks[data.draw(st.integers(0, len(chunks) - 1))]
        machine = make()
        machines = UserMachines({"machine": machine})
        machines.restore("machine", chunks)
        if "machine" in machines.suspended:
            return
        again = make()
        again.restore(machine.snapshot())
        assert again.snapshot() == machine.snapshot()

    run()


@pytest.mark.parametrize("name", ["dictionary", "counter"])
def test_a_low_level_machine_takes_any_command(name: str) -> None:
    """What it is sent is bytes of a client: it answers or fails, and does not end the member."""
    machine = MACHINES[name]()

    @fuzz(300)
    @given(damaged(st.sampled_from(COMMANDS)) | st.binary(max_size=50))
    def run(command: bytes) -> None:
        outcome = applied(machine, command)
        assert isinstance(outcome, bytes | CommandFailed)

    run()


@pytest.mark.parametrize(
    "command",
    [
        b"\x83\xa4type\xa3\xd0ut\xa3key\xa1k\xa5value\xc4\x01v",
        b"\x84\xa4type\xa3Put\xa3key\xa1k\xa5value\xc4\x01v\xa1x" + b"\x91" * 100_000,
    ],
)
def test_a_dictionary_refuses_what_it_cannot_read(command: bytes) -> None:
    """By its answer: what a low-level machine raises ends every member."""
    outcome = applied(MACHINES["dictionary"](), command)
    assert isinstance(outcome, bytes)
    assert b"refused" in outcome


@pytest.mark.parametrize("command", [b"\x7f" * 9, b"\x7f" + b"\xff" * 7])
def test_a_counter_refuses_what_it_could_not_answer(command: bytes) -> None:
    machine = MACHINES["counter"]()
    applied(machine, b"\1")
    outcome = applied(machine, command)
    assert isinstance(outcome, bytes)
    assert b"refused" in outcome
    assert applied(machine, b"\1") == wire.encode(2)


@fuzz(300)
@given(st.data())
def test_records_of_stored_states_are_read_or_refused(data: st.DataObject) -> None:
    engine = MemoryDisk(random.Random(1)).open(Path("/state"))
    state = MachineState([b"one", b"two"])
    for key, chunk in stored_states.chunk_changes("m", 5, state):
        engine.batch({key: chunk}).write(sync=False)
    engine.batch(stored_states.header_changes(engine, {"m": stored_states.header_for(state, 5, 6)})).write(
        sync=False
    )
    space = codec.MACHINE_SNAPSHOTS
    stored = list(engine.iterate(bytes((space,)), bytes((space + 1,))))
    key, value = data.draw(st.sampled_from(stored))
    engine.batch({key: data.draw(st.none() | damaged(st.just(value)))}).write(sync=False)
    with suppress(CorruptStorage):
        for name, header in stored_states.headers(engine).items():
            assert list(stored_states.chunks(engine, name, header)) == state.chunks
