"""Callbacks as a machine: `incoming` routes, state is in memory or in the store they receive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
import pytest

from connect_kv.errors import BadCall, CommandFailed, ConfigError
from connect_kv.framework.callbacks import Messages
from connect_kv.framework.types import MessageType, MethodKind, ServiceType, Store
from connect_kv.framework.versions import methods_of
from connect_kv.statemachine.callbacks import CallbackMachine
from connect_kv.statemachine.hosted import Checked, Halt, MachineCall


def send(message: bytes) -> bytes:
    return methods_of(Messages)["send"].bind((message,), {})


def value(outcome: object) -> bytes:
    assert isinstance(outcome, bytes)
    return msgspec.msgpack.decode(outcome, type=bytes)


def incoming(message: bytes) -> MessageType:
    if message == b"bad":
        raise ValueError("neither")
    if message == b"odd":
        return "read"  # type: ignore[return-value]  # the mistake under test
    return MessageType.READ if message.startswith(b"get") else MessageType.WRITE


class DictStore:
    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        return self.values.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self.values[key] = value

    def delete(self, key: bytes) -> None:
        self.values.pop(key, None)

    def iterate(
        self, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        return iter(sorted(self.values.items(), reverse=reverse))


class Log:
    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def on_read(self, message: bytes) -> bytes:
        return b",".join(self.lines)

    def on_write(self, message: bytes) -> bytes:
        self.lines.append(message)
        if message == b"fail":
            raise RuntimeError("failed")
        return b"%d" % len(self.lines)

    def snapshot(self) -> Iterable[bytes]:
        return iter(self.lines)

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.lines = list(chunks)


def machine(log: Log) -> CallbackMachine:
    return CallbackMachine(incoming, log.on_read, log.on_write, snapshot=log.snapshot, restore=log.restore)


def test_incoming_decides_whether_a_message_is_replicated() -> None:
    callbacks = machine(Log())
    assert callbacks.check("send", send(b"get")).kind is MethodKind.QUERY
    assert callbacks.check("send", send(b"set")) == Checked(MethodKind.COMMAND, "send", send(b"set"))
    assert callbacks.check("send", '{"message": "c2V0"}').arguments == send(b"set")


@pytest.mark.parametrize(
    ("method", "arguments", "complaint"),
    [
        ("other", send(b""), "unknown method 'other'"),
        ("send", b"\x80", "missing argument `message`"),
        ("send", send(b"bad"), "incoming raised ValueError: neither"),
        ("send", send(b"odd"), "incoming returned 'read'"),
    ],
)
def test_a_message_that_cannot_be_routed_is_refused(method: str, arguments: bytes, complaint: str) -> None:
    with pytest.raises(BadCall, match=complaint):
        machine(Log()).check(method, arguments)


def test_messages_reach_the_callbacks_and_answers_come_back() -> None:
    callbacks = machine(Log())
    outcomes = callbacks.execute(
        [MachineCall("send", send(b"a"), 0, 1), MachineCall("send", send(b"fail"), 0, 2)], None
    )
    assert value(outcomes[0]) == b"1"
    assert isinstance(outcomes[1], CommandFailed)
    assert value(callbacks.query("send", send(b"get"), 0, None)) == b"a,fail"
    assert callbacks.value_json("send", callbacks.query("send", send(b"get"), 0, None)) == '"YSxmYWls"'


def test_a_service_cannot_go_on_with_an_entry_that_is_no_message() -> None:
    for call in (MachineCall("other", send(b""), 0, 4), MachineCall("send", b"\x80", 0, 4)):
        with pytest.raises(Halt) as halt:
            machine(Log()).execute([call], None)
        assert halt.value.at is call


def test_an_answer_must_be_bytes() -> None:
    callbacks = CallbackMachine(incoming, lambda message: b"", lambda message: None)  # type: ignore[arg-type]
    (outcome,) = callbacks.execute([MachineCall("send", send(b"a"), 0, 1)], None)
    assert isinstance(outcome, CommandFailed)
    assert "not bytes" in outcome.message


def test_state_moves_by_the_two_snapshot_callbacks() -> None:
    log, other = Log(), Log()
    machine(log).execute([MachineCall("send", send(b"a"), 0, 1)], None)
    machine(other).restore(machine(log).snapshot())
    assert other.lines == [b"a"]


def test_forms_that_cannot_work_are_refused() -> None:
    log = Log()
    with pytest.raises(ConfigError, match="give both, or neither"):
        CallbackMachine(incoming, log.on_read, log.on_write, snapshot=log.snapshot)
    with pytest.raises(ConfigError, match="in its store already"):
        CallbackMachine(
            incoming,
            log.on_read,
            log.on_write,
            ServiceType.PERSISTENT,
            snapshot=log.snapshot,
            restore=log.restore,
        )
    assert not CallbackMachine(incoming, log.on_read, log.on_write).can_snapshot


def test_persistent_callbacks_receive_the_store() -> None:
    def on_write(message: bytes, store: Store) -> bytes:
        store.put(b"last", message)
        return store.get(b"last") or b""

    callbacks = CallbackMachine(
        incoming, lambda message, store: store.get(b"last") or b"", on_write, ServiceType.PERSISTENT
    )
    assert callbacks.persistent
    assert callbacks.can_snapshot
    store = DictStore()
    assert value(callbacks.execute([MachineCall("send", send(b"x"), 0, 1)], store)[0]) == b"x"
    assert value(callbacks.query("send", send(b"get"), 0, store)) == b"x"
