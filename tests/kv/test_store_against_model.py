"""Any sequence of requests gives what a list of whole past states gives, before and after cleanup."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from connect_kv.errors import Refused
from connect_kv.kv import layout
from connect_kv.kv.txn import is_read_only
from connect_kv.kv.watch_stream import WatchStream
from connect_kv.rpc.command_pb2 import Command, Result
from connect_kv.rpc.kv_pb2 import Event, KeyValue, PutRequest, RangeRequest, TxnRequest, TxnResponse
from connect_kv.rpc.watch_pb2 import WatchCancelRequest, WatchCreateRequest, WatchResponse
from connect_kv.storage.overlay import Overlay
from tests.kv import strategies
from tests.kv.conftest import Kv, finish, new_engine
from tests.kv.model import Model, Refusal

PREFIX = "etcdserver: "


class StoreAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.kv = Kv(new_engine())
        self.model = Model()

    def teardown(self) -> None:
        self.kv.machine.close()
        self.kv.engine.close()

    def refused(self, result: Result, refusal: Refusal) -> None:
        assert result.failure.message == f"{PREFIX}{refusal}"

    @rule(lease=st.sampled_from(strategies.LEASES))
    def grant(self, lease: int) -> None:
        assert self.kv.grant(lease).HasField("failure") == (lease in self.model.leases)
        self.model.leases.add(lease)

    @rule(lease=st.sampled_from(strategies.LEASES))
    def revoke(self, lease: int) -> None:
        command = Command()
        command.lease_revoke.ID = lease
        result = self.kv.apply(command)[0]
        assert result.HasField("failure") == (lease not in self.model.leases)
        self.model.leases.discard(lease)
        self.model.begin()
        for key in sorted(key for key, kv in self.model.now().items() if kv.lease == lease):
            self.model.now().pop(key)
            self.model._changes.append((key, None))
        self.model.end()

    @rule(request=strategies.puts())
    def put(self, request: PutRequest) -> None:
        result = self.kv.apply(Command(put=request))[0]
        try:
            if request.lease and request.lease not in self.model.leases:
                raise Refusal("requested lease not found")
            self.model.check_put(request)
        except Refusal as refusal:
            self.refused(result, refusal)
            return
        self.model.begin()
        assert result.put == self.model.put(request)
        self.model.end()

    @rule(request=strategies.deletes())
    def delete(self, request: object) -> None:
        result = self.kv.apply(Command(delete_range=request))[0]  # type: ignore[arg-type]
        self.model.begin()
        assert result.delete_range == self.model.delete_range(request)  # type: ignore[arg-type]
        self.model.end()

    @rule(request=strategies.txns())
    def transaction(self, request: TxnRequest) -> None:
        if is_read_only(request):
            try:
                answer = finish(self.kv.machine.read_txn(request))
            except Refused as refused:
                result = Result()
                result.failure.message = refused.message
            else:
                result = Result(txn=TxnResponse.FromString(answer))
        else:
            result = self.kv.txn(request)
        try:
            expected = self.model.txn(request)
        except Refusal as refusal:
            self.refused(result, refusal)
        else:
            assert result.txn == expected

    @rule(back=st.integers(-1, 6))
    def compact(self, back: int) -> None:
        revision = self.model.revision - back
        result = self.kv.compact(revision)
        try:
            self.model.compact(revision)
        except Refusal as refusal:
            self.refused(result, refusal)
        else:
            assert result.compact.header.revision == self.model.revision

    @rule()
    def clean_a_little(self) -> None:
        overlay = Overlay(self.kv.engine)
        self.kv.machine.cleanup(overlay)
        self.kv.write(overlay)

    @rule()
    def clean(self) -> None:
        self.kv.clean()
        if self.model.compacted >= 0:
            self.only_what_can_be_read_is_left()

    def only_what_can_be_read_is_left(self) -> None:
        compacted = self.model.compacted
        kept = {(kv.key, kv.mod_revision) for kv in self.model.states[compacted].values()}
        for revision in range(compacted, self.model.revision + 1):
            kept |= {(key, revision) for key, _, _ in self.model.events[revision]}
        history = self.kv.engine.iterate(layout.HISTORY, layout.INDEX)
        places = [(key[1:], record) for key, record in history]
        left = set()
        for place, record in places:
            deleted = record.startswith(layout.DELETED)
            key = record[1:] if deleted else KeyValue.FromString(record).key
            left.add((key, int.from_bytes(place[:8], "big")))
        assert left == kept

    @rule()
    def restart(self) -> None:
        self.kv.restart()

    @rule(request=strategies.ranges())
    def read(self, request: RangeRequest) -> None:
        try:
            expected = self.model.range(request)
        except Refusal as refusal:
            with pytest.raises(Refused, match=f"{PREFIX}{refusal}"):
                finish(self.kv.machine.range(request))
        else:
            assert finish(self.kv.machine.range(request)) == expected

    @rule(key=strategies.keys, range_end=st.sampled_from([b"", b"\0", b"c"]), back=st.integers(0, 12))
    def watch_from_the_past(self, key: bytes, range_end: bytes, back: int) -> None:
        start = max(1, self.model.revision - back)
        if range_end and range_end != b"\0" and range_end <= key:
            return
        events, last = finish(self.watched(key, range_end, start))
        if start < self.model.compacted:
            assert last is not None
            assert (last.canceled, last.compact_revision) == (True, self.model.compacted)
            return
        assert events == self.expected_events(key, range_end, start)

    async def watched(
        self, key: bytes, range_end: bytes, start: int
    ) -> tuple[list[Event], WatchResponse | None]:
        """Everything up to now: a promise of progress comes last, or a cancellation."""
        stream = WatchStream(self.kv.machine.hub)
        stream.create(WatchCreateRequest(key=key, range_end=range_end, start_revision=start, prev_kv=True))
        stream.create(WatchCreateRequest(key=b"end", watch_id=77))
        stream.cancel(WatchCancelRequest(watch_id=77))
        events: list[Event] = []
        async for response in stream:
            events += response.events
            if response.canceled and response.watch_id == 0:
                stream.close()
                return events, response
            if response.canceled:
                break
        stream.close()
        return events, None

    def expected_events(self, key: bytes, range_end: bytes, start: int) -> list[Event]:
        expected = []
        for revision in range(start, self.model.revision + 1):
            for name, kv, before in self.model.events[revision]:
                if name != key and not (
                    range_end and name >= key and (range_end == b"\0" or name < range_end)
                ):
                    continue
                event = Event(kv=kv if kv is not None else KeyValue(key=name, mod_revision=revision))
                event.type = Event.PUT if kv is not None else Event.DELETE
                if before is not None and revision > self.model.compacted:
                    event.prev_kv.CopyFrom(before)
                expected.append(event)
        return expected

    @invariant()
    def numbers_are_right(self) -> None:
        state = layout.StoreState.decode(self.kv.engine.get(layout.STATE))
        assert state.revision == self.kv.machine.revision == self.model.revision
        assert state.compacted == self.kv.machine.compact_revision == self.model.compacted
        current = sum(1 for _ in self.kv.engine.iterate(layout.CURRENT, layout.HISTORY))
        indexed = sum(1 for _ in self.kv.engine.iterate(layout.INDEX, layout.META))
        assert (state.live, state.indexed) == (current, indexed)
        assert current == len(self.model.states[-1])

    @invariant()
    def everything_follows_from_the_history(self) -> None:
        assert finish(self.kv.machine.difference()) is None

    @invariant()
    def attachments_are_right(self) -> None:
        for lease in self.model.leases:
            held = sorted(key for key, kv in self.model.states[-1].items() if kv.lease == lease)
            assert finish(self.kv.machine.lease_keys(lease)) == held


TestStoreAgainstModel = pytest.mark.long(StoreAgainstModel.TestCase)
TestStoreAgainstModel.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
