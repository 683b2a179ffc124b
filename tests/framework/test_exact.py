"""A state comes back exactly as it was: the types of its values, and which of them are one object."""

from __future__ import annotations

import enum
import math
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple, NewType, TypedDict
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_kv.framework import data, exact
from connect_kv.framework.attributes import Attributes
from connect_kv.framework.known import KnownClasses, Unstorable
from connect_kv.framework.replicated import Replicated
from connect_kv.framework.shapes import shape_of

BERLIN = ZoneInfo("Europe/Berlin")


class Colour(enum.Enum):
    RED = "red"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Item:
    name: str
    price: float = 0.0
    tags: list[str] = field(default_factory=list)


@dataclass
class Special(Item):
    extra: int = 0


@dataclass
class Grown:
    size: int

    def __post_init__(self) -> None:
        self.size += 1


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int


class Row(NamedTuple):
    name: str
    numbers: list[int]


class Struct(msgspec.Struct):
    x: int
    inner: list[int] = []


class Settings(TypedDict, total=False):
    size: int


class UserId(int):
    """Not any number."""


class Words(dict[str, int]):
    """A dict that also knows its language."""

    language = "en"


class Node:
    """A plain class."""

    def __init__(self) -> None:
        self.next: Node | None = None


Number = NewType("Number", int)

KNOWN = KnownClasses(
    [dict[Colour, Item], Rights, Grown, Point, Row, Struct, UserId, Words, Node, Settings, Exception | None]
)


def words() -> Words:
    made = Words(one=1)
    made.language = "de"
    return made


def back(value: Any) -> Any:
    return exact.decode(exact.encode(value, KNOWN), KNOWN)


VALUES: list[Any] = [
    True, 1, 1.0, -0.0, math.inf, 1 << 70, -(1 << 64), "text", "\ud800", b"\0", bytearray(b"b"), None, 1 + 2j,
    (1, (2,)), {1: True}, {1.0, 2}, frozenset({"a"}), range(1, 9, 2),
    Decimal("1.10"), Decimal("-0"), Fraction(1, 3), UUID(int=7), date(2020, 2, 29), timedelta(-1, 5, 7),
    datetime(2020, 10, 25, 2, 30, tzinfo=BERLIN, fold=1), datetime(2020, 1, 1), time(1, 2, tzinfo=UTC),
    timezone(timedelta(hours=2), "home"), BERLIN,
    Counter("abca"), OrderedDict(b=1, a=2), deque([1, 2], maxlen=3), defaultdict(list, a=[1]),
    Colour.RED, Rights.READ | Rights.WRITE, Item("x", 1), Special("y", extra=2), Point(1, 2), Row("r", [1]),
    Struct(1, [2]), UserId(7), words(), {"size": 1},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_with_its_type(value: Any) -> None:
    again = back([value])[0]
    assert type(again) is type(value)
    assert again == value
    assert repr(again) == repr(value)
    assert getattr(again, "__dict__", None) == getattr(value, "__dict__", None)


def test_nan_and_what_post_init_changed_come_back() -> None:
    assert math.isnan(back(math.nan))
    assert back(Grown(1)).size == 2, "it would be 3 if it ran again"


def test_one_object_in_two_places_is_one_object_afterwards() -> None:
    item = Item("x")
    again = back({"by name": {"x": item}, "all": [item, item.tags]})
    again["by name"]["x"].tags.append("new")
    assert again["all"][0] is again["by name"]["x"]
    assert again["all"][1] == ["new"]


def test_an_object_that_holds_itself_comes_back() -> None:
    node, rows = Node(), []  # type: ignore[var-annotated]
    node.next = node
    rows.append(rows)
    assert back(node).next.next.next is not None
    again = back(rows)
    assert again[0] is again


def test_equal_values_are_not_made_one() -> None:
    again = back([[1], [1]])
    assert again[0] is not again[1]


def test_a_default_of_a_defaultdict_still_works() -> None:
    again = back(defaultdict(Node))
    assert isinstance(again["new"], Node)
    with pytest.raises(Unstorable, match="made by <function"):
        exact.encode(defaultdict(lambda: 1), KNOWN)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, lambda: 1]}, "['a'][1]: function is not plain data"),
        ({}.keys(), ": dict_keys is not plain data"),
        ((x for x in "ab"), ": generator is not plain data"),
        ([iter([])], "[0]: list_iterator is not plain data"),
        (Item("x", tags=[sys]), ".tags[0]: module is not plain data"),  # type: ignore[list-item]
        ({1: Item}, "[1]: the class Item itself is not data"),
        (ValueError(), ": ValueError is not plain data"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,  # no addresses
)  # fmt: skip
def test_what_cannot_be_stored_is_named_with_its_path(value: Any, path: str) -> None:
    with pytest.raises(Unstorable) as caught:
        exact.encode(value, KNOWN)
    assert f"{caught.value.path}: {caught.value}".startswith(path)


def test_a_field_that_is_new_has_its_default_and_one_that_is_gone_is_named() -> None:
    old = exact.encode(Item("x"), KNOWN)

    @dataclass
    class Newer:
        name: str
        price: float = 0.0
        tags: list[str] = field(default_factory=list)
        new: int = 5

    Newer.__qualname__, Newer.__module__ = Item.__qualname__, Item.__module__
    again = exact.decode(old, KnownClasses([Newer]))
    assert again == Newer("x")
    with pytest.raises(ValueError, match=r"no class .*Item any more"):
        exact.decode(old, KnownClasses([Point]))


def test_no_class_is_made_that_no_annotation_reaches() -> None:
    """A stored state is data: what names anything else is refused, and nothing is loaded for it."""
    forged = msgspec.msgpack.encode([int(exact.Tag.OBJECT), "antigravity:Anything", {}])
    with pytest.raises(ValueError, match="no class antigravity:Anything"):
        exact.decode(forged, KNOWN)
    assert "antigravity" not in sys.modules


DIGESTS = """
from connect_kv.framework import exact
from connect_kv.framework.known import KnownClasses
value = {"names": {"b", "a", "c"}, "more": frozenset({("x", 1), ("y", 2)})}
print(exact.encode(value, KnownClasses([]), canonical=True))
"""


def test_the_digest_of_a_set_is_the_same_in_every_process() -> None:
    said = {
        subprocess.run(
            [sys.executable, "-c", DIGESTS],
            env={"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in range(3)
    }
    assert len(said) == 1


annotated = st.sampled_from(
    [
        (dict[str, Item], {"a": Item("x")}, {"a": Special("x")}),
        (list[Point], [Point(1, 2)], [Point(True, 2)]),
        (dict[int, float], {1: 1.0}, {1: 1}),
        (list[int], [1], [True]),
        (list[Colour | None], [None, Colour.RED], ["red"]),
        (list[tuple[int, ...]], [(1, 2), ()], [(1, "2")]),
        (tuple[int, str], (1, "a"), (1, "a", 2)),
        (list[datetime], [datetime(2020, 1, 1, tzinfo=UTC)], [datetime(2020, 1, 1, tzinfo=BERLIN)]),
        (set[str], {"a"}, frozenset({"a"})),
        (Row, Row("r", [1]), ("r", [1])),
        (dict[str, int], {"a": 1}, Counter(a=1)),
        (Struct | None, Struct(1), Item("x")),
        (list[Number], [Number(1)], [UserId(1)]),
    ]
)  # fmt: skip


@given(annotated)
def test_a_shape_tells_what_msgpack_would_lose(case: tuple[Any, Any, Any]) -> None:
    annotation, right, wrong = case
    shape = shape_of(annotation)
    if shape is None:
        return  # stored as it is, always
    assert shape.holds((right,), set())
    assert not shape.holds((wrong,), set())
    assert msgspec.msgpack.decode(data.encode(right), type=annotation) == right


def test_most_annotations_have_a_shape() -> None:
    for annotation in (dict[str, Item], list[Point], dict[int, float], list[Colour | None], Struct | None):
        assert shape_of(annotation) is not None


class State(Replicated):
    def __init__(self) -> None:
        self.today: dict[str, int] = {}
        self.all: dict[str, int] = {}
        self.items: dict[str, Item] = {}
        self.order: list[Item] = []
        self.best: Item | None = None
        self.flag: int = 0
        self.anything: Any = None


def restored(state: State) -> State:
    other = State()
    other.restore(list(state.snapshot()))
    return other


def test_attributes_that_share_an_object_share_it_afterwards() -> None:
    state = State()
    state.all = state.today  # a forgotten copy
    item = state.best = Item("x")
    state.items["x"] = item
    state.order.append(item)
    state.flag = True
    again = restored(restored(state))
    assert again.all is again.today
    assert again.items["x"] is again.order[0] is again.best
    assert again.flag is True


def test_one_that_shares_with_what_is_stored_by_annotation_does_too() -> None:
    state = State()
    state.items["x"] = Item("x")
    state.anything = [state.items["x"]]
    again = restored(state)
    assert again.anything[0] is again.items["x"]


def test_a_state_that_is_what_it_says_is_stored_as_of_old() -> None:
    state = State()
    state.items["x"] = Item("x", 1.0)
    attributes = Attributes(State(), Replicated)
    held = {name: value for name, value in vars(state).items() if name != "anything"}
    (packed,) = attributes.dump(held)
    assert msgspec.msgpack.decode(packed)[0] == 1


def test_a_state_of_old_is_read() -> None:
    old = {"today": b"m" + data.encode({"a": 1}), "flag": b"j" + str(1 << 80).encode()}
    state = State()
    state.restore([data.encode([1, old])])
    assert (state.today, state.flag, state.all) == ({"a": 1}, 1 << 80, {})
