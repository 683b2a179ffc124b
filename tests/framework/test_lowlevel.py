"""Low-level machines behind the same door: bytes in, a value out."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from connect_kv.errors import BadCall, CommandFailed
from connect_kv.framework.types import MethodKind
from connect_kv.raft.types import Entry
from connect_kv.statemachine.hosted import Halt, MachineCall
from connect_kv.statemachine.lowlevel import LowLevelMachine
from examples.lowlevel.counter import Counter


def pack(**arguments: object) -> bytes:
    return msgspec.msgpack.encode(arguments)


def number(value: int) -> bytes:
    return value.to_bytes(8, "big", signed=True)


def test_commands_reach_it_as_entries_in_one_apply() -> None:
    machine = LowLevelMachine(counter := Counter())
    calls = [MachineCall("apply", pack(command=number(by)), 0, by) for by in (1, 2, 3)]
    assert machine.execute(calls, None) == [msgspec.msgpack.encode(total) for total in (1, 3, 6)]
    assert counter.last_applied == 3
    assert machine.query("query", pack(request=b""), 0, None) == msgspec.msgpack.encode(6)
    assert machine.value_json("query", msgspec.msgpack.encode(6)) == "6"


def test_its_state_moves_with_its_position() -> None:
    machine, other = LowLevelMachine(Counter()), LowLevelMachine(counter := Counter())
    machine.execute([MachineCall("apply", pack(command=number(-(1 << 60))), 0, 9)], None)
    other.restore(machine.snapshot())
    assert (counter.total, counter.last_applied) == (-(1 << 60), 9)


def test_calls_are_checked_and_described() -> None:
    machine = LowLevelMachine(Counter())
    assert machine.check("query", '{"request": ""}').kind is MethodKind.QUERY
    assert machine.check("apply", pack(command=b"")).kind is MethodKind.COMMAND
    assert [method.name for method in machine.describe()[1]] == ["apply", "query"]
    for method, arguments in (("other", b"\x80"), ("apply", b"\x80")):
        with pytest.raises(BadCall):
            machine.check(method, arguments)
    for method, arguments in (("apply", pack(command=b"")), ("query", b"\x80")):
        with pytest.raises(BadCall):
            machine.query(method, arguments, 0, None)


class Failing(Counter):
    def __init__(self, error: BaseException | None = None) -> None:
        super().__init__()
        self.error = error

    def apply(self, entries: Sequence[Entry]) -> list[int | str]:
        if self.error is not None:
            raise self.error
        return []

    def query(self, request: bytes) -> int:
        raise KeyError("k")


def test_what_it_raises_is_the_end_of_it_there() -> None:
    call = MachineCall("apply", pack(command=b""), 0, 1)
    for error, text in ((ValueError(), "ValueError"), (MemoryError(), "MemoryError"), (None, "one result")):
        with pytest.raises(Halt, match=text):
            LowLevelMachine(Failing(error)).execute([call], None)
    for unknown in (MachineCall("other", b"\x80", 0, 1), MachineCall("apply", b"\x80", 0, 1)):
        with pytest.raises(Halt):
            LowLevelMachine(Counter()).execute([unknown], None)
    with pytest.raises(CommandFailed, match="KeyError"):
        LowLevelMachine(Failing()).query("query", pack(request=b""), 0, None)
