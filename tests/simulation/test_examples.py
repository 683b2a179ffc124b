"""What calls are made with: values of every type that arguments may have, and what their author says."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, NamedTuple, NewType, NotRequired, TypedDict
from uuid import UUID

import msgspec
import pytest

from connect_kv import Replicated, command, examples
from connect_kv.framework.versions import methods_of
from connect_kv.testing.simulation.random_arguments import random_arguments

Size = NewType("Size", int)


class Row(NamedTuple):
    name: str
    at: datetime


class Settings(TypedDict):
    size: Size
    note: NotRequired[str]


class All(Replicated):
    """Parameters of every type that can travel."""

    @command
    def take(
        self,
        moment: datetime,
        day: date,
        clock: time,
        span: timedelta,
        price: Decimal,
        id: UUID,
        row: Row,
        settings: Settings,
        size: Size,
        small: Annotated[int, msgspec.Meta(ge=0)],
        anything: Any,
        names: Sequence[str],
        table: Mapping[str, Row],
        plain: list,  # type: ignore[type-arg]
        frozen: frozenset[UUID],
    ) -> None:
        """Take them."""

    @command
    @examples({"item": "bolt", "count": 3}, lambda rng: {"item": "nut", "count": rng.randint(10, 20)})
    def whole(self, item: str, count: int) -> None:
        """Calls that are said."""

    @examples(item=["bolt", "nut"])
    @command
    def part(self, item: str, count: int) -> None:
        """One parameter is said."""


@pytest.mark.parametrize("name", ["take", "whole", "part"])
def test_made_up_arguments_can_be_sent(name: str) -> None:
    method = methods_of(All)[name]
    for seed in range(100):
        method.arguments(method.bind((), random_arguments(All, method, random.Random(seed))))


def test_examples_are_used() -> None:
    whole, part = (
        [random_arguments(All, methods_of(All)[name], random.Random(seed)) for seed in range(100)]
        for name in ("whole", "part")
    )
    assert {one["item"] for one in whole} == {"bolt", "nut"}
    assert {one["count"] for one in whole if one["item"] == "nut"} <= set(range(10, 21))
    assert {one["item"] for one in part} == {"bolt", "nut"}
    assert {one["count"] for one in part} == set(range(6))
