"""The key/value store as a list of whole past states: slow, obvious, and nothing like the real one."""

from dataclasses import dataclass, field

from connect_kv.rpc.kv_pb2 import (
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    KeyValue,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    ResponseOp,
    TxnRequest,
    TxnResponse,
)

State = dict[bytes, KeyValue]


class Refusal(Exception):
    """A request was refused, with this text (without its prefix)."""


def selected(state: State, key: bytes, range_end: bytes) -> list[bytes]:
    if not range_end:
        return [key] if key in state else []
    return [k for k in sorted(state) if k >= key and (range_end == b"\0" or k < range_end)]


def copy(kv: KeyValue) -> KeyValue:
    return KeyValue.FromString(kv.SerializeToString())


@dataclass
class Model:
    states: list[State] = field(default_factory=lambda: [{}, {}])
    """By revision; a fresh store is at 1."""
    events: list[list[tuple[bytes, KeyValue | None, KeyValue | None]]] = field(
        default_factory=lambda: [[], []]
    )
    """By revision: key, what it became, what it was before the revision."""
    compacted: int = -1
    leases: set[int] = field(default_factory=set)
    _writing: State | None = None
    _changes: list[tuple[bytes, KeyValue | None]] = field(default_factory=list)

    @property
    def revision(self) -> int:
        return len(self.states) - 1

    def now(self) -> State:
        return self.states[-1] if self._writing is None else self._writing

    def seen(self) -> int:
        return self.revision + bool(self._changes)

    def begin(self) -> None:
        self._writing = dict(self.states[-1])
        self._changes = []

    def end(self) -> None:
        if self._changes:
            assert self._writing is not None
            before = self.states[-1]
            self.events.append([(key, kv, before.get(key)) for key, kv in self._changes])
            self.states.append(self._writing)
        self._writing = None
        self._changes = []

    def check_put(self, request: PutRequest) -> None:
        if (request.ignore_value or request.ignore_lease) and request.key not in self.states[-1]:
            raise Refusal("key not found")
        if request.lease and request.lease not in self.leases:
            raise Refusal("requested lease not found")

    def put(self, request: PutRequest) -> PutResponse:
        assert self._writing is not None
        old = self._writing.get(request.key)
        new = KeyValue(key=request.key, version=1, create_revision=self.revision + 1)
        if old is not None:
            new.version = old.version + 1
            new.create_revision = old.create_revision
        new.mod_revision = self.revision + 1
        new.value = old.value if request.ignore_value and old is not None else request.value
        new.lease = old.lease if request.ignore_lease and old is not None else request.lease
        self._writing[request.key] = new
        self._changes.append((request.key, new))
        response = PutResponse(prev_kv=old if request.prev_kv else None)
        response.header.revision = self.seen()
        return response

    def delete_range(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        assert self._writing is not None
        response = DeleteRangeResponse()
        for key in selected(self._writing, request.key, request.range_end):
            old = self._writing.pop(key)
            self._changes.append((key, None))
            response.deleted += 1
            if request.prev_kv:
                response.prev_kvs.append(old)
        response.header.revision = self.seen()
        return response

    def compact(self, revision: int) -> None:
        if revision <= self.compacted:
            raise Refusal("mvcc: required revision has been compacted")
        if revision > self.revision:
            raise Refusal("mvcc: required revision is a future revision")
        self.compacted = revision

    def range(self, request: RangeRequest) -> RangeResponse:
        if request.revision > self.seen():
            raise Refusal("mvcc: required revision is a future revision")
        if 0 < request.revision < self.compacted:
            raise Refusal("mvcc: required revision has been compacted")
        past = 0 < request.revision <= self.revision
        state = self.states[request.revision] if past else self.now()
        kvs = [copy(state[key]) for key in selected(state, request.key, request.range_end)]
        response = RangeResponse(count=len(kvs))
        response.header.revision = self.seen()
        if request.count_only:
            return response
        limits = (
            request.min_mod_revision, request.max_mod_revision,
            request.min_create_revision, request.max_create_revision,
        )  # fmt: skip
        quirk = request.sort_order == RangeRequest.NONE and request.limit > 0 and not any(limits)
        if quirk and request.sort_target != RangeRequest.KEY:
            kvs = kvs[: request.limit + 1]
        infinity = 1 << 62
        kvs = [kv for kv in kvs if limits[0] <= kv.mod_revision <= (limits[1] or infinity)]
        kvs = [kv for kv in kvs if limits[2] <= kv.create_revision <= (limits[3] or infinity)]
        name = {0: "key", 1: "version", 2: "create_revision", 3: "mod_revision", 4: "value"}[
            request.sort_target
        ]
        kvs.sort(key=lambda kv: getattr(kv, name), reverse=request.sort_order == RangeRequest.DESCEND)
        if 0 < request.limit < len(kvs):
            response.more = True
            kvs = kvs[: request.limit]
        if request.keys_only:
            for kv in kvs:
                kv.ClearField("value")
        response.kvs.extend(kvs)
        return response

    def holds(self, compare: Compare) -> bool:
        state = self.states[-1]
        name = {0: "version", 1: "create_revision", 2: "mod_revision", 3: "value", 4: "lease"}[compare.target]
        default: bytes | int = b"" if name == "value" else 0
        given = getattr(compare, name) if compare.WhichOneof("target_union") == name else default
        keys = selected(state, compare.key, compare.range_end)
        if not keys and name == "value":
            return False
        actual = [getattr(state[key], name) for key in keys] or [0]
        tests = {
            Compare.EQUAL: lambda value: value == given,
            Compare.NOT_EQUAL: lambda value: value != given,
            Compare.GREATER: lambda value: value > given,
            Compare.LESS: lambda value: value < given,
        }
        return all(tests[compare.result](value) for value in actual)

    def txn(self, request: TxnRequest) -> TxnResponse:
        self.check_txn(request)
        self.begin()
        response = self._execute(request)
        response.header.revision = self.seen()
        self.end()
        return response

    def check_txn(self, request: TxnRequest) -> None:
        gone: set[bytes] = set()
        for op in self.chosen(request):
            put = op.request_put
            if op.HasField("request_put"):
                self.check_put(put)
                if put.key in gone and (put.ignore_value or put.ignore_lease):
                    raise Refusal("key not found")
            elif op.HasField("request_delete_range"):
                delete = op.request_delete_range
                gone |= set(selected(self.states[-1], delete.key, delete.range_end))
            revision = op.request_range.revision
            if revision > self.revision:
                raise Refusal("mvcc: required revision is a future revision")
            if revision != 0 and revision < self.compacted:
                raise Refusal("mvcc: required revision has been compacted")

    def chosen(self, request: TxnRequest) -> list[RequestOp]:
        found = []
        for op in request.success if all(map(self.holds, request.compare)) else request.failure:
            found += self.chosen(op.request_txn) if op.HasField("request_txn") else [op]
        return found

    def _execute(self, request: TxnRequest) -> TxnResponse:
        succeeded = all(map(self.holds, request.compare))
        response = TxnResponse(succeeded=succeeded)
        response.header.SetInParent()
        for op in request.success if succeeded else request.failure:
            if op.HasField("request_put"):
                answer = ResponseOp(response_put=self.put(op.request_put))
            elif op.HasField("request_delete_range"):
                answer = ResponseOp(response_delete_range=self.delete_range(op.request_delete_range))
            elif op.HasField("request_range"):
                answer = ResponseOp(response_range=self.range(op.request_range))
            else:
                answer = ResponseOp(response_txn=self._execute(op.request_txn))
            response.responses.append(answer)
        return response
