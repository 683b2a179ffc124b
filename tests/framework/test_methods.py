"""Arguments are checked against annotations before anything is replicated; values come back typed."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_kv.errors import BadCall, ConfigError
from connect_kv.framework import data
from connect_kv.framework.replicated import Replicated, command, query
from connect_kv.framework.types import MethodKind
from connect_kv.framework.versions import methods_of
from connect_kv.statemachine.hosted import Checked, MachineCall, ReplicatedMachine
from tests.framework.machines import Counter, Item, Shop


def shop() -> ReplicatedMachine:
    return ReplicatedMachine(Shop("EUR", {"a": 1}))


def pack(**arguments: object) -> bytes:
    return msgspec.msgpack.encode(arguments)


@pytest.mark.parametrize(
    ("method", "arguments", "complaint"),
    [
        ("nothing", pack(), "unknown method 'nothing'; there are add, broken, fail"),
        ("pay", pack(), "pay: missing argument `money`"),
        ("pay", pack(money=1.0, more=2), "pay: unknown argument `more`"),
        ("pay", pack(money="much"), "pay: Expected `float`, got `str` - argument `money`"),
        ("pay", b"\xc1", "pay: "),
        ("pay", b"", "pay: Input data was truncated"),
        ("pay", msgspec.msgpack.encode([1.0]), "pay: Expected `object`, got `array`"),
        ("add", '{"item": {"name": "a", "price": 1, "tags": [2]}}', "item.tags"),
        ("add", "{", "add: Input data was truncated"),
        ("fail", '{"change": 7}', "Expected `str`, got `int` - argument `change`"),
        ("raw", '{"data": "%%"}', "argument `data`"),
    ],
)
def test_a_wrong_call_is_refused_before_it_is_replicated(
    method: str, arguments: bytes | str, complaint: str
) -> None:
    with pytest.raises(BadCall) as caught:
        shop().check(method, arguments)
    assert complaint in str(caught.value)


def test_checked_arguments_are_those_that_were_given() -> None:
    """Defaults are filled in by the body that runs: it may be of a later version."""
    assert ReplicatedMachine(Counter()).check("increment", b"\x80").arguments == b"\x80"
    assert ReplicatedMachine(Counter()).check("increment", "").arguments == b"\x80"
    assert ReplicatedMachine(Counter()).check("increment", '{"by": 1}').arguments == pack(by=1)
    assert shop().check("raw", '{"data": "/w=="}') == Checked(MethodKind.QUERY, "raw", pack(data=b"\xff"))


class Tree(msgspec.Struct):
    children: list[Tree] = []


class Anything(Replicated):
    @command
    def put(self, value: object = None, tree: Tree | None = None) -> int:
        return 1


@pytest.mark.parametrize("depth", [data.MAXIMUM_NESTING + 1, 900, 100_000])
def test_values_nested_so_deeply_that_some_thread_could_not_read_them_are_refused(depth: int) -> None:
    """What is read here, with much stack left, could be too much where it is applied."""
    machine = ReplicatedMachine(Anything())
    tree = b"\x81\xa8children\x91" * (depth // 2) + b"\x80"
    arguments: list[bytes | str] = [
        b"\x81\xa5value" + b"\x91" * depth + b"\x01",
        '{"value":' + "[" * depth + "1" + "]" * depth + "}",
        b"\x81\xa4tree" + tree,
    ]
    for one in arguments:
        with pytest.raises(BadCall, match="nested more than 64 deep"):
            machine.check("put", one)
    value: object = 1
    for _ in range(depth):
        value = [value]
    with pytest.raises(BadCall):
        methods_of(Anything)["put"].bind((value,), {})
    allowed = b"\x81\xa5value" + b"\x91" * (data.MAXIMUM_NESTING - 2) + b"\x01"
    assert machine.check("put", allowed).arguments


def test_json_integers_beyond_64_bits_are_refused() -> None:
    with pytest.raises(BadCall):
        ReplicatedMachine(Counter()).check("increment", f'{{"by": {1 << 70}}}')


def test_a_call_is_bound_like_a_python_call() -> None:
    increment = methods_of(Counter)["increment"]
    assert increment.bind((5,), {}) == increment.bind((), {"by": 5}) == pack(by=5)
    add = methods_of(Shop)["add"]
    bound = msgspec.msgpack.decode(add.bind((Item("x", 1.5, {"t"}),), {"amount": 2}))
    assert bound == {"item": {"name": "x", "price": 1.5, "tags": ["t"]}, "amount": 2}
    for args, kwargs in [((1, 2), {}), ((), {"wrong": 1}), (("one",), {}), ((1 << 70,), {})]:
        with pytest.raises(BadCall, match="increment"):
            increment.bind(args, kwargs)


class Bound(Replicated):
    def __init__(self) -> None:
        self.calls = 0

    @command
    def give(self, a: int, b: int = 1, *, c: int, d: int = 2) -> int:
        return a + b + c + d

    @command
    def collect(self, item: int, into: list[int] = []) -> int:  # noqa: B006 - as users do
        into.append(item)
        return len(into)


NAMES = st.sampled_from(["a", "b", "c", "d", "self", "other"])


@given(st.lists(st.integers(0, 9), max_size=4), st.dictionaries(NAMES, st.integers(0, 9), max_size=5))
def test_a_call_is_bound_as_python_binds_it_and_refused_in_its_words(
    args: list[int], kwargs: dict[str, int]
) -> None:
    bind = methods_of(Bound)["give"].bind
    try:
        wanted = dict(inspect.signature(Bound.give).bind(None, *args, **kwargs).arguments)
    except TypeError as error:
        with pytest.raises(BadCall, match=re.escape(str(error))):
            bind(args, kwargs)
    else:
        del wanted["self"]
        assert msgspec.msgpack.decode(bind(args, kwargs)) == wanted


def test_a_default_that_can_be_changed_is_each_calls_own() -> None:
    collect = methods_of(Bound)["collect"]
    arguments = collect.bind((1,), {})
    for _ in range(2):
        assert msgspec.msgpack.decode(collect.call(Bound(), arguments)) == 1


def test_values_come_back_by_their_annotation() -> None:
    machine = shop()
    item = Item("x", 1.5, {"t"})
    method = methods_of(Shop)["add"]
    (value,) = machine.execute([MachineCall("add", method.bind((item,), {}), 0, 1)], None)
    assert isinstance(value, bytes)
    assert method.value(value) == {"x": item}
    assert machine.value_json("add", value) == '{"x":{"name":"x","price":1.5,"tags":["t"]}}'
    assert machine.value_json("raw", machine.query("raw", pack(data=b"!"), 0, None)) == '"AP8h"'


def test_methods_are_described_for_people() -> None:
    doc, methods = ReplicatedMachine(Counter()).describe()
    (increment, value) = methods
    assert (doc, increment.doc, increment.kind, increment.returns) == (
        "Counts.",
        "Add.",
        MethodKind.COMMAND,
        "int",
    )
    assert [(p.name, p.type, p.required) for p in increment.parameters] == [("by", "int", False)]
    assert (value.kind, value.parameters) == (MethodKind.QUERY, ())


def test_methods_are_inherited_and_can_be_overridden() -> None:
    class Double(Counter):
        @command
        def increment(self, by: int = 2) -> int:
            return super().increment(by * 2)

    machine = ReplicatedMachine(Double())
    (value,) = machine.execute(
        [MachineCall("increment", machine.check("increment", "").arguments, 0, 1)], None
    )
    assert value == msgspec.msgpack.encode(4)
    assert machine.query("value", b"\x80", 0, None) == msgspec.msgpack.encode(4)


def test_default_values_are_not_shared_between_calls() -> None:
    class Collector(Replicated):
        def __init__(self) -> None:
            self.all: list[list[int]] = []

        @command
        def add(self, numbers: list[int] = [1]) -> list[int]:  # noqa: B006  # the mistake under test
            numbers.append(len(self.all))
            self.all.append(numbers)
            return numbers

    machine = ReplicatedMachine(Collector())
    calls = [MachineCall("add", b"\x80", 0, 1)] * 2
    assert machine.execute(calls, None) == [msgspec.msgpack.encode([1, 0]), msgspec.msgpack.encode([1, 1])]


def no_annotation(self: object, by) -> int:  # type: ignore[no-untyped-def]
    return 0


def no_return(self: object, by: int):  # type: ignore[no-untyped-def]
    return 0


def variadic(self: object, *by: int) -> int:
    return 0


def positional(self: object, by: int, /) -> int:
    return 0


def strange(self: object, by: Callable[[], int]) -> int:
    return 0


def unknown(self: object, by: Missing) -> int:  # type: ignore[name-defined]  # noqa: F821
    return 0


async def asynchronous(self: object) -> int:
    return 0


@pytest.mark.parametrize(
    ("method", "complaint"),
    [
        (no_annotation, "'by' needs an annotation"),
        (no_return, "say what it returns"),
        (variadic, "not possible"),
        (positional, "not possible"),
        (strange, "'by'"),
        (unknown, "'Missing' is not defined"),
        (asynchronous, "not async"),
    ],
)
def test_a_method_that_cannot_be_carried_is_refused_by_name(
    method: Callable[..., object], complaint: str
) -> None:
    machine = type("Machine", (Replicated,), {"method": command(method)})
    with pytest.raises(ConfigError, match=r"Machine\.method.*") as caught:
        ReplicatedMachine(machine())
    assert complaint in str(caught.value)


def test_a_machine_without_methods_is_refused() -> None:
    class Empty(Replicated):
        pass

    with pytest.raises(ConfigError, match="Empty has no @command"):
        ReplicatedMachine(Empty())


def test_only_plain_methods_can_be_marked() -> None:
    class Static(Replicated):
        @staticmethod
        @query
        def method() -> int:
            return 1

    with pytest.raises(ConfigError, match=r"Static\.method: only plain methods"):
        ReplicatedMachine(Static())
