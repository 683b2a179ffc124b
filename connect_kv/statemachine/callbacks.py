"""Callbacks, hosted: a machine of one method, whose body is what the user gave."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from connect_kv.errors import BadCall, ConfigError
from connect_kv.framework import data
from connect_kv.framework.callbacks import (
    CALLBACKS,
    Handler,
    Incoming,
    Messages,
    Restore,
    Snapshot,
    StoreHandler,
)
from connect_kv.framework.methods import WrongArguments
from connect_kv.framework.types import MessageType, MethodKind, ServiceType, Store
from connect_kv.framework.versions import methods_of
from connect_kv.statemachine.depth import FixedDepth
from connect_kv.statemachine.fingerprint import CodeFingerprint
from connect_kv.statemachine.hosted import (
    Activation,
    Checked,
    Halt,
    MethodDescription,
    Outcome,
    Standing,
    Step,
    checked_arguments,
    checked_chunks,
    failed,
    failure_of,
    text_of_error,
)

_SEND = methods_of(Messages)["send"]


class CallbackMachine:
    """Callbacks, hosted. Raises ConfigError for a combination that cannot work."""

    newest = 1
    names = frozenset((_SEND.name,))
    codes: tuple[CodeFingerprint, ...] = ()
    standing = Standing()
    accept_changed = False

    def __init__(
        self,
        incoming: Incoming,
        on_read: Handler | StoreHandler,
        on_write: Handler | StoreHandler,
        service_type: ServiceType = ServiceType.IN_MEMORY,
        *,
        snapshot: Snapshot | None = None,
        restore: Restore | None = None,
    ) -> None:
        """`incoming` runs on the event loop: quick, and depending on nothing but the message."""
        if (snapshot is None) != (restore is None):
            raise ConfigError("snapshot and restore: give both, or neither")
        if snapshot is not None and service_type is ServiceType.PERSISTENT:
            raise ConfigError(
                "snapshot and restore: the state of a PERSISTENT service is in its store already"
            )
        self._incoming = incoming
        self._on_read = on_read
        self._on_write = on_write
        self._snapshot = snapshot
        self._restore = restore
        self.persistent = service_type is ServiceType.PERSISTENT
        self.can_snapshot = self.persistent or snapshot is not None

    def describe(self) -> tuple[str, tuple[MethodDescription, ...]]:
        """Its documentation and its methods."""
        method = MethodDescription(_SEND.name, _SEND.kind, _SEND.doc, _SEND.parameters, _SEND.returns)
        return "A service of callbacks.", (method,)

    def check(self, method: str, arguments: bytes | str) -> Checked:
        """Ask `incoming` what the message is. Raises BadCall."""
        if method != _SEND.name:
            raise BadCall(f"unknown method {method!r}; there is {_SEND.name}")
        checked = checked_arguments(_SEND, arguments)
        try:
            kind = self._incoming(_message(checked))
        except BaseException as error:
            raise BadCall(f"incoming raised {type(error).__name__}: {text_of_error(error)}") from error
        if not isinstance(kind, MessageType):
            raise BadCall(f"incoming returned {kind!r}, not a MessageType")
        return Checked(MethodKind.QUERY if kind is MessageType.READ else MethodKind.COMMAND, method, checked)

    def value_json(self, method: str, value: bytes) -> str:
        """A returned value as JSON: bytes as base64."""
        return _SEND.value_json(value)

    def execute(self, steps: Sequence[Step], store: Store | None) -> list[Outcome]:
        """Give messages to `on_write`, in order; one outcome each. Raises Halt."""
        outcomes: list[Outcome] = []
        for step in steps:
            if isinstance(step, Activation):
                continue
            try:
                if step.method != _SEND.name:
                    raise Halt(f"{step.method!r} is not a message to a service of callbacks")
                outcomes.append(self._handle(self._on_write, step.arguments, store))
            except (WrongArguments, Halt) as error:
                raise Halt(str(error), step, outcomes) from None
            except BaseException as error:
                try:
                    outcomes.append(failure_of(error))
                except Halt as halt:
                    raise Halt(halt.reason, step, outcomes) from error
        return outcomes

    def query(self, method: str, arguments: bytes, log_time: int, store: Store | None) -> bytes:
        """Give a message to `on_read`. Raises CommandFailed with what it raised."""
        try:
            return self._handle(self._on_read, arguments, store)
        except WrongArguments as error:
            raise BadCall(f"{method}: {error}") from None
        except BaseException as error:
            raise failed(error) from error

    def snapshot(self) -> list[bytes]:
        """The whole state, frozen. Only called if `can_snapshot`."""
        if self._snapshot is None:
            raise ConfigError("a service of callbacks without snapshot and restore cannot be stored")
        return checked_chunks(self._snapshot(), CALLBACKS)

    def restore(self, chunks: Iterable[bytes], standing: Standing | None = None) -> None:
        """Replace the whole state. Only called if `can_snapshot`."""
        if self._restore is None:
            raise ConfigError("a service of callbacks without snapshot and restore cannot be restored")
        self._restore(chunks)

    def digest(self) -> bytes | None:
        """Its state is its own."""
        return None

    def try_upgrade(self, version: int) -> None:
        """There is one version."""

    def _handle(self, handler: Handler | StoreHandler, arguments: bytes, store: Store | None) -> bytes:
        message = _message(arguments)
        # Which of the two forms it is was said by the service type; a checker cannot see that.
        with FixedDepth():
            if self.persistent:
                assert store is not None
                answer = cast(StoreHandler, handler)(message, store)
            else:
                answer = cast(Handler, handler)(message)
        if not isinstance(answer, bytes):
            raise TypeError(f"the callback returned {type(answer).__name__}, not bytes")
        return data.encode(answer)


def _message(arguments: bytes) -> bytes:
    message = _SEND.arguments(arguments)[0]
    assert isinstance(message, bytes)
    return message
