"""A low-level StateMachine, hosted: its commands and queries are bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from connect_kv.errors import BadCall
from connect_kv.framework import data
from connect_kv.framework.methods import WrongArguments
from connect_kv.framework.replicated import Replicated, command, query
from connect_kv.framework.types import MethodKind, Store
from connect_kv.framework.versions import methods_of
from connect_kv.interfaces import StateMachine
from connect_kv.raft.types import Entry, EntryId, EntryKind
from connect_kv.statemachine.depth import FixedDepth
from connect_kv.statemachine.fingerprint import CodeFingerprint
from connect_kv.statemachine.hosted import (
    Activation,
    Checked,
    Halt,
    MachineCall,
    MethodDescription,
    Outcome,
    Standing,
    Step,
    checked_arguments,
    checked_chunks,
    failed,
    text_of_error,
)

R = TypeVar("R")


class Bytes(Replicated):
    """What a low-level machine looks like to its clients."""

    @command
    def apply(self, command: bytes) -> object:
        """Apply one command."""
        raise NotImplementedError

    @query
    def query(self, request: bytes) -> object:
        """Read without changing anything."""
        raise NotImplementedError


_METHODS = methods_of(Bytes)


class LowLevelMachine(Generic[R]):
    """Drives a `StateMachine`. All commands of a slice reach it in one `apply`.

    The host knows positions only: entries it hands over carry their index and term 0, and commands
    that shared an entry share its index.
    """

    persistent = False
    can_snapshot = True
    newest = 1
    names = frozenset(_METHODS)
    codes: tuple[CodeFingerprint, ...] = ()
    standing = Standing()
    accept_changed = False

    def __init__(self, machine: StateMachine[R]) -> None:
        self._machine = machine

    def describe(self) -> tuple[str, tuple[MethodDescription, ...]]:
        """Its documentation and its methods."""
        methods = tuple(
            MethodDescription(one.name, one.kind, one.doc, one.parameters, one.returns)
            for one in _METHODS.values()
        )
        return type(self._machine).__doc__ or "", methods

    def check(self, method: str, arguments: bytes | str) -> Checked:
        """Judge a call before anything is replicated. Raises BadCall."""
        if method not in _METHODS:
            raise BadCall(f"unknown method {method!r}; there are {', '.join(_METHODS)}")
        found = _METHODS[method]
        return Checked(found.kind, method, checked_arguments(found, arguments))

    def value_json(self, method: str, value: bytes) -> str:
        """A returned value as JSON."""
        return _METHODS[method].value_json(value)

    def execute(self, steps: Sequence[Step], store: Store | None) -> list[Outcome]:
        """Apply all of them at once. A low-level machine refuses by returning: what it raises is a Halt."""
        calls = [step for step in steps if not isinstance(step, Activation)]
        try:
            entries = [Entry(EntryId(0, one.entry_index), EntryKind.COMMAND, _command(one)) for one in calls]
            with FixedDepth():
                results = self._machine.apply(entries)
            if len(results) != len(entries):
                raise ValueError(f"{type(self._machine).__name__}.apply: one result per entry is needed")
            return [data.encode(result) for result in results]
        except Halt as halt:
            raise Halt(halt.reason, calls[0]) from halt
        except BaseException as error:
            raise Halt(f"apply: {type(error).__name__}: {text_of_error(error)}", calls[0]) from error

    def query(self, method: str, arguments: bytes, log_time: int, store: Store | None) -> bytes:
        """Run a query. Raises CommandFailed with what it raised, BadCall."""
        if method not in _METHODS or _METHODS[method].kind is not MethodKind.QUERY:
            raise BadCall(f"{method!r} is not a query")
        try:
            return data.encode(self._machine.query(_bytes(_METHODS[method].arguments(arguments)[0])))
        except WrongArguments as error:
            raise BadCall(f"{method}: {error}") from None
        except BaseException as error:
            raise failed(error) from error

    def snapshot(self) -> list[bytes]:
        """The whole state, frozen, with the position it stands at in front."""
        position = self._machine.last_applied.to_bytes(8, "big")
        return [position, *checked_chunks(self._machine.snapshot(), type(self._machine).__name__)]

    def digest(self) -> bytes | None:
        """Its state is its own."""
        return None

    def try_upgrade(self, version: int) -> None:
        """There is one version."""

    def restore(self, chunks: Iterable[bytes], standing: Standing | None = None) -> None:
        """Replace the whole state."""
        head, *rest = chunks
        if len(head) != 8:
            raise ValueError("the state does not begin with the position it stands at")
        self._machine.restore(int.from_bytes(head, "big"), rest)


def _command(call: MachineCall) -> bytes:
    if call.method != "apply":
        raise Halt(f"{call.method!r} is no command here")
    try:
        return _bytes(_METHODS["apply"].arguments(call.arguments)[0])
    except WrongArguments as error:
        raise Halt(f"{call.method!r}: {error}") from None


def _bytes(value: object) -> bytes:
    assert isinstance(value, bytes)
    return value
