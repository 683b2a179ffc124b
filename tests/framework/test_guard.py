"""A command that leaves what cannot be stored fails by name, and none of it stays; queries change nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest

from connect_kv.errors import CommandFailed
from connect_kv.framework import data
from connect_kv.framework.replicated import Replicated, command, query
from connect_kv.statemachine.hosted import QUERY_WROTE, UNSTORABLE, MachineCall, ReplicatedMachine


@dataclass
class Item:
    name: str
    then: Any = None


class Hiding(Item):
    def __getattribute__(self, name: str) -> Any:
        raise ValueError("not to be read")


class Mistakes(Replicated):
    """Every method is one."""

    declared: list[int]

    def __init__(self) -> None:
        self.total: int = 0
        self.even: int = 0
        self.rows: list[Any] = ["first"]
        self.by_name: dict[str, Any] = {"first": 1}
        self.best: Item | None = None
        self.names: set[str] = set()

    @command
    def add(self, by: int) -> int:
        self.total += by
        self.even = by % 2 == 0  # mypy --strict finds nothing wrong
        self.rows.append(by)
        return self.total

    @command
    def bind(self) -> int:
        self.total += 1
        self.rows = [1, lambda: 1]
        return self.total

    @command
    def append(self) -> None:
        self.rows.extend([2, threading.Lock()])

    @command
    def put(self) -> None:
        self.by_name["a"] = 1
        self.by_name["b"] = [x for x in [self.by_name.keys()]]

    @command
    def hold(self) -> None:
        self.best = Item("x", then=open)

    @command
    def hide(self) -> None:
        self.best = Hiding("x")

    @command
    def nest(self) -> None:
        rows: list[Any] = []
        for _ in range(100_000):
            rows = [rows]
        self.rows = rows

    @command
    def late(self) -> None:
        setattr(self, "new", 1)  # noqa: B010

    @command
    def delete(self) -> None:
        delattr(self, "total")

    @command
    def declare(self, well: bool) -> None:
        self.declared = [1] if well else [iter([])]  # type: ignore[list-item]

    @command
    def fails(self) -> None:
        self.rows = [print]
        raise ValueError("no")

    @cached_property
    def doubled(self) -> int:
        return 2 * self.total

    @query
    def twice(self) -> int:
        return self.doubled

    @command
    def twice_too(self) -> int:
        return self.doubled

    @query
    def counts(self) -> int:
        self.total += 1
        return self.total

    @query
    def grows(self) -> None:
        self.rows.append(1)
        self.by_name["read"] = 1
        setattr(self, "cache", 1)  # noqa: B010

    @query
    def value(self) -> int:
        return self.total


@pytest.fixture
def machine() -> Mistakes:
    return Mistakes()


@pytest.fixture
def run(machine: Mistakes) -> Callable[..., Any]:
    hosted = ReplicatedMachine(machine)

    def run(name: str, **arguments: object) -> Any:
        (outcome,) = hosted.execute([MachineCall(name, data.encode(arguments), 1, 1)], None)
        hosted.snapshot()  # whatever came of it, the state can be stored
        if isinstance(outcome, CommandFailed):
            raise outcome
        return outcome

    return run


def test_a_bool_in_an_int_is_a_bool_and_stays_one(run: Callable[..., Any], machine: Mistakes) -> None:
    for by in range(400):
        run("add", by=by)
    other = Mistakes()
    other.restore(list(machine.snapshot()))
    assert other.even is machine.even is False
    assert len(other.rows) == 401


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("bind", "Mistakes.rows[1] cannot be stored: function is not plain data"),
        ("append", "Mistakes.rows[2] cannot be stored: lock is not plain data"),
        ("put", "Mistakes.by_name['b'][0] cannot be stored: dict_keys is not plain data"),
        ("hold", "Mistakes.best.then cannot be stored: builtin_function_or_method is not plain data"),
        ("late", "Mistakes.new is first set here"),
        ("delete", "Mistakes.total was deleted"),
    ],
)
def test_what_cannot_be_stored_fails_by_name_and_goes(
    run: Callable[..., Any], machine: Mistakes, name: str, complaint: str
) -> None:
    before = {**vars(machine), "rows": list(machine.rows), "by_name": dict(machine.by_name)}
    with pytest.raises(CommandFailed) as caught:
        run(name)
    assert (caught.value.type, caught.value.message[: len(complaint)]) == (UNSTORABLE, complaint)
    assert vars(machine) == before | {"total": machine.total}, "other changes stay, as always"
    assert run("add", by=2) == data.encode(machine.total)


def test_what_cannot_even_be_looked_at_fails_by_name(run: Callable[..., Any], machine: Mistakes) -> None:
    with pytest.raises(CommandFailed, match=r"best cannot be stored: ValueError: not to be read"):
        run("hide")
    with pytest.raises(CommandFailed, match=r"rows cannot be stored"):
        run("nest")
    assert (machine.best, machine.rows) == (None, ["first"])


def test_a_declared_attribute_may_come_later(run: Callable[..., Any], machine: Mistakes) -> None:
    with pytest.raises(CommandFailed, match=r"declared\[0\] cannot be stored: list_iterator"):
        run("declare", well=False)
    assert not hasattr(machine, "declared")
    run("declare", well=True)
    assert machine.declared == [1]


def test_what_a_failing_command_leaves_is_looked_at_too(run: Callable[..., Any], machine: Mistakes) -> None:
    with pytest.raises(CommandFailed, match=r"rows\[0\] cannot be stored"):
        run("fails")
    assert machine.rows == ["first"]


def test_what_was_set_from_outside_is_no_state(run: Callable[..., Any], machine: Mistakes) -> None:
    setattr(machine, "note", object())  # noqa: B010
    run("add", by=1)
    assert not hasattr(machine, "note")


def test_a_cached_property_lives_as_long_as_a_call(run: Callable[..., Any], machine: Mistakes) -> None:
    hosted = ReplicatedMachine(machine)
    for total in (1, 2):
        run("add", by=1)
        assert hosted.query("twice", data.encode({}), 1, None) == data.encode(2 * total)
        assert "doubled" not in vars(machine)
        assert run("twice_too") == data.encode(2 * total)
        assert "doubled" not in vars(machine)


@pytest.mark.parametrize(("name", "attribute"), [("counts", "total"), ("grows", "cache")])
def test_a_query_that_writes_fails_and_changes_nothing(machine: Mistakes, name: str, attribute: str) -> None:
    hosted = ReplicatedMachine(machine)
    before = hosted.snapshot()
    for _ in range(2):
        with pytest.raises(CommandFailed, match=rf"it changed Mistakes\.{attribute}:") as caught:
            hosted.query(name, data.encode({}), 1, None)
        assert caught.value.type == QUERY_WROTE
        assert hosted.snapshot() == before
    assert hosted.query("value", data.encode({}), 1, None) == data.encode(0)
