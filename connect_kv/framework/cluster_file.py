"""Reading a mapping that people wrote: every complaint names the file, the key and what was expected."""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import TypeVar

from connect_kv.errors import ConfigError

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_HOST = re.compile(r"[A-Za-z0-9._:%-]+")


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

    def text(self, key: str, default: str) -> str:
        """Text that is not empty."""
        value = self.given.get(key, default)
        if not isinstance(value, str) or not value:
            raise self.wrong(key, f"expected text, got {value!r}")
        return value

    def name(self, key: str) -> str:
        """A name, which must be given."""
        value = self.given.get(key)
        if value is None:
            raise self.wrong(key, "is missing: expected a name")
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            raise self.wrong(key, f"expected a name of letters, digits, '_', '.', '-', got {value!r}")
        return value

    def host(self, key: str, default: str) -> str:
        """A host name or address, without a port."""
        value = self.given.get(key, default)
        if not isinstance(value, str) or not _HOST.fullmatch(value) or re.search(r"^[^:]+:\d+$", value):
            raise self.wrong(key, f"expected a host name or address without port, got {value!r}")
        return value

    def port(self, key: str, default: int, *, off: bool = False) -> int:
        """A port; with `off`, 0 says none."""
        value = self.given.get(key, default)
        lowest = 0 if off else 1
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= 65535:
            raise self.wrong(key, f"expected a port from {lowest} to 65535, got {value!r}")
        return value

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
