"""The host: one slice, one batch; sessions, keys and machines of users side by side."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TypeVar

import msgspec
import pytest

from connect_kv.errors import (
    BadCall,
    CommandFailed,
    ConfigError,
    NodeStopped,
    StorageError,
    UnknownEntry,
)
from connect_kv.framework.types import MessageType
from connect_kv.kv.lessor import Lessor
from connect_kv.node.workers import InlineWorker, ThreadWorker
from connect_kv.raft.types import Entry, EntryId, EntryKind, Membership, SnapshotMeta
from connect_kv.rpc.command_pb2 import Command, MemberPublish
from connect_kv.rpc.kv_pb2 import CompactionRequest, RangeRequest
from connect_kv.rpc.lease_pb2 import LeaseGrantRequest
from connect_kv.rpc.maintenance_pb2 import NOSPACE, AlarmRequest
from connect_kv.rpc.versions_pb2 import MachineChange
from connect_kv.statemachine.callbacks import CallbackMachine
from connect_kv.statemachine.hosted import HostedMachine
from connect_kv.statemachine.lowlevel import LowLevelMachine
from connect_kv.storage.memory import MemoryDisk
from examples.lowlevel.counter import Counter as LowLevelCounter
from examples.lowlevel.dict_kv import Delete, DictKv, Put, encode
from tests.statemachine.conftest import (
    SECOND,
    Counter,
    Member,
    Names,
    StillClock,
    add,
    call,
    close_session,
    copy_snapshot,
    number_in,
    open_session,
    put,
)


async def value_of(member: Member, key: bytes) -> bytes | None:
    kvs = (await member.kv.range(RangeRequest(key=key))).kvs
    return kvs[0].value if kvs else None


def grant(id: int, ttl: int) -> Command:
    return Command(lease_grant=LeaseGrantRequest(ID=id, TTL=ttl))


def remaining(member: Member, lease: int) -> float:
    """Seconds left to a lease as the state was loaded."""

    async def propose(payload: bytes, count: int) -> None:
        raise AssertionError("nothing is ended here")

    left = Lessor(member.kv.leases, StillClock(), propose, lambda: False).remaining(lease)
    assert left is not None
    return left


async def test_one_entry_reaches_every_machine_and_answers_in_order() -> None:
    member = await Member({"counter": Counter, "names": Names}, persistent=True).start()
    results = await member.run(
        put(b"k", b"v"),
        add(5),
        call("names", "add", {"name": "a"}),
        call("persistent", "send", {"message": b""}),
        add(2),
        add(13),
    )
    assert [result.WhichOneof("result") for result in results] == [
        "put", "machine_call", "machine_call", "machine_call", "machine_call", "failure",
    ]  # fmt: skip
    assert (number_in(results[1]), number_in(results[4])) == (5, 7)
    assert (results[5].failure.code, results[5].failure.type) == (10, "ValueError")
    assert await value_of(member, b"k") == b"v"
    assert msgspec.msgpack.decode(await member.host.query("counter", "value", b"\x80")) == 7
    assert member.host.last_applied == 1


async def test_reads_see_whole_slices_only() -> None:
    member = await Member({}).start()
    member.append(put(b"a", b"1"))
    member.append(put(b"b", b"2"))
    entries = member.log
    gate = asyncio.Event()
    write = member.host._writer.write

    async def slow_write(*arguments: object) -> None:
        await gate.wait()
        await write(*arguments)  # type: ignore[arg-type]

    member.host._writer.write = slow_write  # type: ignore[method-assign,assignment]
    applying = asyncio.create_task(member.host.apply(entries))
    await asyncio.sleep(0)
    assert (await value_of(member, b"a"), member.host.last_applied, member.kv.revision) == (None, 0, 1)
    gate.set()
    await applying
    assert (await value_of(member, b"b"), member.host.last_applied, member.kv.revision) == (b"2", 2, 3)


async def test_log_time_never_goes_back_and_is_what_commands_read() -> None:
    member = await Member().start()
    for stamp in (5, 9, 7):
        await member.run(add(), log_time=stamp)
    assert vars(member.objects["counter"])["history"] == [(5, 1), (9, 1), (9, 1)]
    await member.restart()
    assert member.host.log_time == 9


async def test_steps_of_the_wall_clock_end_no_session_and_shorten_no_lease() -> None:
    member = await Member().start()
    day = 24 * 3600 * SECOND
    session = await member.open_session(ttl=10, log_time=100 * day, elapsed=1)
    await member.run(grant(7, 600), log_time=99 * day, elapsed=2 * SECOND)
    (answer,) = await member.run(add(session=session, number=1), log_time=200 * day, elapsed=9 * SECOND)
    assert not answer.HasField("failure")
    await member.restart()
    assert remaining(member, 7) == pytest.approx(593)
    (answer,) = await member.run(add(session=session, number=2), log_time=300 * day, elapsed=18 * SECOND)
    assert not answer.HasField("failure")
    (answer,) = await member.run(add(session=session, number=3), log_time=300 * day, elapsed=29 * SECOND)
    assert answer.failure.type == "SessionExpired"


async def test_a_snapshot_carries_what_was_measured() -> None:
    source, target = await Member().start(), await Member().start()
    await source.run(grant(7, 600), log_time=1, elapsed=SECOND)
    await source.run(put(b"k", b"v"), log_time=10**18, elapsed=101 * SECOND)
    await copy_snapshot(source, target)
    assert remaining(target, 7) == pytest.approx(500)
    assert target.host.elapsed(()) == source.host.elapsed(()) == 101 * SECOND


async def test_a_directory_of_before_goes_on_and_believes_no_date() -> None:
    """Its leases have their whole time again: what they had used was read from a wall clock."""
    member = await Member().start()
    session = await member.open_session(ttl=60, log_time=100 * SECOND)
    await member.run(grant(7, 600), log_time=100 * SECOND)
    await member.run(put(b"k", b"v"), log_time=150 * SECOND)
    await member.restart()
    assert remaining(member, 7) == pytest.approx(600)
    assert member.host.elapsed(()) == 150 * SECOND
    await member.run(put(b"k", b"v"), log_time=151 * SECOND, elapsed=151 * SECOND)
    await member.run(grant(8, 600), log_time=10**6 * SECOND, elapsed=161 * SECOND)
    (answer,) = await member.run(add(session=session, number=1), log_time=0, elapsed=190 * SECOND)
    assert not answer.HasField("failure")
    await member.restart()
    assert remaining(member, 7) == pytest.approx(560)
    assert remaining(member, 8) == pytest.approx(571)


async def test_nothing_is_measured_while_a_member_says_that_it_would_not_understand() -> None:
    member = await Member().start()
    for highest, understood in ((49, False), (50, True)):
        publish = MemberPublish(id=5, name="n5", client_urls=["http://h:1"], highest_command=highest)
        await member.run(Command(member_publish=publish))
        assert (member.host.elapsed([5, 6]) is not None) == understood
    publish = MemberPublish(id=9, name="n9", client_urls=["http://h:1"], highest_command=49)
    await member.run(Command(member_publish=publish))
    assert member.host.elapsed([5, 6]) is not None, "one that was removed has no say"


async def test_entries_without_commands_only_move_the_position() -> None:
    member = await Member().start()
    member.log.append(Entry(EntryId(1, 1), EntryKind.NOOP))
    member.log.append(Entry(EntryId(1, 2), EntryKind.MEMBERSHIP, b"{}"))
    assert await member.apply_rest() == [[], []]
    assert member.host.last_applied == 2


async def test_a_numbered_call_counts_once_for_every_kind_of_machine() -> None:
    member = await Member(persistent=True).start()
    session = await member.open_session()
    commands = [
        put(b"k", b"v", session=session, number=1),
        add(5, session=session, number=2),
        call("persistent", "send", {"message": b""}, session=session, number=3),
    ]
    first = await member.run(*commands, *commands)
    again = await member.run(*commands)
    assert first[:3] == first[3:] == again
    assert [result.number for result in again] == [1, 2, 3]
    assert member.kv.revision == 2
    await member.crash()
    assert await member.run(*commands) == again
    assert msgspec.msgpack.decode(await member.host.query("counter", "value", b"\x80")) == 5


async def test_a_failed_call_is_answered_as_it_failed_then() -> None:
    member = await Member().start()
    session = await member.open_session()
    first = await member.run(add(13, session=session, number=1))
    assert first[0].failure.type == "ValueError"
    assert await member.run(add(13, session=session, number=1)) == first


async def test_calls_on_an_expired_or_closed_session_are_not_run() -> None:
    member = await Member().start()
    session = await member.open_session(ttl=10)
    (late,) = await member.run(add(session=session, number=1), log_time=11 * SECOND)
    other = await member.open_session(log_time=11 * SECOND)
    (closed, after) = await member.run(close_session(other, 1), add(session=other, number=2))
    assert (late.failure.type, after.failure.type) == ("SessionExpired", "SessionExpired")
    assert closed.WhichOneof("result") == "session_close"
    assert vars(member.objects["counter"])["total"] == 0


@pytest.mark.parametrize(
    ("unknown", "complaint"),
    [
        (Command(machine_change=MachineChange(machine="other")), "changes machine 'other' in a way"),
        (Command(), "of an unknown kind"),
        (Command(range=RangeRequest(key=b"k")), "range"),
        (Command.FromString(b"\xfa\x3f\x00"), "of an unknown kind"),
    ],
)
async def test_what_this_version_cannot_apply_stops_it_and_is_never_skipped(
    unknown: Command, complaint: str
) -> None:
    member = await Member().start()
    entry = member.append(put(b"k", b"v"), unknown)
    with pytest.raises(UnknownEntry, match=complaint):
        await member.host.apply([entry])
    assert member.host.last_applied == 0
    assert await value_of(member, b"k") is None
    with pytest.raises(NodeStopped):
        await member.host.apply([entry])


async def test_bytes_that_are_no_batch_stop_it() -> None:
    member = await Member().start()
    with pytest.raises(UnknownEntry, match="entry 1 is no batch"):
        await member.host.apply([Entry(EntryId(1, 1), EntryKind.COMMAND, b"\xff\xff\xff")])


async def test_entries_must_follow_one_another() -> None:
    member = await Member().start()
    with pytest.raises(ValueError, match="entry 2 does not follow 0"):
        await member.host.apply([Entry(EntryId(1, 2), EntryKind.NOOP)])


async def test_queries_run_on_the_apply_thread_between_slices() -> None:
    member = await Member().start()
    worker = ThreadWorker("apply-test")
    member.host._queries._worker = worker
    await member.run(add(3))
    answers = await asyncio.gather(*(member.host.query("counter", "value", b"\x80") for _ in range(100)))
    assert set(answers) == {msgspec.msgpack.encode(3)}
    with pytest.raises(BadCall, match="machine 'counter': unknown method"):
        await member.host.query("counter", "nothing", b"\x80")
    with pytest.raises(BadCall, match="is a command"):
        await member.host.query("counter", "add", b"\x80")
    await worker.close()
    with pytest.raises(NodeStopped):
        await member.host.query("counter", "value", b"\x80")


async def test_a_persistent_machine_keeps_its_store_and_reads_cannot_change_it() -> None:
    member = await Member({}, persistent=True).start()
    message = call("persistent", "send", {"message": b""})
    await member.run(message, message)
    (raised,) = await member.run(call("persistent", "send", {"message": b"raise"}))
    assert raised.failure.type == "ValueError"
    await member.crash()
    packed = msgspec.msgpack.encode({"message": b""})
    answer = msgspec.msgpack.decode(await member.host.query("persistent", "send", packed))
    assert answer == b"raised=yes total=2", "what was changed before raising stays"
    with pytest.raises(CommandFailed, match="PermissionError"):
        await member.host.query("persistent", "send", msgspec.msgpack.encode({"message": b"cheat"}))


async def test_low_level_machines_are_hosted_as_well() -> None:
    low, tutorial = LowLevelCounter(), DictKv()
    others: dict[str, HostedMachine] = {"low": LowLevelMachine(low), "dict": LowLevelMachine(tutorial)}
    member = await Member({}).start(others=others)

    def apply(machine: str, data: bytes) -> Command:
        return call(machine, "apply", {"command": data})

    def number(value: int) -> bytes:
        return value.to_bytes(8, "big", signed=True)

    results = await member.run(
        apply("low", number(5)),
        apply("low", number(-7)),
        apply("dict", encode(Put("k", b"1"))),
        apply("dict", encode(Put("k", b"2"))),
        apply("dict", encode(Delete("none"))),
        apply("dict", b"\xc1"),
    )
    values = [msgspec.msgpack.decode(result.machine_call.value) for result in results]
    assert values[:5] == [5, -2, None, b"1", None]
    assert values[5].startswith("refused:")
    asked = await member.host.query("dict", "query", msgspec.msgpack.encode({"request": b"k"}))
    assert msgspec.msgpack.decode(asked) == b"2"
    await member.make_durable()
    await member.run(apply("low", number(1)))
    fresh = LowLevelCounter()
    await member.restart(low=LowLevelMachine(fresh), dict=LowLevelMachine(DictKv()))
    assert (fresh.total, fresh.last_applied) == (-1, 2)


async def test_alarms_decide_what_is_refused() -> None:
    member = await Member({}).start()
    raised = AlarmRequest(action=AlarmRequest.ACTIVATE, memberID=7, alarm=NOSPACE)
    alarm, refused = await member.run(Command(alarm=raised), put(b"k", b"v"))
    assert [(one.memberID, one.alarm) for one in alarm.alarm.alarms] == [(7, NOSPACE)]
    assert refused.failure.code == 8
    await member.restart()
    (refused,) = await member.run(put(b"k", b"v"))
    assert refused.failure.code == 8
    ended = AlarmRequest(action=AlarmRequest.DEACTIVATE, memberID=7, alarm=NOSPACE)
    _, done = await member.run(Command(alarm=ended), put(b"k", b"v"))
    assert done.WhichOneof("result") == "put"


async def test_answers_to_alarms_do_not_depend_on_where_slices_end() -> None:
    """Members apply the same entries in other slices, and an answer kept in a session is replicated."""
    raised = Command(alarm=AlarmRequest(action=AlarmRequest.ACTIVATE, memberID=7, alarm=NOSPACE))
    together, apart = await Member({}).start(), await Member({}).start()
    _, one = await together.run(put(b"k", b"v"), raised)
    await apart.run(put(b"k", b"v"))
    (other,) = await apart.run(raised)
    assert one == other
    assert one.alarm.header.revision == 2


async def test_members_publish_what_they_can_apply() -> None:
    member = await Member({}).start()
    for id, highest in ((1, 49), (2, 40)):
        publish = MemberPublish(id=id, name=f"n{id}", client_urls=["http://h:1"], highest_command=highest)
        (result,) = await member.run(Command(member_publish=publish))
        assert result.WhichOneof("result") == "member_publish"
    await member.restart()
    cluster = member.host.cluster
    assert cluster.members[2].name == "n2"
    assert cluster.understood_by_all(40, [1, 2])
    assert not cluster.understood_by_all(49, [1, 2])
    assert not cluster.understood_by_all(1, [1, 2, 3]), "one that has said nothing may know nothing"


async def test_a_machine_that_cannot_be_stored_keeps_the_whole_log_and_stays_alone() -> None:
    lines: list[bytes] = []

    def on_write(message: bytes) -> bytes:
        lines.append(message)
        return b""

    def callbacks() -> CallbackMachine:
        return CallbackMachine(lambda message: MessageType.WRITE, lambda message: b"", on_write)

    member = await Member({}).start(others={"log": callbacks()})
    for text in (b"a", b"b"):
        await member.run(call("log", "send", {"message": text}))
    assert await member.host.make_durable() == 0
    lines.clear()
    await member.crash(log=callbacks())
    assert lines == [b"a", b"b"], "rebuilt from the log"
    with pytest.raises(ConfigError, match=r"'log' cannot be stored.*beside other machines"):
        await Member().start(others={"log": callbacks()})


@pytest.mark.parametrize("name", ["", "1st", "a b", "x" * 65, "ä"])
async def test_names_of_machines_are_plain(name: str) -> None:
    with pytest.raises(ConfigError, match="a name is a letter"):
        await Member({name: Names}).start()


async def test_a_session_opens_once_per_command() -> None:
    member = await Member({}).start()
    one, two = await member.run(open_session(), open_session(ttl=100))
    assert one.session_open.session != two.session_open.session
    assert (one.session_open.ttl, two.session_open.ttl) == (3600, 100)


async def until_clean(member: Member) -> None:
    if (cleanup := member.host._cleanup) is not None:
        async with asyncio.timeout(60):
            await cleanup


def compact(revision: int) -> Command:
    return Command(compact=CompactionRequest(revision=revision))


async def test_what_compactions_leave_is_removed_between_slices() -> None:
    member = await Member().start()
    for _ in range(20):
        await member.run(put(b"k", b"v"))
    await member.run(compact(20))
    assert member.kv.cleanup_pending
    await until_clean(member)
    assert not member.kv.cleanup_pending
    assert await value_of(member, b"k") == b"v"
    assert member.host.last_applied == 21, "cleaning up is no entry"
    await member.crash()
    assert await value_of(member, b"k") == b"v"


class Rests(StillClock):
    """A step takes a millisecond; rests are noted."""

    def __init__(self) -> None:
        self.time = 0.0
        self.rests: list[float] = []

    def now(self) -> float:
        self.time += 0.001
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.rests.append(seconds)
        await asyncio.sleep(0)


async def with_history(clock: Rests, changes: int = 3000) -> Member:
    member = await Member({}, clock=clock).start()
    for at in range(0, changes, 100):
        await member.run(*(put(b"k", b"%d" % number) for number in range(at, at + 100)))
    return member


async def test_a_cleanup_leaves_others_most_of_the_time() -> None:
    clock = Rests()
    member = await with_history(clock)
    await member.run(compact(3000))
    before = len(clock.rests)
    busy = 0
    while member.kv.cleanup_pending:
        await member.run(put(b"other", b"v"))
        await asyncio.sleep(0)
        busy += 1
    assert busy > 5
    assert len(clock.rests) - before >= busy // 3
    assert min(clock.rests[before:]) >= 0.004


async def test_a_cleanup_does_not_rest_for_nobody() -> None:
    clock = Rests()
    member = await with_history(clock)
    await member.run(compact(3000))
    assert member.kv.cleanup_pending
    before = len(clock.rests)
    await until_clean(member)
    assert not member.kv.cleanup_pending
    assert len(clock.rests) - before <= 1, "the compaction itself was applied as it began"


async def test_a_failed_write_between_slices_is_reported_by_the_next_slice() -> None:
    disk = MemoryDisk(random.Random(1))
    member = await Member(disk=disk).start()
    await member.run(put(b"k", b"v"), put(b"k", b"w"))
    await member.run(compact(3))
    disk.full = True
    await until_clean(member)
    with pytest.raises(StorageError, match="state"):
        await member.run(put(b"k", b"v"))


async def test_a_large_entry_gives_others_a_turn() -> None:
    class Running(StillClock):
        time = 0.0

        def now(self) -> float:
            self.time += 0.001
            return self.time

    member = await Member().start()
    member.host._dispatcher._clock = Running()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await member.run(*(put(b"k", b"v") for _ in range(400)))
    task.cancel()
    assert turns >= 10


async def test_a_machine_call_with_a_number_but_no_session_is_answered_with_it() -> None:
    member = await Member().start()
    (result,) = await member.run(add(3, number=7))
    assert (result.number, number_in(result)) == (7, 3)


async def test_alarms_and_published_members_count_once_in_a_session_too() -> None:
    member = await Member({}).start()
    session = await member.open_session()
    publish = Command(session=session, number=1, member_publish=MemberPublish(id=3, name="n3"))
    first, again = await member.run(publish, publish)
    assert first == again
    assert first.number == 1
    get = AlarmRequest(action=AlarmRequest.GET)
    on = AlarmRequest(action=AlarmRequest.ACTIVATE, memberID=1, alarm=NOSPACE)
    off = AlarmRequest(action=AlarmRequest.DEACTIVATE, memberID=2, alarm=NOSPACE)
    nothing = AlarmRequest(action=AlarmRequest.ACTIVATE, memberID=1)
    results = await member.run(*(Command(alarm=one) for one in (on, off, nothing, get)))
    assert [len(result.alarm.alarms) for result in results] == [1, 0, 0, 1]


async def test_after_close_nothing_is_accepted() -> None:
    member = await Member().start()
    source = await member.host.snapshot()
    await member.host.close()
    with pytest.raises(NodeStopped):
        await member.host.query("counter", "value", b"\x80")
    with pytest.raises(NodeStopped):
        await member.run(add())
    source.close()


async def test_only_a_staged_database_can_be_switched_to() -> None:
    member = await Member().start()
    with pytest.raises(ValueError, match="'9' is staged"):
        await member.host.switch("9")


T = TypeVar("T")


class LateWorker(InlineWorker):
    """Runs calls at once, but whoever asked hears of it only later: enough to be cancelled first."""

    async def run(self, call: Callable[[], T]) -> T:
        result = await super().run(call)
        await asyncio.sleep(0)
        return result


async def test_a_snapshot_cancelled_at_any_moment_is_not_in_the_way_of_the_next() -> None:
    source = await Member().start()
    await source.run(add(), add())
    for turns in range(8):
        target = await Member(workers=(LateWorker(), InlineWorker())).start()
        snapshot = await source.host.snapshot()
        meta = SnapshotMeta(EntryId(1, snapshot.last_applied), Membership())
        first = asyncio.ensure_future(target.host.stage(meta, snapshot.chunks()))
        for _ in range(turns):
            await asyncio.sleep(0)
        for _ in range(3):  # its sender is gone, and then the connection, and then the node ends
            first.cancel()
            await asyncio.sleep(0)
        await asyncio.gather(first, return_exceptions=True)
        snapshot.close()
        await copy_snapshot(source, target)
        assert target.host.last_applied == source.host.last_applied


async def test_a_snapshot_given_up_at_any_moment_leaves_no_old_state_behind() -> None:
    """Its receiver is gone while a machine's state is taken or stored: the next one must not call the state
    that was stored before the new one.
    """
    for turns in range(12):
        source = await Member(workers=(LateWorker(), LateWorker())).start()
        await source.run(add(1))
        (await source.host.snapshot()).close()
        await source.run(add(5))
        given_up = asyncio.ensure_future(source.host.snapshot())
        for _ in range(turns):
            await asyncio.sleep(0)
        given_up.cancel()
        for made in await asyncio.gather(given_up, return_exceptions=True):
            if not isinstance(made, BaseException):
                made.close()
        await source.run(put(b"k", b"v"))
        target = await Member().start()
        await copy_snapshot(source, target)
        assert msgspec.msgpack.decode(await target.host.query("counter", "value", b"\x80")) == 6, turns
        await source.crash()
        assert msgspec.msgpack.decode(await source.host.query("counter", "value", b"\x80")) == 6, turns
