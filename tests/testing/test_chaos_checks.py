"""What judges a chaos run notices each kind of wrong answer."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from chaos import watches, workloads
from chaos.charts import longest_pause, percentile
from chaos.leases import LockClaims, TrustedHolder
from chaos.recording import Log, Sample
from chaos.switch import Switch
from chaos.watches import ChaosWatcher, WatchedEvent
from connect_kv.testing.checker.history import UNKNOWN, Operation
from connect_kv.testing.checker.linearizability import Verdict, check
from connect_kv.testing.network import Quality

HISTORY = [
    WatchedEvent(2, b"a", False, b"1", 2, 1, None),
    WatchedEvent(3, b"b", False, b"1", 3, 1, None),
    WatchedEvent(4, b"a", False, b"2", 2, 2, (2, b"1")),
    WatchedEvent(5, b"a", True, b"", 0, 0, (4, b"2")),
    WatchedEvent(5, b"b", False, b"2", 3, 2, (3, b"1")),
    WatchedEvent(6, b"a", False, b"3", 6, 1, None),
]


def append(item: int, output: tuple[int, ...] | None, called: float, returned: float = UNKNOWN) -> Operation:
    return Operation(
        client=called, input=("append", "l", item), output=output, called=called, returned=returned
    )


def test_an_item_that_is_appended_twice_or_lost_is_not_linearizable() -> None:
    first, retried = append(1, (1,), 0, 1), append(2, None, 2)
    read = Operation(client=9, input=("read", "l"), output=(1, 2), called=3, returned=4)
    assert check(workloads.lists, [first, retried, read]).verdict is Verdict.OK
    assert check(workloads.lists, [first, retried, replace(read, output=(1,))]).verdict is Verdict.OK
    for wrong in ((1, 2, 2), (2,), (1, 1)):
        assert (
            check(workloads.lists, [first, retried, replace(read, output=wrong)]).verdict is Verdict.VIOLATION
        )


def test_balances_that_do_not_add_up_are_noticed() -> None:
    log = Log(0)
    names = [f"bank/0/{name}" for name in workloads.ACCOUNTS]
    workloads.check_balances(log, dict.fromkeys(names))
    workloads.check_balances(log, dict.fromkeys(names, "100"))
    assert not log.violations
    workloads.check_balances(log, dict.fromkeys(names, "99"))
    workloads.check_balances(log, {**dict.fromkeys(names, "100"), names[0]: None})
    assert len(log.violations) == 2


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (TrustedHolder("b", 6, 1.5, 3), "held twice"),
        (TrustedHolder("b", 4, 2.5, 3), "do not grow"),
        (TrustedHolder("b", 6, 2.5, 3), ""),
        (TrustedHolder("b", 6, 1.5, 1.4), ""),
    ],
)
def test_a_lock_held_twice_is_noticed(second: TrustedHolder, words: str) -> None:
    """One whose trust ended before it learned that it had the lock never held it."""
    locks = LockClaims(Log(0))
    locks.held = [second, TrustedHolder("a", 5, 1, 2)]
    found = locks.violations()
    assert bool(found) == bool(words)
    assert all(words in text for text in found)


def test_a_right_history_is_accepted() -> None:
    assert watches.check_chain(HISTORY) == []


@pytest.mark.parametrize(
    "wrong",
    [
        HISTORY[:2] + HISTORY[3:],
        [HISTORY[1], HISTORY[0], *HISTORY[2:]],
        [*HISTORY, HISTORY[-1]],
        [*HISTORY[:2], HISTORY[2]._replace(version=3), *HISTORY[3:]],
        [*HISTORY[:5], HISTORY[5]._replace(created=2)],
    ],
    ids=["one is missing", "out of order", "one twice", "wrong version", "wrong creation"],
)
def test_a_wrong_history_is_noticed(wrong: list[WatchedEvent]) -> None:
    assert watches.check_chain(wrong)


@pytest.fixture
def watcher() -> ChaosWatcher:
    found = ChaosWatcher("w", None, "a", previous=False)  # type: ignore[arg-type]  # it is never run
    found.start = 3
    found.seen = [HISTORY[2]._replace(previous=None), HISTORY[3]._replace(previous=None)]
    return found


def test_a_watch_that_saw_all_is_accepted(watcher: ChaosWatcher) -> None:
    assert watches.check_watcher(watcher, HISTORY[:5]) == []
    watcher.seen.append(HISTORY[5])
    assert watches.check_watcher(watcher, HISTORY[:5]) == [], "what came later does not count"


def test_a_watch_that_missed_repeated_or_changed_an_event_is_noticed(watcher: ChaosWatcher) -> None:
    right = watcher.seen
    for wrong in (
        right[:1],
        right[1:],
        [*right, right[-1]],
        [right[1], right[0]],
        [right[0]._replace(value=b"x"), right[1]],
    ):
        watcher.seen = wrong
        assert watches.check_watcher(watcher, HISTORY[:5])


def test_pauses_and_percentiles() -> None:
    samples = [Sample("w", 0, time, ok) for time, ok in ((1, True), (2, False), (4, True), (9, True))]
    assert longest_pause(samples, 0, 5) == 3
    assert longest_pause(samples, 5, 8) == 3
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile([], 0.5) is None


class Tunnels:
    """Pipes instead of tunnels."""

    def __init__(self) -> None:
        self.reads: dict[int, int] = {}
        writes = {}
        for octet in (1, 2):
            self.reads[octet], writes[octet] = os.pipe()
            os.set_blocking(self.reads[octet], False)
        self.switch = Switch(writes, random.Random(1))
        self._descriptors = [*self.reads.values(), *writes.values()]

    def arrived(self, octet: int) -> int:
        """How many packets."""
        try:
            return len(os.read(self.reads[octet], 1 << 20)) // 20
        except BlockingIOError:
            return 0

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)


@pytest.fixture
def tunnels() -> Iterator[Tunnels]:
    made = Tunnels()
    yield made
    made.close()


def packet(target: int) -> bytes:
    return b"\x45" + bytes(15) + bytes([10, 0, 0, target])


def test_a_switch_blocks_one_direction_only(tunnels: Tunnels) -> None:
    tunnels.switch.set(1, 2, Quality(blocked=True))
    tunnels.switch.forward(1, packet(2), 0)
    tunnels.switch.forward(2, packet(1), 0)
    tunnels.switch.forward(2, b"\x60" + bytes(30), 0)
    tunnels.switch.forward(2, packet(77), 0)
    assert (tunnels.arrived(1), tunnels.arrived(2)) == (1, 0)


def test_a_switch_loses_delays_and_repeats(tunnels: Tunnels) -> None:
    tunnels.switch.set(1, 2, Quality(loss=0.5))
    for _ in range(400):
        tunnels.switch.forward(1, packet(2), 0)
    assert tunnels.switch.deliver(0) is None
    assert 150 < tunnels.arrived(2) < 250
    tunnels.switch.set(1, 2, Quality(delay=1, duplicate=1))
    tunnels.switch.forward(1, packet(2), 10)
    assert tunnels.switch.deliver(10.5) == 0.5
    assert tunnels.arrived(2) == 0
    assert tunnels.switch.deliver(11) is None
    assert tunnels.arrived(2) == 2
