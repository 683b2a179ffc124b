"""How commands run: in order, with one log_time, failing alike on every member."""

from __future__ import annotations

import asyncio
import threading
import time

import msgspec
import pytest

from connect_kv.errors import BadCall, CommandFailed
from connect_kv.framework.replicated import Replicated, command, query
from connect_kv.statemachine.hosted import Halt, MachineCall, ReplicatedMachine
from tests.framework.machines import Counter, Shop


def pack(**arguments: object) -> bytes:
    return msgspec.msgpack.encode(arguments)


def failed(outcome: object) -> tuple[str, str]:
    assert isinstance(outcome, CommandFailed)
    return outcome.type, outcome.message


def test_commands_run_in_order_and_give_one_outcome_each() -> None:
    machine = ReplicatedMachine(Counter())
    outcomes = machine.execute([MachineCall("increment", pack(by=by), 0, by) for by in (1, 2, 3)], None)
    assert outcomes == [msgspec.msgpack.encode(total) for total in (1, 3, 6)]
    assert machine.query("value", b"\x80", 0, None) == msgspec.msgpack.encode(6)


def test_a_raising_command_answers_its_error_and_keeps_its_changes() -> None:
    shop = Shop("EUR", {})
    machine = ReplicatedMachine(shop)
    outcomes = machine.execute(
        [MachineCall("fail", pack(change="USD"), 0, 1), MachineCall("now", b"\x80", 5, 2)], None
    )
    assert failed(outcomes[0]) == ("LookupError", "no such thing")
    assert shop.currency == "USD"
    assert outcomes[1] == msgspec.msgpack.encode(5)


def test_a_value_of_the_wrong_type_is_a_failure_of_the_command() -> None:
    outcomes = ReplicatedMachine(Shop("EUR", {})).execute(
        [MachineCall("wrong", b"\x80", 0, 1), MachineCall("huge", b"\x80", 0, 1)], None
    )
    assert failed(outcomes[0])[0] == "TypeError"
    assert "wrong returned something else than int" in failed(outcomes[0])[1]
    assert failed(outcomes[1])[0] == "OverflowError"


def test_log_time_is_the_only_clock() -> None:
    machine = ReplicatedMachine(Shop("EUR", {}))
    stamp = time.time_ns()
    assert machine.execute([MachineCall("now", b"\x80", stamp, 1)], None) == [msgspec.msgpack.encode(stamp)]
    assert Shop("EUR", {}).log_time == 0
    with pytest.raises(AttributeError):
        Shop("EUR", {}).log_time = 1  # type: ignore[misc]


class Deep(Replicated):
    def __init__(self) -> None:
        self.depth = 0

    @command
    def recurse(self) -> int:
        self.depth += 1
        return self.recurse()

    @command
    def exhaust(self) -> None:
        raise MemoryError

    @command
    def leave(self) -> None:
        raise SystemExit(3)

    @command
    def cancel(self) -> None:
        raise asyncio.CancelledError

    @command
    def interrupt(self) -> None:
        raise KeyboardInterrupt

    @command
    def close(self) -> None:
        raise GeneratorExit("closed")

    @query
    def ask(self, how: str) -> int:
        raise {"leave": SystemExit, "cancel": asyncio.CancelledError}[how]


@pytest.mark.parametrize(
    ("method", "type"),
    [
        ("leave", "SystemExit"),
        ("cancel", "asyncio.exceptions.CancelledError"),
        ("interrupt", "KeyboardInterrupt"),
        ("close", "GeneratorExit"),
        ("recurse", "RecursionError"),
    ],
)
def test_whatever_a_command_raises_is_its_own_failure(method: str, type: str) -> None:
    machine = ReplicatedMachine(Deep())
    first, second = machine.execute(
        [MachineCall(method, b"\x80", 0, 7), MachineCall(method, b"\x80", 0, 7)], None
    )
    assert failed(first)[0] == failed(second)[0] == type


@pytest.mark.parametrize("how", ["leave", "cancel"])
def test_whatever_a_query_raises_is_its_own_failure(how: str) -> None:
    with pytest.raises(CommandFailed, match=r"SystemExit|CancelledError"):
        ReplicatedMachine(Deep()).query("ask", pack(how=how), 0, None)


def test_a_recursion_goes_as_deep_however_deep_its_caller_is() -> None:
    """State may depend on it: it must be the same for the applier, a replay, and another member."""

    def depth_from(calls: int) -> int:
        if calls:
            return depth_from(calls - 1)
        deep = Deep()
        ReplicatedMachine(deep).execute([MachineCall("recurse", b"\x80", 0, 1)], None)
        return deep.depth

    async def within_a_task() -> int:
        return depth_from(2)

    found = {depth_from(0), depth_from(1), depth_from(200), asyncio.run(within_a_task())}
    thread = threading.Thread(target=lambda: found.add(depth_from(3)))
    thread.start()
    thread.join()
    assert len(found) == 1, found
    assert found.pop() > 900


def test_without_memory_a_machine_cannot_go_on() -> None:
    """Its state may differ from the others': what was done before is as good as ever."""
    calls = [
        MachineCall("leave", b"\x80", 0, 6),
        MachineCall("exhaust", b"\x80", 0, 7),
        MachineCall("leave", b"\x80", 0, 8),
    ]
    with pytest.raises(Halt, match="out of memory") as halt:
        ReplicatedMachine(Deep()).execute(calls, None)
    assert halt.value.at is calls[1]
    assert [failed(one)[0] for one in halt.value.outcomes] == ["SystemExit"]


@pytest.mark.parametrize(
    "call",
    [
        MachineCall("newer", b"\x80", 0, 9, 1),
        MachineCall("value", b"\x80", 0, 9, 1),
        MachineCall("increment", pack(to=1), 0, 9, 1),
    ],
)
def test_a_machine_cannot_go_on_with_an_entry_that_its_code_cannot_run(call: MachineCall) -> None:
    with pytest.raises(Halt, match="upgrade this member") as halt:
        ReplicatedMachine(Counter()).execute([call], None)
    assert halt.value.at is call


def test_a_query_that_raises_tells_its_caller() -> None:
    machine = ReplicatedMachine(Shop("EUR", {}))
    with pytest.raises(CommandFailed, match="KeyError: 'k'"):
        machine.query("broken", b"\x80", 0, None)
    with pytest.raises(BadCall, match="is a command"):
        machine.query("now", b"\x80", 0, None)
    with pytest.raises(BadCall, match="unknown argument"):
        machine.query("raw", pack(nothing=1), 0, None)


def test_an_endless_error_message_is_cut() -> None:
    class Talker(Replicated):
        @command
        def talk(self) -> None:
            raise ValueError("x" * 100_000)

    (outcome,) = ReplicatedMachine(Talker()).execute([MachineCall("talk", b"\x80", 0, 1)], None)
    assert len(failed(outcome)[1]) == 4096


def test_an_exception_named_like_ours_is_told_apart() -> None:
    class SessionExpired(Exception):
        pass

    class Machine(Replicated):
        @command
        def check(self) -> None:
            raise SessionExpired("the user's own")

    (outcome,) = ReplicatedMachine(Machine()).execute([MachineCall("check", b"\x80", 0, 1)], None)
    assert failed(outcome)[0] == f"{__name__}.SessionExpired"
