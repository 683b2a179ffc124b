"""HostedMachine: how the host drives a machine, whatever form its author chose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from connect_kv.errors import BadCall, CommandFailed, ConfigError, MachineBroken, SessionExpired, UnknownEntry
from connect_kv.framework.guard import Guard
from connect_kv.framework.methods import Method, Parameter, WrongArguments, methods_of
from connect_kv.framework.replicated import Replicated, attributes_of, set_log_time
from connect_kv.framework.types import Kind

_MESSAGE_LIMIT = 4096
UNSTORABLE = "Unstorable"
"""Type of the failure of a command that left what could not be stored."""
QUERY_WROTE = "QueryWrote"
"""Type of the failure of a query that changed the object."""


class Call(NamedTuple):
    """One command from the log."""

    method: str
    arguments: bytes
    log_time: int
    entry_index: int
    """Several calls of one entry share it."""


class Checked(NamedTuple):
    """A call that may be made: a command to propose, or a query to run after a read barrier."""

    kind: Kind
    method: str
    arguments: bytes
    """Msgpack, complete: defaults are filled in, so that every member applies the same values."""


Outcome = bytes | CommandFailed
"""What a command returned, as msgpack, or what it raised."""


@dataclass(frozen=True, slots=True)
class MethodDescription:
    """One method, for people and other languages."""

    name: str
    kind: Kind
    doc: str
    parameters: tuple[Parameter, ...]
    returns: str


class Store(Protocol):
    """Ordered bytes of one machine on disk. Only machines that are `persistent` receive it."""

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""

    def iterate(
        self, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with ``start <= key < stop`` in key order (None: to the end), or backwards."""

    def put(self, key: bytes, value: bytes) -> None:
        """Set it. Refused (PermissionError) while a message is only read."""

    def delete(self, key: bytes) -> None:
        """Remove it, if there. Refused likewise."""


class HostedMachine(Protocol):
    """A machine as the host sees it. `check` and `value_json` run on the loop, the rest on one thread."""

    @property
    def persistent(self) -> bool:
        """Its state is in the store, not in memory: nothing to snapshot, restore or replay."""

    @property
    def can_snapshot(self) -> bool:
        """Whether its state can be stored; if not, the log can never be compacted."""

    def describe(self) -> tuple[str, tuple[MethodDescription, ...]]:
        """Its documentation and its methods."""

    def check(self, method: str, arguments: bytes | str) -> Checked:
        """Judge a call before anything is replicated: msgpack, or JSON as text. Raises BadCall."""

    def value_json(self, method: str, value: bytes) -> str:
        """A returned value as JSON; `method` as in `Checked`."""

    def execute(self, calls: Sequence[Call], store: Store | None) -> list[Outcome]:
        """Run commands in order; one outcome each.

        Raises UnknownEntry for one that this version cannot run, MachineBroken when the state can no
        longer be trusted: both stop the node.
        """

    def query(self, method: str, arguments: bytes, log_time: int, store: Store | None) -> bytes:
        """Run a query. Raises CommandFailed with what it raised, BadCall."""

    def snapshot(self) -> list[bytes]:
        """The whole state, frozen."""

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replace the whole state."""


class ReplicatedMachine:
    """A `Replicated` object, hosted. Raises ConfigError naming what cannot work, at start."""

    persistent = False
    can_snapshot = True

    def __init__(self, machine: Replicated) -> None:
        owner: type = type(machine)
        self._machine = machine
        self._methods: Mapping[str, Method] = methods_of(owner)
        if not self._methods:
            raise ConfigError(f"{owner.__name__} has no @command and no @query")
        kind = type(machine)
        own = (kind.snapshot is not Replicated.snapshot, kind.restore is not Replicated.restore)
        if own[0] != own[1]:
            raise ConfigError(f"{owner.__name__} defines only one of snapshot and restore; it needs both")
        if own[0]:
            _check_own_snapshot(machine)
        else:
            self.snapshot()
        self._guard = None if own[0] else Guard(owner, attributes_of(machine))

    def describe(self) -> tuple[str, tuple[MethodDescription, ...]]:
        """Its documentation and its methods."""
        return type(self._machine).__doc__ or "", tuple(map(_described, self._methods.values()))

    def check(self, method: str, arguments: bytes | str) -> Checked:
        """Judge a call before anything is replicated. Raises BadCall."""
        found = self._method(method)
        return Checked(found.kind, method, checked_arguments(found, arguments))

    def value_json(self, method: str, value: bytes) -> str:
        """A returned value as JSON."""
        return self._method(method).value_json(value)

    def execute(self, calls: Sequence[Call], store: Store | None) -> list[Outcome]:
        """Run commands in order; one outcome each."""
        outcomes: list[Outcome] = []
        machine, methods, guard = self._machine, self._methods, self._guard
        if guard is not None:
            guard.begin(vars(machine))
        for call in calls:
            method = methods.get(call.method)
            if method is None or method.kind is not Kind.COMMAND:
                raise UnknownEntry(
                    f"entry {call.entry_index} calls {call.method!r}, which is no command here"
                )
            set_log_time(machine, call.log_time)
            try:
                outcomes.append(method.call(machine, call.arguments))
            except WrongArguments as error:
                raise UnknownEntry(f"entry {call.entry_index} calls {call.method!r}: {error}") from None
            except BaseException as error:
                outcomes.append(failure_of(error, call))
            if guard is not None and (reason := guard.after_command(vars(machine))) is not None:
                outcomes[-1] = CommandFailed(UNSTORABLE, reason)
        return outcomes

    def query(self, method: str, arguments: bytes, log_time: int, store: Store | None) -> bytes:
        """Run a query. Raises CommandFailed with what it raised, BadCall."""
        found = self._method(method)
        if found.kind is not Kind.QUERY:
            raise BadCall(f"{method!r} is a command, not a query")
        set_log_time(self._machine, log_time)
        guard, state = self._guard, vars(self._machine)
        if guard is not None:
            guard.begin(state)
        try:
            return found.call(self._machine, arguments)
        except WrongArguments as error:
            raise BadCall(f"{method}: {error}") from None
        except Exception as error:
            raise CommandFailed(type_of_error(error), text_of_error(error)) from error
        finally:
            if guard is not None and (reason := guard.after_query(state)) is not None:
                raise CommandFailed(QUERY_WROTE, reason)

    def snapshot(self) -> list[bytes]:
        """The whole state, frozen."""
        return checked_chunks(self._machine.snapshot(), type(self._machine).__name__)

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replace the whole state."""
        self._machine.restore(chunks)

    def _method(self, name: str) -> Method:
        try:
            return self._methods[name]
        except KeyError:
            known = ", ".join(self._methods)
            raise BadCall(f"unknown method {name!r}; there are {known}") from None


def checked_arguments(method: Method, arguments: bytes | str) -> bytes:
    """Arguments as they enter the log. Raises BadCall naming the method."""
    try:
        if isinstance(arguments, str):
            return method.check_json(arguments)
        return method.check(arguments)
    except WrongArguments as error:
        raise BadCall(f"{method.name}: {error}") from None


def failure_of(error: BaseException, call: Call) -> CommandFailed:
    """What a raising command answers; its changes stay. Raises MachineBroken if the node must stop.

    Memory and stack are not the same on every member: after such an error their states may differ.
    """
    if isinstance(error, MemoryError | RecursionError) or not isinstance(error, Exception):
        raise MachineBroken(
            f"entry {call.entry_index}, {call.method!r}: {type(error).__name__}: {text_of_error(error)}"
        ) from error
    return CommandFailed(type_of_error(error), text_of_error(error))


def type_of_error(error: BaseException) -> str:
    """The name of its class; with its module where the plain name says something else to clients."""
    name = type(error).__name__
    return f"{type(error).__module__}.{name}" if name == SessionExpired.__name__ else name


def text_of_error(error: BaseException) -> str:
    """Its message, of bounded length."""
    try:
        return str(error)[:_MESSAGE_LIMIT]
    except Exception:
        return ""


def checked_chunks(chunks: Iterable[bytes], owner: str) -> list[bytes]:
    """What a snapshot gave, which must be bytes."""
    taken = list(chunks)
    if not all(isinstance(chunk, bytes) for chunk in taken):
        raise ConfigError(f"{owner}.snapshot must give pieces of bytes")
    return taken


def _described(method: Method) -> MethodDescription:
    return MethodDescription(method.name, method.kind, method.doc, method.parameters, method.returns)


def _check_own_snapshot(machine: Replicated) -> None:
    """A snapshot of one's own must survive the round trip in the first state at least."""
    owner = type(machine).__name__
    before = checked_chunks(machine.snapshot(), owner)
    try:
        machine.restore(iter(before))
    except Exception as error:
        raise ConfigError(f"{owner}.restore fails on what snapshot gave: {error}") from error
    if b"".join(checked_chunks(machine.snapshot(), owner)) != b"".join(before):
        raise ConfigError(f"{owner}: after restore, snapshot gives something else than before")
