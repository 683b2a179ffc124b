"""A class in versions: each call is run by the body of the version that its place in the log has."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from connect_kv import Replicated, before, command, query
from connect_kv.errors import BadCall, CommandFailed, ConfigError
from connect_kv.framework.exceptions import raised
from connect_kv.framework.versions import methods_of, versions_of
from connect_kv.statemachine.fingerprint import PYTHON, CodeFingerprint, changed, codes_of
from connect_kv.statemachine.hosted import (
    Activation,
    Halt,
    MachineCall,
    NotActive,
    Rejected,
    ReplicatedMachine,
    Standing,
)


class OutOfStock(Exception):
    def __init__(self, item: str, left: int) -> None:
        super().__init__(f"{left} of {item} left")
        self.item = item
        self.left = left


class Before(Replicated):
    """What was deployed first."""

    def __init__(self) -> None:
        self.stock: dict[str, int] = {}

    @command
    def reserve(self, item: str, count: int = 1) -> int:
        self.stock[item] = self.stock.get(item, 10) - count
        return self.stock[item]

    @command
    def clear(self) -> None:
        self.stock = {}

    @query
    def left(self, item: str) -> int:
        return self.stock.get(item, 10)


class Inventory(Replicated, version=3):
    """And what it became."""

    stock: dict[str, int]

    def __init__(self) -> None:
        self.items: dict[str, list[int]] = {}
        self.notes: list[str] = ["first"]

    @command(raises=(OutOfStock,))
    def reserve(self, item: str, count: int = 2, note: str = "") -> int:
        have = self.items.setdefault(item, [10])
        if have[0] < count:
            raise OutOfStock(item, have[0])
        have[0] -= count
        self.notes.append(note)
        return have[0]

    @before(2, reserve)
    def reserve_1(self, item: str, count: int = 1) -> int:
        self.stock[item] = self.stock.get(item, 10) - count
        return self.stock[item]

    @before(3, reserve)
    def reserve_2(self, item: str, count: int = 1, note: str = "") -> int:
        self.stock[item] = self.stock.get(item, 10) - count
        self.notes.append(note)
        return self.stock[item] * 100

    @command(since=2)
    def release(self, item: str, count: int) -> int:
        return count

    @command(until=3)
    def clear(self) -> None:
        self.stock = {}

    @query
    def left(self, item: str) -> int:
        return self.items.get(item, [10])[0]

    @before(3, left)
    def left_2(self, item: str) -> int:
        return self.stock.get(item, 10)

    def upgrade(self, version: int) -> None:
        if version == 3:
            self.items = {item: [count] for item, count in self.stock.items()}
            del self.stock


def pack(**arguments: object) -> bytes:
    return msgspec.msgpack.encode(arguments)


def unpack(outcome: object) -> object:
    assert isinstance(outcome, bytes), outcome
    return msgspec.msgpack.decode(outcome)


def call(method: str, version: int, **arguments: object) -> MachineCall:
    return MachineCall(method, pack(**arguments), 0, 7, version)


def activation(
    origin: int, version: int, *codes: CodeFingerprint, state: tuple[bytes, ...] | None = None
) -> Activation:
    return Activation(origin, version, codes, state, 0, 7)


def upgraded_from(machine: ReplicatedMachine) -> ReplicatedMachine:
    """The newest code with the state that older code stored."""
    new = ReplicatedMachine(Inventory())
    new.restore(iter(machine.snapshot()), machine.standing)
    return new


def old_machine() -> ReplicatedMachine:
    machine = ReplicatedMachine(Before())
    (left,) = machine.execute([call("reserve", 1, item="bolt")], None)
    assert (unpack(left), machine.standing.version) == (9, 1)
    return machine


def test_newer_code_runs_the_bodies_of_the_version_that_is_active() -> None:
    machine = upgraded_from(old_machine())
    assert machine.standing.version == 1
    outcomes = machine.execute(
        [
            call("reserve", 1, item="bolt"),
            activation(1, 2),
            call("reserve", 2, item="bolt"),
            call("release", 2, item="bolt", count=3),
            activation(2, 3),
            call("reserve", 3, item="bolt"),
        ],
        None,
    )
    assert [unpack(outcome) for outcome in outcomes] == [8, 700, 3, 5]
    assert unpack(machine.query("left", pack(item="bolt"), 0, None)) == 5
    assert machine.standing.version == 3


def test_a_state_of_an_older_version_has_the_attributes_of_that_version() -> None:
    """So older code can take it back, and members with either code have equal states."""
    old = old_machine()
    new = upgraded_from(old)
    new.execute([call("reserve", 1, item="nut")], None)
    old.execute([call("reserve", 1, item="nut")], None)
    assert new.snapshot() == old.snapshot()
    back = ReplicatedMachine(Before())
    back.restore(iter(new.snapshot()), new.standing)
    assert unpack(back.query("left", pack(item="nut"), 0, None)) == 9


def test_an_activation_gives_new_attributes_their_first_value_and_upgrades_the_state() -> None:
    machine = upgraded_from(old_machine())
    machine.execute([activation(1, 3)], None)
    stored = ReplicatedMachine(Inventory())
    stored.restore(iter(machine.snapshot()), machine.standing)
    assert vars(stored._machine) == {"items": {"bolt": [9]}, "notes": ["first"]}


def test_an_activation_that_comes_twice_is_one() -> None:
    machine = upgraded_from(old_machine())
    machine.execute([activation(1, 2), activation(1, 2), activation(1, 3)], None)
    assert machine.standing.version == 2


def test_defaults_are_those_of_the_body_that_runs() -> None:
    machine = upgraded_from(old_machine())
    late = call("reserve", 1, item="bolt")
    first, second = machine.execute([activation(1, 3), late, call("reserve", 3, item="bolt", count=1)], None)
    assert (unpack(first), unpack(second)) == (7, 6)


def test_a_call_that_was_right_when_it_was_checked_and_is_not_now_is_refused_alike() -> None:
    machine = upgraded_from(old_machine())
    (outcome,) = machine.execute([activation(1, 3), call("clear", 1)], None)
    assert isinstance(outcome, Rejected)
    assert "version 3 became active before it was its turn" in outcome.reason
    with pytest.raises(Halt, match="there is no command 'clear' in version 3 here"):
        machine.execute([call("clear", 3)], None)


@pytest.mark.parametrize(
    ("method", "arguments", "version"),
    [("release", pack(item="bolt", count=1), 2), ("reserve", '{"item": "bolt", "note": "n"}', 2)],
)
def test_what_needs_a_later_version_is_told_which(method: str, arguments: bytes | str, version: int) -> None:
    machine = upgraded_from(old_machine())
    with pytest.raises(NotActive) as early:
        machine.check(method, arguments)
    assert early.value.version == version
    machine.execute([activation(1, 2)], None)
    assert machine.check(method, arguments).version == 2
    with pytest.raises(BadCall, match="unknown argument"):
        machine.check("reserve", pack(item="bolt", never=1))


def test_an_upgrade_that_fails_halts_and_can_be_tried_before() -> None:
    class Failing(Inventory, version=4):
        def upgrade(self, version: int) -> None:
            super().upgrade(version)
            if version == 4:
                self.items = {}
                raise KeyError("gone")

    machine = ReplicatedMachine(Failing())
    machine.restore(iter(old_machine().snapshot()), Standing(1))
    before_it = machine.snapshot()
    machine.try_upgrade(3)
    with pytest.raises(KeyError):
        machine.try_upgrade(4)
    assert machine.snapshot() == before_it
    with pytest.raises(Halt, match="upgrade to version 4: KeyError: 'gone'"):
        machine.execute([activation(1, 4)], None)


def test_code_that_lacks_the_active_version_cannot_go_on() -> None:
    with pytest.raises(Halt, match="version 2 is active, and this member has 1: upgrade it"):
        old_machine().execute([activation(1, 2)], None)
    with pytest.raises(Halt, match="upgrade it"):
        ReplicatedMachine(Before()).restore(iter(()), Standing(2))


def test_a_founded_machine_has_the_first_state_of_the_log() -> None:
    """Whatever code replays it: that of version 3 has no first state of version 1."""
    first = tuple(ReplicatedMachine(Before()).snapshot())
    machine = ReplicatedMachine(Inventory())
    (left,) = machine.execute([activation(0, 1, state=first), call("reserve", 1, item="bolt")], None)
    assert unpack(left) == 9
    with pytest.raises(Halt, match="before an entry that says how it begins"):
        ReplicatedMachine(Inventory()).execute([call("reserve", 1, item="bolt")], None)


# The fingerprint.


def digests(owner: type, version: int = 1) -> dict[str, bytes]:
    return dict(codes_of(owner)[version - 1].commands)


LIMIT = 10


def helper(value: int) -> int:
    return value + LIMIT


def make(doubled: bool = False, documented: bool = False, limit: int | None = None) -> type[Replicated]:
    bound = limit

    class Counter(Replicated):
        def __init__(self) -> None:
            self.total = 0

        if doubled:

            @command
            def add(self, by: int = 1) -> int:
                self.total += by * 2
                return self._told()
        elif documented:

            @command
            def add(self, by: int = 1) -> int:
                """Add."""
                self.total += by  # and a remark
                return self._told()
        else:

            @command
            def add(self, by: int = 1) -> int:
                self.total += by
                return self._told()

        @command
        def other(self) -> None:
            if bound is not None:
                self.total = bound

        def _told(self) -> int:
            return helper(self.total)

        @query
        def value(self) -> int:
            return self.total

    return Counter


def test_the_digest_of_a_command_says_what_it_executes_and_not_how_it_looks() -> None:
    plain = digests(make())
    assert digests(make()) == digests(make(documented=True)) == plain
    doubled = digests(make(doubled=True))
    assert doubled["add"] != plain["add"]
    assert doubled["other"] == plain["other"]
    assert digests(make(limit=1))["other"] != digests(make(limit=2))["other"]


def test_what_a_command_reaches_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = make()
    plain = digests(kind)
    monkeypatch.setitem(globals(), "LIMIT", 11)
    assert digests(kind)["add"] != plain["add"], "a constant that a helper uses"
    assert digests(kind)["other"] == plain["other"]
    monkeypatch.undo()
    monkeypatch.setattr(kind, "_told", lambda self: self.total)
    assert digests(kind)["add"] != plain["add"], "a method of its own"


def test_an_older_body_keeps_its_digest_under_another_name() -> None:
    assert digests(Inventory, 1)["reserve"] != digests(Inventory, 2)["reserve"]
    old, kept = codes_of(Before)[0], codes_of(Inventory)[0]
    assert old.commands["clear"] == kept.commands["clear"]
    assert changed(old, kept) == []


class Renamed(Replicated):
    """The same as below, under another name, and with another beginning."""

    def __init__(self) -> None:
        self.added: set[str] = set()
        self.other = 1

    @command(raises=(OutOfStock,))
    def put(self, name: str) -> None:
        if not name:
            raise OutOfStock(name, 0)
        self.added.add(name)
        self._check([one for one in self.added if self._known(one)])

    @command
    def add(self, name: str) -> int:
        return 2

    def _check(self, names: list[str]) -> None: ...

    def _known(self, name: str) -> bool:
        return True


class Plain(Replicated):
    def __init__(self) -> None:
        self.added: set[str] = set()

    @command(raises=(OutOfStock,))
    def put(self, name: str) -> None:
        if not name:
            raise OutOfStock(name, 0)
        self.added.add(name)
        self._check([one for one in self.added if self._known(one)])

    @command
    def add(self, name: str) -> int:
        return 1

    def _check(self, names: list[str]) -> None: ...

    def _known(self, name: str) -> bool:
        return True


def test_what_only_has_the_same_name_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """`self.added.add` is not a command `add`, nor the `__init__` of an exception that of the class."""
    plain = digests(Plain)
    assert digests(Renamed)["put"] == plain["put"]
    assert digests(Renamed)["add"] != plain["add"]
    monkeypatch.setattr(Plain, "_known", lambda self, name: False)
    assert digests(Plain)["put"] != plain["put"], "called in a comprehension"


def test_code_that_was_changed_is_refused_by_name_unless_that_is_accepted() -> None:
    plain, doubled = make(), make(doubled=True)
    standing = Standing(1, codes_of(plain))
    state = ReplicatedMachine(plain()).snapshot()
    ReplicatedMachine(make(documented=True)()).restore(iter(state), standing)
    with pytest.raises(Halt, match=r"version 1 was changed \(add\).*--accept-changed-code"):
        ReplicatedMachine(doubled()).restore(iter(state), standing)
    accepting = ReplicatedMachine(doubled())
    accepting.accept_changed = True
    accepting.restore(iter(state), standing)
    elsewhere = Standing(1, tuple(CodeFingerprint(1, "cpython-399", one.commands) for one in codes_of(plain)))
    ReplicatedMachine(doubled()).restore(iter(state), elsewhere)
    assert PYTHON.startswith("cpython-3")


# Declared exceptions.


def test_a_declared_exception_is_itself_again_for_its_caller() -> None:
    machine = ReplicatedMachine(Inventory())
    (outcome,) = machine.execute([call("reserve", 0, item="bolt", count=11)], None)
    assert isinstance(outcome, CommandFailed)
    assert outcome.type == f"{__name__}.OutOfStock"
    error = raised(outcome, methods_of(Inventory)["reserve"])
    assert isinstance(error, OutOfStock)
    assert (error.item, error.left, str(error)) == ("bolt", 10, "10 of bolt left")
    assert raised(CommandFailed("ValueError", "x"), methods_of(Inventory)["reserve"]) is None


# What contradicts itself.


def two_bodies() -> type:
    class Twice(Replicated, version=2):
        @command
        def run(self) -> None: ...

        @before(2, run)
        def one(self) -> None: ...

        @before(2, run)
        def two(self) -> None: ...

    return Twice


def too_late() -> type:
    class Late(Replicated):
        @command(since=2)
        def run(self) -> None: ...

    return Late


def not_a_command() -> type:
    class Odd(Replicated, version=2):
        def run(self) -> None: ...

        @before(2, run)
        def one(self) -> None: ...

    return Odd


def before_it_began() -> type:
    class Never(Replicated, version=2):
        @command(since=2)
        def run(self) -> None: ...

        @before(2, run)
        def one(self) -> None: ...

    return Never


def no_number() -> type:
    class Zero(Replicated, version=0):
        pass

    return Zero


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (two_bodies, "are both what run was before version 2"),
        (too_late, "since=2, but the class has versions 1 to 1"),
        (not_a_command, "neither a command nor a query"),
        (before_it_began, "is not one of the versions 3 to 2"),
        (no_number, "versions are counted from 1"),
    ],
)
def test_versions_that_contradict_each_other_are_refused_by_name(
    build: Callable[[], type], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        versions_of(build())


def test_a_subclass_has_the_version_of_its_base() -> None:
    class Mine(Inventory):
        pass

    assert versions_of(Mine).newest == 3
