"""Reading a mapping that people wrote: every complaint names the file, the key and what was expected."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Annotated, TypeVar, get_type_hints

import msgspec
from msgspec import Meta

from connect_kv.errors import ConfigError

T = TypeVar("T")

# What a field may hold. The description is what a complaint says was expected.
Text = Annotated[str, Meta(min_length=1, description="text")]
Name = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*\Z",
        description="a name of letters, digits, '_', '.', '-'",
    ),
]
Host = Annotated[
    str,
    Meta(
        pattern=r"^(?![^:]+:\d+\Z)[A-Za-z0-9._:%-]+\Z",
        description="a host name or address without port",
    ),
]
Port = Annotated[int, Meta(ge=1, le=65535, description="a port from 1 to 65535")]
PortOrNone = Annotated[int, Meta(ge=0, le=65535, description="a port from 0 to 65535")]


def constraints(kind: type) -> Mapping[str, object]:
    """What the fields of a class may hold, of those whose type says more than a Python type."""
    hints = get_type_hints(kind, include_extras=True)
    return {key: wanted for key, wanted in hints.items() if hasattr(wanted, "__metadata__")}


def check(value: object, wanted: object) -> None:
    """Raise ValueError, which says what was expected, unless `value` is what the type and its Meta allow."""
    try:
        msgspec.convert(value, wanted)
    except msgspec.ValidationError:
        raise ValueError(f"expected {wanted.__metadata__[0].description}") from None  # type: ignore[attr-defined]


def refuse_giants(value: object, place: str) -> None:
    """TOML's integers have 64 bits. Python would read larger ones, and then fail to print them."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            refuse_giants(part, f"{place}: {key}")
    elif isinstance(value, list):
        for part in value:
            refuse_giants(part, place)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ConfigError(f"{place}: expected a number of at most 64 bits")


class Reading:
    """A mapping, and where it stands: ``Connect.toml: members[1]``."""

    def __init__(self, given: Mapping[str, object], origin: str, path: str = "") -> None:
        self.given = given
        self._origin = origin
        self._path = path

    def wrong(self, key: str, problem: str) -> ConfigError:
        """The complaint about a key, to be raised."""
        return ConfigError(f"{self._origin}: {self._path}{key}: {problem}")

    def refuse_others(self, known: AbstractSet[str]) -> None:
        """A key that nobody reads is a mistake."""
        for key in self.given:
            if key not in known:
                raise self.wrong(key, f"unknown key; expected one of {', '.join(sorted(known))}")

    def value(self, key: str, wanted: object, default: object = None) -> object:
        """What the key says, or `default`, if it is what `wanted` allows."""
        value = self.given.get(key, default)
        try:
            check(value, wanted)
        except ValueError as error:
            raise self.wrong(key, f"{error}, got {value!r}") from None
        return value

    def name(self, key: str) -> str:
        """A name, which must be given."""
        if self.given.get(key) is None:
            raise self.wrong(key, "is missing: expected a name")
        return str(self.value(key, Name))

    def filled(self, kind: type[T]) -> T:
        """The keys as fields of that class, which needs a name."""
        fields = constraints(kind)
        self.refuse_others(fields.keys())
        self.name("name")
        return kind(**{key: self.value(key, fields[key]) for key in self.given})

    def tables(self, key: str, made: type[T]) -> list[T | Reading]:
        """A list of tables, at least one; things already `made` are passed on."""
        value = self.given.get(key)
        if not isinstance(value, list) or not value:
            raise self.wrong(key, "expected at least one [[members]] table")
        found: list[T | Reading] = []
        for number, item in enumerate(value):
            if isinstance(item, made):
                found.append(item)
            elif isinstance(item, Mapping):
                found.append(Reading(item, self._origin, f"{self._path}{key}[{number}]."))
            else:
                raise self.wrong(f"{key}[{number}]", f"expected a table, got {item!r}")
        return found
