"""HostedMachine: how the host drives a machine, whatever form its author chose."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from connect_kv.errors import BadCall, CommandFailed, ConfigError
from connect_kv.framework.exceptions import held, type_of_error
from connect_kv.framework.methods import Method, Parameter, WrongArguments
from connect_kv.framework.replicated import (
    Replicated,
    attributes_of,
    complete,
    restore_older,
    set_log_time,
    twin,
)
from connect_kv.framework.types import MethodKind, Store
from connect_kv.framework.versions import versions_of
from connect_kv.statemachine.depth import FixedDepth
from connect_kv.statemachine.fingerprint import PYTHON, CodeFingerprint, changed, codes_of
from connect_kv.statemachine.guard import Guard

_MESSAGE_LIMIT = 4096

UNSTORABLE = "Unstorable"
"""Type of the failure of a command that left what could not be stored."""

QUERY_WROTE = "QueryWrote"
"""Type of the failure of a query that changed the object."""


class MachineCall(NamedTuple):
    """One command from the log."""

    method: str
    arguments: bytes
    log_time: int
    entry_index: int
    """Several calls of one entry share it."""
    version: int = 0
    """Under which it was checked; 0: under that which the machine has."""
    position: int = 0
    """Among the commands of its entry."""


class Activation(NamedTuple):
    """An entry from which on a machine has another version."""

    origin: int
    """The version it must have; 0: it is to be founded. If it has another one, nothing happens."""
    version: int
    codes: tuple[CodeFingerprint, ...]
    """What the version executes. With `origin` equal to `version`, they are all that changes."""
    state: tuple[bytes, ...] | None
    """Where it is founded: the first state of all members."""
    log_time: int
    entry_index: int
    position: int = 0


Step = MachineCall | Activation


class Checked(NamedTuple):
    """A call that may be made: a command to propose, or a query to run after a read barrier."""

    kind: MethodKind
    method: str
    arguments: bytes
    """Msgpack, as they were given: defaults are filled in by the body that runs."""
    version: int = 1
    """Under which it was checked."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why a command was not run: it was checked under a version that was over when its place came."""

    reason: str


Outcome = bytes | CommandFailed | Rejected
"""What a command returned, as msgpack, or what it raised, or why it was not run."""


class Halt(Exception):
    """A machine cannot go on on this member, and its state must not be used: `reason`, at that step."""

    def __init__(self, reason: str, at: Step | None = None, outcomes: Sequence[Outcome] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.at = at
        self.outcomes = list(outcomes)
        """Of the commands before, which are as good as ever."""


class NotActive(BadCall):
    """A call needs a version of the class that is not active yet."""

    def __init__(self, version: int) -> None:
        super().__init__(f"version {version} is not active")
        self.version = version


@dataclass(frozen=True, slots=True)
class Standing:
    """What is kept beside the state of a machine."""

    version: int = 1
    """0: not founded yet."""
    codes: tuple[CodeFingerprint, ...] = ()
    """What the version executes, as far as the members have agreed on it."""


@dataclass(frozen=True, slots=True)
class MethodDescription:
    """One method, for people and other languages."""

    name: str
    kind: MethodKind
    doc: str
    parameters: tuple[Parameter, ...]
    returns: str


class HostedMachine(Protocol):
    """A machine as the host sees it. `check` and `value_json` run on the loop, the rest on one thread."""

    @property
    def persistent(self) -> bool:
        """Its state is in the store, not in memory: nothing to snapshot, restore or replay."""

    @property
    def can_snapshot(self) -> bool:
        """Whether its state can be stored; if not, the log can never be compacted."""

    newest: int
    """The newest version that its code has."""
    names: frozenset[str]
    """Of the methods of all its versions."""
    codes: tuple[CodeFingerprint, ...]
    """What each of its versions executes. Without any it has no versions and needs no founding."""
    standing: Standing
    """The version of the machine that is active."""
    accept_changed: bool
    """Whether to run it although its code is not what was agreed on."""

    def describe(self) -> tuple[str, tuple[MethodDescription, ...]]:
        """Its documentation and its methods."""

    def check(self, method: str, arguments: bytes | str) -> Checked:
        """Judge a call before anything is replicated: msgpack, or JSON as text. Raises BadCall, NotActive."""

    def value_json(self, method: str, value: bytes) -> str:
        """A returned value as JSON; `method` as in `Checked`."""

    def execute(self, steps: Sequence[Step], store: Store | None) -> list[Outcome]:
        """Run commands in order, one outcome each, with activations between them.

        Raises Halt where this member cannot go on.
        """

    def query(self, method: str, arguments: bytes, log_time: int, store: Store | None) -> bytes:
        """Run a query. Raises CommandFailed with what it raised, BadCall."""

    def snapshot(self) -> list[bytes]:
        """The whole state, frozen."""

    def restore(self, chunks: Iterable[bytes], standing: Standing | None = None) -> None:
        """Replace the whole state; without a `standing`, by one of the version it has.

        Raises Halt if its code cannot go on with it.
        """

    def try_upgrade(self, version: int) -> None:
        """Upgrade a copy of the state, to see whether it works. Raises what goes wrong."""

    def digest(self) -> bytes | None:
        """Equal on all members whose states are; None if that cannot be said of this one."""


class ReplicatedMachine:
    """A `Replicated` object, hosted. Raises ConfigError naming what cannot work, at start."""

    persistent = False
    can_snapshot = True

    def __init__(self, machine: Replicated) -> None:
        owner: type = type(machine)
        self._machine = machine
        self._versions = versions_of(owner)
        self.newest = self._versions.newest
        self.names = self._versions.names
        self._methods = self._versions.methods(self.newest)
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
        self.codes = codes_of(owner)
        self.standing = Standing(0)
        self.accept_changed = False

    def describe(self) -> tuple[str, tuple[MethodDescription, ...]]:
        """Its documentation and its methods."""
        return type(self._machine).__doc__ or "", tuple(map(_described, self._methods.values()))

    def check(self, method: str, arguments: bytes | str) -> Checked:
        """Judge a call before anything is replicated. Raises BadCall, NotActive."""
        version = self.standing.version or self.newest
        methods = self._versions.methods(min(version, self.newest))
        try:
            found = self._method(methods, method)
            return Checked(found.kind, method, checked_arguments(found, arguments), version)
        except BadCall:
            if (later := self._later(method, arguments, version)) is not None:
                raise NotActive(later) from None
            raise

    def _later(self, method: str, arguments: bytes | str, active: int) -> int | None:
        """The first version after the active one for which a call would be right."""
        for version in range(active + 1, self.newest + 1):
            if (found := self._versions.methods(version).get(method)) is not None:
                try:
                    checked_arguments(found, arguments)
                except BadCall:
                    continue
                return version
        return None

    def value_json(self, method: str, value: bytes) -> str:
        """A returned value as JSON."""
        return self._method(self._methods, method).value_json(value)

    def execute(self, steps: Sequence[Step], store: Store | None) -> list[Outcome]:
        """Run commands in order; one outcome each. Raises Halt."""
        outcomes: list[Outcome] = []
        guard, state = self._guard, vars(self._machine)
        if guard is not None:
            guard.begin(state)
        with FixedDepth():
            for step in steps:
                try:
                    set_log_time(self._machine, step.log_time)
                    if isinstance(step, Activation):
                        self._activate(step)
                        if guard is not None:
                            guard.begin(state)
                        continue
                    outcomes.append(self._command(step))
                except Halt as halt:
                    raise Halt(halt.reason, step, outcomes) from halt
                if guard is not None and (reason := guard.after_command(state)) is not None:
                    outcomes[-1] = CommandFailed(UNSTORABLE, reason)
        return outcomes

    def _command(self, call: MachineCall) -> Outcome:
        if not self.standing.version:
            self._found(call.version)
        method = self._methods.get(call.method)
        if method is None or method.kind is not MethodKind.COMMAND:
            return self._not_run(call, f"there is no command {call.method!r}")
        try:
            return method.call(self._machine, call.arguments)
        except WrongArguments as error:
            return self._not_run(call, f"{call.method!r}: {error}")
        except BaseException as error:
            return failure_of(error, method)

    def query(self, method: str, arguments: bytes, log_time: int, store: Store | None) -> bytes:
        """Run a query. Raises CommandFailed with what it raised, BadCall."""
        found = self._method(self._methods, method)
        if found.kind is not MethodKind.QUERY:
            raise BadCall(f"{method!r} is a command, not a query")
        set_log_time(self._machine, log_time)
        guard, state = self._guard, vars(self._machine)
        if guard is not None:
            guard.begin(state)
        try:
            with FixedDepth():
                return found.call(self._machine, arguments)
        except WrongArguments as error:
            raise BadCall(f"{method}: {error}") from None
        except BaseException as error:
            raise failed(error, found) from error
        finally:
            if guard is not None and (reason := guard.after_query(state)) is not None:
                raise CommandFailed(QUERY_WROTE, reason)

    def snapshot(self) -> list[bytes]:
        """The whole state, frozen."""
        return checked_chunks(self._machine.snapshot(), type(self._machine).__name__)

    def restore(self, chunks: Iterable[bytes], standing: Standing | None = None) -> None:
        """Replace the whole state; without a `standing`, by one of the version it has. Raises Halt."""
        if standing is not None:
            self._stand(standing)
        if self.standing.version in (0, self.newest):
            self._machine.restore(chunks)
        else:
            restore_older(self._machine, chunks)

    @property
    def machine(self) -> Replicated:
        """The object."""
        return self._machine

    def restore_standing(self, standing: Standing) -> None:
        """Be at that version with the state that it has. Raises Halt if its code cannot."""
        self._stand(standing)

    def try_upgrade(self, version: int) -> None:
        """Upgrade a copy of the state, to see whether it works. Raises what goes wrong."""
        tried = ReplicatedMachine.__new__(ReplicatedMachine)
        tried._machine, tried._versions, tried.newest = twin(self._machine), self._versions, self.newest
        tried.standing = self.standing
        tried.restore(iter(self.snapshot()))
        tried._upgrade(version)
        tried.snapshot()

    def digest(self) -> bytes | None:
        """Equal on all members whose states are. Of a snapshot of one's own that cannot be said."""
        if self._guard is None:
            return None
        stored = attributes_of(self._machine).digest(vars(self._machine))
        return hashlib.blake2b(stored, digest_size=16).digest()

    # Versions.

    def _activate(self, step: Activation) -> None:
        if step.origin != self.standing.version:
            return  # a repetition
        if not self._versions.has(step.version):
            raise Halt(f"version {step.version} is active, and this member has {self.newest}: upgrade it")
        if step.origin == 0:
            self._begin(step)
        elif step.version > step.origin:
            try:
                self._upgrade(step.version)
            except BaseException as error:
                text = text_of_error(error)
                reason = f"upgrade to version {step.version}: {type(error).__name__}: {text}"
                raise Halt(reason) from error
        self._stand(Standing(step.version, step.codes))

    def _begin(self, step: Activation) -> None:
        if step.state is not None:
            try:
                self.standing = Standing(step.version)
                self.restore(iter(step.state))
            except Exception as error:
                raise Halt(f"its first state cannot be restored: {type(error).__name__}: {error}") from error
        elif step.version != self.newest:
            raise Halt(f"it begins with version {step.version}, and this member would with {self.newest}")

    def _found(self, version: int) -> None:
        """A call, and nothing was said of a beginning: older members do not."""
        if version not in (0, self.newest):
            raise Halt(
                f"a call of version {version}, before an entry that says how it begins: start this member "
                f"with code of version {version} first"
            )
        self._stand(Standing(self.newest))

    def _upgrade(self, version: int) -> None:
        complete(self._machine)
        for one in range(self.standing.version + 1, version + 1):
            self._machine.upgrade(one)

    def _stand(self, standing: Standing) -> None:
        """Be at that version. Raises Halt if this code is not the one that was agreed on."""
        if not standing.version:
            self.standing, self._methods = standing, self._versions.methods(self.newest)
            return
        if not self._versions.has(standing.version):
            raise Halt(f"version {standing.version} is active, and this member has {self.newest}: upgrade it")
        own = self.codes[standing.version - 1]
        agreed = [one for one in standing.codes if (one.version, one.python) == (own.version, PYTHON)]
        names = sorted({name for code in agreed for name in changed(code, own)})
        if names and not self.accept_changed:
            raise Halt(
                f"the code of version {standing.version} was changed ({', '.join(names)}): give the class "
                "another version= and keep the older bodies, or, if the change is known to be without "
                "effect, start with --accept-changed-code"
            )
        self.standing, self._methods = standing, self._versions.methods(standing.version)

    def _not_run(self, call: MachineCall, reason: str) -> Outcome:
        """What comes of a call that does not fit. Raises Halt if it was right when it was checked."""
        if call.version and call.version < self.standing.version:
            return Rejected(f"version {self.standing.version} became active before it was its turn: {reason}")
        raise Halt(f"{reason} in version {self.standing.version} here: upgrade this member")

    def _method(self, methods: Mapping[str, Method], name: str) -> Method:
        try:
            return methods[name]
        except KeyError:
            known = ", ".join(methods)
            raise BadCall(f"unknown method {name!r}; there are {known}") from None


def checked_arguments(method: Method, arguments: bytes | str) -> bytes:
    """Arguments as they enter the log. Raises BadCall naming the method."""
    try:
        if isinstance(arguments, str):
            return method.check_json(arguments)
        return method.check(arguments)
    except WrongArguments as error:
        raise BadCall(f"{method.name}: {error}") from None


def failure_of(error: BaseException, method: Method | None = None) -> CommandFailed:
    """What a raising command answers; its changes stay. Raises Halt where members may differ.

    Memory is not the same on every member: after such an error their states may differ.
    """
    if isinstance(error, MemoryError):
        raise Halt(f"out of memory: {text_of_error(error)}".rstrip(": ")) from error
    return failed(error, method)


def failed(error: BaseException, method: Method | None = None) -> CommandFailed:
    """What its caller is told: of a declared exception, also what it holds."""
    details = b""
    if method is not None and isinstance(error, method.raises or ()):
        details = held(error)
    return CommandFailed(type_of_error(error), text_of_error(error), details)


def text_of_error(error: BaseException) -> str:
    """Its message, of bounded length."""
    try:
        return str(error)[:_MESSAGE_LIMIT]
    except BaseException:
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
