"""The fingerprint of what a version of a class executes: equal where the same is done, on all members.

Bytecode says what is executed, whatever the text looks like; but each version of Python has its own.
"""

from __future__ import annotations

import dataclasses
import dis
import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Set
from enum import Enum
from itertools import pairwise
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import NamedTuple

from connect_kv.framework.methods import mark_of
from connect_kv.framework.replicated import Replicated
from connect_kv.framework.types import MethodKind
from connect_kv.framework.versions import versions_of

PYTHON = f"{sys.implementation.cache_tag}"
"""Whose bytecode it is: fingerprints of two are not comparable."""


_DIGEST_BYTES = 8

_VALUES = (int, str, bytes, float, complex, type(None))

_VALUE_MODULES = frozenset(("datetime", "decimal", "fractions", "uuid", "_decimal"))
"""Of values, or with values, whose text says all of them."""

_OF_NO_EFFECT = ("__doc__", "__module__", "__dict__", "__weakref__", "__annotations__", "__firstlineno__")

_NAMING = frozenset((*dis.hasname, *dis.haslocal, *dis.hasfree))
"""Instructions that name something."""


@dataclasses.dataclass(frozen=True, slots=True)
class CodeFingerprint:
    """What one version executes under one Python."""

    version: int
    python: str
    commands: Mapping[str, bytes]
    """A digest for each command."""
    beginning: bytes = b""
    """Of `__init__`, `upgrade` and `restore`: they decide how a version begins, not how it goes on."""


def codes_of(owner: type) -> tuple[CodeFingerprint, ...]:
    """Of each version that this code of a Replicated class has."""
    versions = versions_of(owner)
    beginning = _digest(owner, [getattr(owner, name) for name in ("__init__", "upgrade", "restore")])
    found = []
    for version in range(1, versions.newest + 1):
        commands = {
            name: _digest(owner, [method.function])
            for name, method in versions.methods(version).items()
            if method.kind is MethodKind.COMMAND
        }
        found.append(CodeFingerprint(version, PYTHON, commands, beginning))
    return tuple(found)


def changed(recorded: CodeFingerprint, own: CodeFingerprint) -> list[str]:
    """Commands that are not what they were, or not in both."""
    names = recorded.commands.keys() | own.commands.keys()
    return sorted(name for name in names if recorded.commands.get(name) != own.commands.get(name))


def _digest(owner: type, functions: list[Callable[..., object]]) -> bytes:
    walk = _Walk(owner)
    for function in functions:
        walk.begin(function)
    return walk.digest()


class _Around(NamedTuple):
    """What the names in a function, and in those within it, may come from."""

    globals: Mapping[str, object]
    closure: Mapping[str, object]
    self_name: str
    """Of the first parameter of a method of the class; empty in others."""
    helps: bool
    """A function of a module, that may be handed the object."""


class _Walk:
    """From some functions to all that they reach within their own package, each once, in order."""

    def __init__(self, owner: type) -> None:
        self._owner = owner
        self._package = owner.__module__.partition(".")[0]
        self._hash = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        self._seen: set[int] = set()
        self._kept: list[object] = []
        """What was seen, so that no other object gets its address."""

    def digest(self) -> bytes:
        return self._hash.digest()

    def begin(self, function: Callable[..., object]) -> None:
        """With a function of the class itself, whatever package it is inherited from."""
        plain = inspect.unwrap(function)
        if isinstance(plain, FunctionType) and self._first_time(plain):
            self._function(plain)

    def add(self, value: object) -> None:
        """Whatever it is: of values that are no code, only plain ones count."""
        if isinstance(value, property):
            for function in (value.fget, value.fset, value.fdel):
                self.add(function)
            return
        value = inspect.unwrap(value) if isinstance(value, FunctionType) else value
        value = getattr(value, "__func__", value)
        if isinstance(value, FunctionType):
            if not self._ours(value):
                self._say(f"{value.__module__}.{value.__qualname__}")
            elif self._first_time(value):
                self._function(value)
        elif isinstance(value, type):
            if self._first_time(value):
                self._class(value)
        elif isinstance(value, BuiltinFunctionType):
            self._say(value.__qualname__)
        elif not isinstance(value, ModuleType):
            self._say(_plain(value))

    def _first_time(self, value: object) -> bool:
        if id(value) in self._seen:
            return False
        self._seen.add(id(value))
        self._kept.append(value)
        return True

    def _function(self, function: FunctionType) -> None:
        self._say(_plain(function.__defaults__), _plain(function.__kwdefaults__))
        self._say(*(f"{name}: {_annotation(hint)}" for name, hint in function.__annotations__.items()))
        own = any(function in vars(one).values() for one in self._owner.__mro__)
        self_name = function.__code__.co_varnames[0] if own and function.__code__.co_argcount else ""
        helps = "." not in function.__qualname__
        self._code(function.__code__, _Around(function.__globals__, _closure(function), self_name, helps))

    def _code(self, code: CodeType, around: _Around) -> None:
        self._say(code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        self._say(code.co_exceptiontable.hex())
        for instruction in dis.get_instructions(code):
            self._say(instruction.opname)
            # By what it means and not by its number, which changes when a docstring comes before it.
            if instruction.opcode in dis.hasconst:
                if isinstance(instruction.argval, CodeType):
                    self._code(instruction.argval, around)
                else:
                    self._say(_plain(instruction.argval))
            elif instruction.opcode in _NAMING:
                self._say(instruction.argval)
            else:
                self._say(instruction.arg)
        of_self = _called_on(around.self_name, code) if around.self_name else frozenset()
        for name in (*code.co_names, *code.co_freevars):
            for found in (*self._named(name, code, around), *self._own(name, of_self, around)):
                self._say(name)
                self.add(found)

    def _named(self, name: str, code: CodeType, around: _Around) -> Iterator[object]:
        """What a name may mean: a global, a variable around the function, an attribute of something ours."""
        if name in around.globals:
            yield around.globals[name]
        if name in around.closure:
            yield around.closure[name]
        for other in (*code.co_names, *code.co_freevars):
            holder = around.closure.get(other, around.globals.get(other))
            if isinstance(holder, ModuleType | type) and self._ours(holder):
                yield from _attributes(holder, name)

    def _own(self, name: str, of_self: Set[str], around: _Around) -> Iterator[object]:
        """What a name may mean in the class itself.

        In its own methods, what is called on self or through super(). A function that is handed the object
        may call any of its helpers; a command of that name is rather a method of something else.
        """
        if name in of_self:
            yield from _attributes(self._owner, name)
        elif around.helps and not name.startswith("__"):
            yield from (found for found in _attributes(self._owner, name) if mark_of(found) is None)

    def _class(self, one: type) -> None:
        if one in self._owner.__mro__:
            self._say("the class itself")  # whatever it is named
            return
        if not self._ours(one):
            self._say(f"{one.__module__}.{one.__qualname__}")
            return
        self._say(*(f"{name}: {_annotation(hint)}" for name, hint in inspect.get_annotations(one).items()))
        for base in one.__mro__[1:-1]:
            self.add(base)
        for name, value in sorted(vars(one).items()):
            if name in (
                "__doc__",
                "__module__",
                "__dict__",
                "__weakref__",
                "__annotations__",
                "__firstlineno__",
            ):
                continue
            self._say(name)
            self.add(value)

    def _ours(self, value: object) -> bool:
        module = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        return isinstance(module, str) and module.partition(".")[0] == self._package

    def _say(self, *values: object) -> None:
        for value in values:
            self._hash.update(f"{value}\0".encode("utf-8", "surrogatepass"))


def _called_on(self_name: str, code: CodeType) -> frozenset[str]:
    """Names that follow the first parameter, or a call of super(): ``self.value()``, ``super().value()``."""
    by_super = "super" in code.co_names
    return frozenset(
        after.argval
        for one, after in pairwise(dis.get_instructions(code))
        if after.opcode in dis.hasname
        and (
            _loaded(one) == self_name
            or (by_super and (one.opname.startswith("CALL") or after.opname == "LOAD_SUPER_ATTR"))
        )
    )


def _loaded(one: dis.Instruction) -> object:
    """The variable that it leaves on top: from Python 3.13 on one instruction may do two things."""
    if "LOAD_" not in one.opname:
        return None
    return one.argval[-1] if isinstance(one.argval, tuple) else one.argval


def _attributes(holder: type | ModuleType, name: str) -> Iterator[object]:
    """Of every base that has one: super() leads to any of them."""
    for one in holder.__mro__ if isinstance(holder, type) else (holder,):
        if one not in (object, Replicated) and name in vars(one):
            yield vars(one)[name]


def _closure(function: FunctionType) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not set yet
            continue
    return found


def _plain(value: object) -> str:
    """A text that is the same wherever the value is: no addresses, no order of a set."""
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}{sorted(map(_plain, value))}"
    if isinstance(value, dict):
        return f"dict[{', '.join(f'{_plain(key)}: {_plain(one)}' for key, one in value.items())}]"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__}[{', '.join(map(_plain, value))}]"
    if isinstance(value, Enum):
        return f"{type(value).__qualname__}.{value.name}={_plain(value.value)}"
    if isinstance(value, re.Pattern):
        return f"pattern {value.pattern!r} {value.flags}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (
            f"{field.name}={_plain(getattr(value, field.name, None))}" for field in dataclasses.fields(value)
        )
        return f"{type(value).__qualname__}({', '.join(fields)})"
    if isinstance(value, _VALUES) or type(value).__module__ in _VALUE_MODULES:
        return f"{type(value).__name__} {value!r}"
    return f"a {type(value).__qualname__}"


def _annotation(hint: object) -> str:
    return hint if isinstance(hint, str) else inspect.formatannotation(hint)
