"""How commands run: in order, with one log_time, failing alike on every member."""

from __future__ import annotations

import time

import msgspec
import pytest

from connect_kv.errors import BadCall, CommandFailed, MachineBroken, UnknownEntry
from connect_kv.framework.hosted import Call, ReplicatedMachine
from connect_kv.framework.replicated import Replicated, command
from tests.framework.machines import Counter, Shop


def pack(**arguments: object) -> bytes:
    return msgspec.msgpack.encode(arguments)


def failed(outcome: object) -> tuple[str, str]:
    assert isinstance(outcome, CommandFailed)
    return outcome.type, outcome.message


def test_commands_run_in_order_and_give_one_outcome_each() -> None:
    machine = ReplicatedMachine(Counter())
    outcomes = machine.execute([Call("increment", pack(by=by), 0, by) for by in (1, 2, 3)], None)
    assert outcomes == [msgspec.msgpack.encode(total) for total in (1, 3, 6)]
    assert machine.query("value", b"\x80", 0, None) == msgspec.msgpack.encode(6)


def test_a_raising_command_answers_its_error_and_keeps_its_changes() -> None:
    shop = Shop("EUR", {})
    machine = ReplicatedMachine(shop)
    outcomes = machine.execute([Call("fail", pack(change="USD"), 0, 1), Call("now", b"\x80", 5, 2)], None)
    assert failed(outcomes[0]) == ("LookupError", "no such thing")
    assert shop.currency == "USD"
    assert outcomes[1] == msgspec.msgpack.encode(5)


def test_a_value_of_the_wrong_type_is_a_failure_of_the_command() -> None:
    outcomes = ReplicatedMachine(Shop("EUR", {})).execute(
        [Call("wrong", b"\x80", 0, 1), Call("huge", b"\x80", 0, 1)], None
    )
    assert failed(outcomes[0])[0] == "TypeError"
    assert "wrong returned something else than int" in failed(outcomes[0])[1]
    assert failed(outcomes[1])[0] == "OverflowError"


def test_log_time_is_the_only_clock() -> None:
    machine = ReplicatedMachine(Shop("EUR", {}))
    stamp = time.time_ns()
    assert machine.execute([Call("now", b"\x80", stamp, 1)], None) == [msgspec.msgpack.encode(stamp)]
    assert Shop("EUR", {}).log_time == 0
    with pytest.raises(AttributeError):
        Shop("EUR", {}).log_time = 1  # type: ignore[misc]


class Deep(Replicated):
    @command
    def recurse(self) -> int:
        return self.recurse()

    @command
    def exhaust(self) -> None:
        raise MemoryError

    @command
    def leave(self) -> None:
        raise SystemExit(3)


@pytest.mark.parametrize("method", ["recurse", "exhaust", "leave"])
def test_running_out_of_memory_or_stack_stops_the_node(method: str) -> None:
    with pytest.raises(MachineBroken, match=f"entry 7, '{method}'"):
        ReplicatedMachine(Deep()).execute([Call(method, b"\x80", 0, 7)], None)


@pytest.mark.parametrize(
    "call", [Call("newer", b"\x80", 0, 9), Call("value", b"\x80", 0, 9), Call("increment", pack(to=1), 0, 9)]
)
def test_an_entry_this_version_cannot_run_stops_the_node(call: Call) -> None:
    with pytest.raises(UnknownEntry, match="entry 9"):
        ReplicatedMachine(Counter()).execute([call], None)


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

    (outcome,) = ReplicatedMachine(Talker()).execute([Call("talk", b"\x80", 0, 1)], None)
    assert len(failed(outcome)[1]) == 4096


def test_an_exception_named_like_ours_is_told_apart() -> None:
    class SessionExpired(Exception):
        pass

    class Machine(Replicated):
        @command
        def check(self) -> None:
            raise SessionExpired("the user's own")

    (outcome,) = ReplicatedMachine(Machine()).execute([Call("check", b"\x80", 0, 1)], None)
    assert failed(outcome)[0] == f"{__name__}.SessionExpired"
