"""Which methods, and which bodies of them, each version of a class has."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping

from connect_kv.errors import ConfigError
from connect_kv.framework.methods import Method, mark_of
from connect_kv.framework.replicated import version_of
from connect_kv.framework.types import Mark


class Versions:
    """The commands and queries of a class in each of its versions, inherited ones included.

    Raises ConfigError naming a method whose signature cannot be carried as data, or whose versions
    contradict each other.
    """

    def __init__(self, owner: type) -> None:
        self.newest = version_of(owner)
        """Versions are counted from 1."""
        found = {name: function for name in sorted(dir(owner)) if (function := _marked(owner, name))}
        self._methods: list[Mapping[str, Method]] = [{}]
        made: dict[str, Method] = {}
        for name, function in found.items():
            mark = _mark(function)
            _check(owner, name, mark, self.newest, found)
            made[name] = Method(owner, name, function)
        for version in range(1, self.newest + 1):
            of_version: dict[str, Method] = {}
            for name, function in found.items():
                if _mark(function).of is None and (body := _body(name, version, found)) is not None:
                    of_version[name] = made[body]
            self._methods.append(of_version)

    def methods(self, version: int) -> Mapping[str, Method]:
        """By the name under which they are called. `version` from 1 to `newest`."""
        return self._methods[version]

    @property
    def names(self) -> frozenset[str]:
        """Of the methods of all versions."""
        return frozenset(name for methods in self._methods for name in methods)

    def has(self, version: int) -> bool:
        """Whether this code can run that version."""
        return 1 <= version <= self.newest


@functools.cache
def versions_of(owner: type) -> Versions:
    """Made once for each class."""
    return Versions(owner)


def methods_of(owner: type) -> Mapping[str, Method]:
    """The commands and queries of the newest version of a class, by name. Raises ConfigError."""
    versions = versions_of(owner)
    return versions.methods(versions.newest)


def _marked(owner: type, name: str) -> Callable[..., object] | None:
    function = inspect.getattr_static(owner, name)
    if mark_of(getattr(function, "__func__", function)) is None:
        return None
    if not inspect.isfunction(function):
        raise ConfigError(f"{owner.__name__}.{name}: only plain methods can be commands or queries")
    return function


def _mark(function: Callable[..., object]) -> Mark:
    mark = mark_of(function)
    assert mark is not None
    return mark


def _check(
    owner: type, name: str, mark: Mark, newest: int, found: Mapping[str, Callable[..., object]]
) -> None:
    where = f"{owner.__name__}.{name}"
    if not 1 <= mark.since <= newest:
        raise ConfigError(f"{where}: since={mark.since}, but the class has versions 1 to {newest}")
    if mark.until is not None and not mark.since < mark.until <= newest:
        word = f"before({mark.until}, ...)" if mark.of else f"until={mark.until}"
        raise ConfigError(f"{where}: {word} is not one of the versions {mark.since + 1} to {newest}")
    if mark.of is None:
        return
    today = found.get(mark.of)
    if today is None or _mark(today).of is not None:
        raise ConfigError(f"{where}: {mark.of!r}, of which it is an older body, is no command or query")
    ended = {one: (it.of, it.until) for one in found if one != name and (it := _mark(found[one]))}
    others = [one for one, it in ended.items() if it == (mark.of, mark.until)]
    if others:
        raise ConfigError(f"{where} and {others[0]} are both what {mark.of} was before version {mark.until}")


def _body(name: str, version: int, found: Mapping[str, Callable[..., object]]) -> str | None:
    """The name in Python of its body in a version: of the older ones still alive, the one that ends first."""
    today = _mark(found[name])
    if version < today.since:
        return None
    older = {one: until for one, it in found.items() if _mark(it).of == name and (until := _mark(it).until)}
    alive = [(until, one) for one, until in older.items() if version < until]
    if alive:
        return min(alive)[1]
    return name if today.until is None or version < today.until else None
