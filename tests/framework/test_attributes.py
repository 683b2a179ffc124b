"""A snapshot holds all attributes; what could never be stored is refused at start, by name."""

from __future__ import annotations

import math
import random
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connect_kv.errors import ConfigError
from connect_kv.framework.replicated import Replicated, command
from connect_kv.statemachine.hosted import ReplicatedMachine
from tests.framework.machines import Item, Shop


class Machine(Replicated):
    @command
    def touch(self) -> None:
        """Machines need at least one method."""


def test_every_attribute_comes_back_private_ones_too() -> None:
    shop, other = Shop("EUR", {"a": 1}), Shop("USD", {})
    shop.add(Item("x", 0.1, {"t", "u"}))
    other.restore(iter(list(shop.snapshot())))
    assert vars(other) == vars(shop)
    assert isinstance(other.best, Item)


class Everything(Machine):
    numbers: dict[int, list[float]]

    def __init__(self) -> None:
        self.numbers = {}
        self.texts: list[str] = []
        self.pair: tuple[int, str] = (0, "")
        self.members: set[str] = set()
        self.maybe: int | None = None
        self.flag = False
        self.big = 0
        self.data = b""


values = st.fixed_dictionaries(
    {
        "numbers": st.dictionaries(
            st.integers(-(1 << 63), (1 << 64) - 1), st.lists(st.floats(allow_nan=False))
        ),
        "texts": st.lists(st.text()),
        "pair": st.tuples(st.integers(0, 9), st.text()),
        "members": st.sets(st.text()),
        "maybe": st.none() | st.integers(0, 9),
        "flag": st.booleans(),
        "big": st.integers(),
        "data": st.binary(),
    }
)


@pytest.mark.long
@settings(suppress_health_check=[HealthCheck.too_slow])  # what else runs on the machine decides that
@given(state=values)
def test_any_state_of_annotated_attributes_comes_back_equal(state: dict[str, Any]) -> None:
    machine, other = Everything(), Everything()
    vars(machine).update(state)
    other.restore(list(machine.snapshot()))
    assert vars(other) == state
    assert list(other.numbers) == list(machine.numbers), "the order of a dict is part of the state"


def test_nan_equals_itself() -> None:
    class Unknown(Machine):
        def __init__(self) -> None:
            self.rate = math.nan

    machine = ReplicatedMachine(Unknown())
    machine.restore(machine.snapshot())


def test_dataclasses_can_be_machines() -> None:
    @dataclass
    class Points(Machine):
        total: int = 0
        names: list[str] = field(default_factory=list)

    points, other = Points(3, ["a"]), Points()
    ReplicatedMachine(points)
    other.restore(points.snapshot())
    assert other == points


def test_an_attribute_new_in_this_version_keeps_its_first_value() -> None:
    class Old(Machine):
        def __init__(self) -> None:
            self.total = 7

    class New(Machine):
        def __init__(self) -> None:
            self.total = 0
            self.names: list[str] = ["first"]

    machine = New()
    machine.names.append("second")  # changed before: it must not be seen afterwards
    machine.restore(Old().snapshot())
    assert (machine.total, machine.names) == (7, ["first", "second"])
    machine.names.append("third")
    machine.restore(Old().snapshot())
    assert machine.names == ["first", "second"]


def test_an_attribute_the_class_no_longer_has_is_refused_by_name() -> None:
    class Old(Machine):
        def __init__(self) -> None:
            self.total = 7
            self.gone = 1

    class New(Machine):
        def __init__(self) -> None:
            self.total = 0

    with pytest.raises(ConfigError, match=r"New.*'gone'"):
        New().restore(Old().snapshot())


class EmptyList(Machine):
    def __init__(self) -> None:
        self.names = []  # type: ignore[var-annotated]


class Nothing(Machine):
    def __init__(self) -> None:
        self.best = None


class Waiting(Machine):
    def __init__(self) -> None:
        self.lock = threading.Lock()


class Listening(Machine):
    def __init__(self) -> None:
        self.socket: socket.socket | None = None


class Calling(Machine):
    def __init__(self) -> None:
        self.then: Callable[[], int] | None = None


class Random(Machine):
    def __init__(self) -> None:
        self.chance = random.Random(1)


class Hidden(Machine):
    def __init__(self) -> None:
        self.rows: dict[str, list[Any]] = {"a": [len]}


class Late(Machine):
    @command
    def rename(self) -> None:
        self.name = "late"


class Deleting(Machine):
    def __init__(self) -> None:
        self.name = "early"

    @command
    def forget(self) -> None:
        del self.name


class Shared(Machine):
    names: list[str] = []  # noqa: RUF012  # the mistake under test


class Slotted(Machine):
    __slots__ = ("hidden",)


class UnknownName(Machine):
    def __init__(self) -> None:
        self.item: Missing = 1  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("machine", "complaint"),
    [
        (EmptyList, r"EmptyList\.names needs an annotation, such as 'self\.names: list\[str\] = "),
        (Nothing, r"Nothing\.best needs an annotation"),
        (Waiting, r"Waiting\.lock: lock is not plain data"),
        (Listening, r"Listening\.socket: socket is not plain data"),
        (Calling, r"Calling\.then: Callable is not plain data"),
        (Random, r"Random\.chance: Random is not plain data"),
        (Hidden, r"Hidden\.rows\['a'\]\[0\] cannot be stored: builtin_function_or_method is not plain data"),
        (Late, r"Late\.name is first set in rename"),
        (Deleting, r"Deleting\.name is deleted in forget"),
        (Shared, r"Shared\.names belongs to the class"),
        (Slotted, r"Slotted: __slots__ would hide attributes"),
        (UnknownName, r"UnknownName\.item: name 'Missing' is not defined"),
    ],
)
def test_what_would_not_come_back_is_refused_by_name(machine: type[Machine], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        ReplicatedMachine(machine())


def test_constants_and_properties_of_a_class_are_no_state() -> None:
    class Fine(Machine):
        kinds: ClassVar[list[str]] = ["a"]

        def __init__(self) -> None:
            self._name = ""

        @property
        def name(self) -> str:
            return self._name

        @name.setter
        def name(self, value: str) -> None:
            self._name = value

        @command
        def rename(self, name: str) -> None:
            self.name = name

    ReplicatedMachine(Fine())


class Own(Machine):
    """A snapshot of its own, in chunks."""

    def __init__(self) -> None:
        self.numbers = [1, 2, 3]

    def snapshot(self) -> list[bytes]:
        return [bytes([number]) for number in self.numbers]

    def restore(self, chunks: Any) -> None:
        self.numbers = [chunk[0] for chunk in chunks]


def test_a_class_can_store_itself_in_chunks() -> None:
    machine, own = Own(), Own()
    own.numbers = [9]
    hosted = ReplicatedMachine(machine)
    assert hosted.snapshot() == [b"\x01", b"\x02", b"\x03"]
    hosted.restore(ReplicatedMachine(own).snapshot())
    assert machine.numbers == [9]


def test_a_snapshot_of_its_own_that_cannot_be_right_is_refused() -> None:
    class Half(Machine):
        def snapshot(self) -> list[bytes]:
            return []

    class Forgetful(Own):
        def restore(self, chunks: Any) -> None:
            self.numbers = []

    class Text(Own):
        def snapshot(self) -> list[bytes]:
            return ["text"]  # type: ignore[list-item]

    class Failing(Own):
        def restore(self, chunks: Any) -> None:
            raise ValueError("no")

    for machine, complaint in [
        (Half(), "Half defines only one of snapshot and restore"),
        (Forgetful(), "Forgetful: after restore, snapshot gives something else"),
        (Text(), "Text.snapshot must give pieces of bytes"),
        (Failing(), "Failing.restore fails on what snapshot gave: no"),
    ]:
        with pytest.raises(ConfigError, match=complaint):
            ReplicatedMachine(machine)


def test_bytes_that_are_no_snapshot_are_refused() -> None:
    machine = Shop("EUR", {})
    with pytest.raises(ValueError, match="not a snapshot of Shop"):
        machine.restore([b"nonsense"])


def test_what_could_not_be_read_again_is_refused_before_the_log_is_compacted() -> None:
    class Changing(Machine):
        def __init__(self) -> None:
            self.total = 0

    machine = ReplicatedMachine(changing := Changing())
    setattr(changing, "late", 5)  # noqa: B010  # hidden from the source on purpose
    with pytest.raises(ConfigError, match=r"Changing\.late appeared after the start"):
        machine.snapshot()
    delattr(changing, "late")
    vars(changing)["total"] = [1, lambda: 1]
    with pytest.raises(
        ConfigError, match=r"Changing\.total\[1\] cannot be stored: function is not plain data"
    ):
        machine.snapshot()
