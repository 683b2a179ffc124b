"""Sessions: each number runs once, its reply comes back, and all members decide alike."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connect_kv.errors import CorruptStorage
from connect_kv.kv.moment import Moment
from connect_kv.rpc.command_pb2 import Command, Failure, Result, SessionOpen
from connect_kv.statemachine.sessions import SessionLimits, SessionTable, Slot
from connect_kv.storage import codec
from connect_kv.storage.engine import Engine
from connect_kv.storage.memory import MemoryDisk
from connect_kv.storage.overlay import Overlay
from tests.statemachine.sessions_model import SECOND, Model

LIMITS = SessionLimits(sessions=3, replies=4, min_ttl=1)


class Table:
    """A SessionTable whose slices are written to an engine."""

    def __init__(self, limits: SessionLimits = LIMITS) -> None:
        self.limits = limits
        self.engine: Engine = MemoryDisk(random.Random(1)).open(Path("/state"))
        self.table = SessionTable(limits)
        self.index = 0
        self.time = 0
        self._overlay: Overlay | None = None
        self.moment: Moment | None = None
        """In place of one whose measured time is `time`."""

    @property
    def at(self) -> Moment:
        return self.moment or Moment(elapsed=self.time)

    def begin(self, record: int) -> None:
        self._overlay = Overlay(self.engine)
        self.table.begin(record)

    def entry(self, time: int) -> None:
        assert self._overlay is not None
        self.index += 1
        self.time = time
        list(self.table.advance(self.at, self._overlay))

    def open(self, ttl: int, position: int = 0) -> int:
        assert self._overlay is not None
        result = self.table.open(SessionOpen(ttl=ttl), self.index, position, self.at, self._overlay)
        return result.session_open.session

    def close(self, session: int) -> bool:
        assert self._overlay is not None
        result = self.table.close(Command(session=session, number=1), self._overlay)
        return result.WhichOneof("result") == "session_close"

    def command(self, session: int, number: int, floor: int, reply: str) -> str:
        """What the model would say."""
        assert self._overlay is not None
        row = [Result(number=number, failure=Failure(message=reply)).SerializeToString()]
        command = Command(session=session, number=number, floor=floor)
        overlay = self._overlay
        answer = self.table.admit(command, Slot(row, 0), self.index, self.at.now, overlay, overlay)
        if answer is None:
            return "run"
        if isinstance(answer, Slot):
            return "again:" + Result.FromString(answer.row[answer.position]).failure.message
        refused = Result.FromString(answer)
        if refused.failure.type == "SessionExpired":
            return "expired"
        return "full" if refused.failure.code == 8 else "again:" + refused.failure.message

    def finish(self) -> None:
        assert self._overlay is not None
        list(self.table.finish(self._overlay))
        self.engine.batch(self._overlay.changes).write(sync=False)

    def reload(self) -> None:
        self.table = SessionTable(self.limits)
        self.table.load(self.engine)

    def summary(self) -> dict[int, tuple[int, int, int, int, list[int]]]:
        return {
            id: (one.ttl, one.used_at, one.used_index, one.floor, sorted(one.replies))
            for id, one in self.table._sessions.items()
        }


def one_entry(table: Table, time: int = 0) -> Iterator[None]:
    table.begin(table.index + 1)
    table.entry(time)
    yield
    table.finish()


def say(table: Table, session: int, number: int, floor: int = 0, reply: str = "", time: int = 0) -> str:
    """One command in an entry and slice of its own."""
    for _ in one_entry(table, time):
        answer = table.command(session, number, floor, reply or f"r{number}")
    return answer


def opened(table: Table, ttl: int = 0, time: int = 0) -> int:
    for _ in one_entry(table, time):
        session = table.open(ttl)
    return session


def test_numbers_are_a_set_and_not_a_high_water_mark() -> None:
    table = Table()
    session = opened(table)
    assert [say(table, session, number) for number in (5, 2, 5, 2, 3)] == [
        "run", "run", "again:r5", "again:r2", "run",
    ]  # fmt: skip


def test_a_duplicate_is_answered_as_it_was_then_also_after_a_restart() -> None:
    table = Table()
    session = opened(table)
    say(table, session, 1, reply="first")
    assert say(table, session, 1, reply="second") == "again:first"
    table.reload()
    assert say(table, session, 1, reply="third") == "again:first"


def test_a_duplicate_within_a_slice_waits_for_the_first_one() -> None:
    table = Table()
    session = opened(table)
    for _ in one_entry(table):
        assert table.command(session, 1, 0, "first") == "run"
        assert table.command(session, 1, 0, "second") == "again:first"


def test_replies_below_the_floor_are_forgotten_in_memory_and_on_disk() -> None:
    table = Table()
    session = opened(table)
    for number in (1, 2, 3):
        say(table, session, number)
    assert len(list(replies(table))) == 3
    say(table, session, 4, floor=3)
    assert table.table.unacknowledged(session) == 2
    assert len(list(replies(table))) == 2
    assert say(table, session, 2) == "expired", "whether it ran is no longer known"
    assert say(table, session, 3) == "again:r3"
    table.reload()
    assert (say(table, session, 2), say(table, session, 3)) == ("expired", "again:r3")


def replies(table: Table) -> Iterator[tuple[bytes, bytes]]:
    return table.engine.iterate(bytes((codec.SESSION_REPLIES,)), bytes((codec.SESSION_REPLIES + 1,)))


def test_a_slice_costs_one_record_per_session() -> None:
    table = Table(SessionLimits())
    session = opened(table)
    for _ in one_entry(table):
        for number in range(1, 1001):
            table.command(session, number, 0, "")
    assert len(list(replies(table))) == 1


def test_unacknowledged_replies_are_bounded_by_a_refusal_that_is_not_remembered() -> None:
    table = Table()
    session = opened(table)
    for number in range(1, 5):
        assert say(table, session, number) == "run"
    assert say(table, session, 5) == "full"
    assert say(table, session, 3) == "again:r3", "what has run is still answered"
    assert say(table, session, 5, floor=2) == "run"


def test_a_giant_floor_costs_nothing() -> None:
    table = Table()
    session = opened(table)
    say(table, session, 1)
    assert say(table, session, (1 << 64) - 1, floor=(1 << 64) - 1) == "run"
    assert table.table.unacknowledged(session) == 1


def test_a_session_expires_by_measured_time_alone() -> None:
    table = Table()
    session = opened(table, ttl=10)
    assert say(table, session, 1, time=10 * SECOND) == "run"
    assert say(table, session, 2, time=20 * SECOND) == "run", "used ten seconds before"
    table.reload()
    assert say(table, session, 3, time=30 * SECOND + 1) == "expired"
    assert table.table.ttl(session) is None
    assert not list(table.engine.iterate(bytes((codec.SESSIONS,)), bytes((codec.SESSION_REPLIES + 1,))))


def test_what_was_counted_before_anything_was_measured_is_not_believed() -> None:
    """A date may have jumped: a session that it has not ended has its whole time again."""
    table = Table()
    table.moment = Moment(log_time=10 * SECOND)
    session = opened(table, ttl=10)
    table.moment = Moment(log_time=19 * SECOND, elapsed=19 * SECOND, since=19 * SECOND)
    other = opened(table, ttl=10)
    table.reload()
    table.moment = Moment(log_time=3600 * SECOND, elapsed=29 * SECOND, since=19 * SECOND)
    opened(table)
    assert table.table.ttl(session) == 10
    assert table.table.ttl(other) == 10
    table.moment = Moment(log_time=0, elapsed=29 * SECOND + 1, since=19 * SECOND)
    opened(table)
    assert table.table.ttl(session) is None


def test_a_cluster_begun_anew_does_not_choose_the_ids_of_the_one_before() -> None:
    ids: set[int] = set()
    for date in range(1, 6):
        table = Table()
        table.moment = Moment(log_time=date, elapsed=1)
        ids.update(opened(table) for _ in range(3))
    assert len(ids) == 15


def test_the_session_unused_for_longest_makes_room() -> None:
    table = Table()
    sessions = [opened(table) for _ in range(3)]
    say(table, sessions[0], 1)
    opened(table)
    assert [table.table.ttl(session) is not None for session in sessions] == [True, False, True]


def test_ttls_are_kept_within_limits() -> None:
    table = Table(SessionLimits(default_ttl=60, min_ttl=10, max_ttl=100))
    assert [table.table.ttl(opened(table, ttl)) for ttl in (0, -5, 1, 50, 500)] == [60, 60, 10, 50, 100]


def test_ids_are_unique_within_an_entry() -> None:
    table = Table()
    for _ in one_entry(table):
        ids = {table.open(0, position) for position in range(3)}
    assert len(ids) == 3


def test_closing_forgets_everything() -> None:
    table = Table()
    session = opened(table)
    say(table, session, 1)
    for _ in one_entry(table):
        assert table.close(session)
        assert not table.close(session)
    assert say(table, session, 1) == "expired"
    table.reload()
    assert not len(table.table)
    assert not list(replies(table))


def test_number_zero_is_refused() -> None:
    table = Table()
    session = opened(table)
    answer = table.table.admit(
        Command(session=session), Slot([], 0), 1, 0, table.engine, Overlay(table.engine)
    )
    assert isinstance(answer, bytes)
    assert Result.FromString(answer).failure.code == 3


def test_a_damaged_record_is_named() -> None:
    table = Table()
    table.engine.batch({bytes((codec.SESSIONS,)) + codec.u64(1): b"short"}).write(sync=False)
    with pytest.raises(CorruptStorage, match="session table"):
        table.reload()


# Against the model.

Step = tuple[str, int, int, int, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(["command", "command", "command", "command", "open", "close"]),
        st.integers(0, 5),  # which session
        st.integers(1, 8),  # number
        st.integers(0, 8),  # floor
        st.integers(0, 2),  # seconds until the next entry
    ),
    max_size=60,
)


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(steps=steps, cuts=st.lists(st.booleans(), min_size=60, max_size=60), other=st.lists(st.booleans()))
def test_any_history_agrees_with_the_rules_however_it_is_cut_and_restarted(
    steps: list[Step], cuts: list[bool], other: list[bool]
) -> None:
    expected, model = run_model(steps)
    for restart_at in (set(), {n for n, yes in enumerate(other) if yes}):
        table = Table()
        assert run_table(table, steps, cuts, restart_at) == expected
        assert table.summary() == {
            id: (one.ttl, one.used_at, one.used_index, one.floor, sorted(one.replies))
            for id, one in model.sessions.items()
        }
        before = table.summary()
        table.reload()
        assert table.summary() == before


def run_model(steps: Sequence[Step]) -> tuple[list[str], Model]:
    model = Model(LIMITS)
    answers, opened_ids, time = [], [0], 0
    for index, (kind, which, number, floor, seconds) in enumerate(steps, 1):
        time += seconds * SECOND
        model.entry(time)
        session = opened_ids[which % len(opened_ids)]
        if kind == "open":
            opened_ids.append(Moment().scattered(index << 20) if time else index << 20)
            model.open(opened_ids[-1], 3, index, time)
        elif kind == "close":
            answers.append(str(model.close(session)))
        else:
            answers.append(model.command(session, number, floor, index, time, f"reply{index}"))
    return answers, model


def run_table(table: Table, steps: Sequence[Step], cuts: Sequence[bool], restart_at: set[int]) -> list[str]:
    """The same history; `cuts` says after which entries a slice ends."""
    ends = [number for number in range(len(steps)) if cuts[number] or number == len(steps) - 1]
    answers, opened_ids, time = [], [0], 0
    for start, end in pairwise([-1, *ends]):
        table.begin(end + 1)
        for kind, which, number, floor, seconds in steps[start + 1 : end + 1]:
            time += seconds * SECOND
            table.entry(time)
            session = opened_ids[which % len(opened_ids)]
            if kind == "open":
                opened_ids.append(table.open(3))
            elif kind == "close":
                answers.append(str(table.close(session)))
            else:
                answers.append(table.command(session, number, floor, f"reply{table.index}"))
        table.finish()
        if end in restart_at:
            table.reload()
    return answers
