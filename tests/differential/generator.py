"""Seeded random requests over a few keys, with every option and every error case."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf.message import Message

from connect_kv.rpc import election_pb2 as election
from connect_kv.rpc import kv_pb2 as kv
from connect_kv.rpc import lease_pb2 as lease
from connect_kv.rpc import lock_pb2 as lock
from connect_kv.rpc import watch_pb2 as watch

KEYS = [b"a", b"a/1", b"a/2", b"ab", b"b", b"b\x00", b"b\xff", b"c", b"\x01", b"\xff", b"\xff\xff"]
ENDS = [*KEYS, b"\x00", b"d", b"a0", b"bz"]
VALUES = [b"", b"1", b"2", b"10", b"\x00", b"\xff" * 20]
LEASES = [1, 2, 3, 7, 999, -5]
TARGETS = kv.RangeRequest.SortTarget.values()
RESULTS = kv.Compare.CompareResult.values()
COMPARED = kv.Compare.CompareTarget.values()
UNKNOWN_RESULT: Any = 9
"""Not a number of the enum."""
BRIEF_LEASE = 77
REQUEST_LIMIT = 1_572_864
"""Bytes of one request that is to be replicated."""
LONG = 100_000
"""TTL of leases that must not expire during a run, seconds."""


class Generator:
    """Makes one request after another; told the store's revision by what is answered."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.revision = 1
        self.compacted = 0
        self.leading: dict[int, election.LeaderKey] = {}
        """By lease, the last candidacy that was answered."""

    def request(self) -> Message:
        kinds: Sequence[tuple[Any, int]] = [
            (self.put, 30), (self.range, 30), (self.delete, 10), (self.txn, 18), (self.compact, 1),
            (self.grant, 3), (self.revoke, 1), (self.time_to_live, 3), (self.leases, 1), (self.contest, 3),
        ]  # fmt: skip
        made = self.rng.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]()
        assert isinstance(made, Message)
        return made

    def key(self) -> bytes:
        return b"" if self.rng.random() < 0.01 else self.rng.choice(KEYS)

    def span(self) -> tuple[bytes, bytes]:
        """(key, range_end), of all forms: one key, prefix, everything from, empty, the wrong way round."""
        if self.rng.random() < 0.35:
            return self.key(), b""
        if self.rng.random() < 0.1:
            return b"\x00", b"\x00"
        return self.key(), self.rng.choice(ENDS)

    def maybe(self, probability: float) -> bool:
        return self.rng.random() < probability

    def a_revision(self) -> int:
        """0 mostly; else around what exists, what is compacted, and what is not there yet."""
        choice = self.rng.random()
        if choice < 0.55:
            return 0
        if choice < 0.9:
            return self.rng.randint(max(1, self.revision - 30), self.revision)
        return self.rng.choice(
            [
                -1,
                1,
                self.compacted,
                self.compacted - 1,
                self.compacted + 1,
                self.revision + 1,
                self.revision + 50,
            ]
        )

    def put(self) -> kv.PutRequest:
        request = kv.PutRequest(key=self.key(), value=self.rng.choice(VALUES), prev_kv=self.maybe(0.3))
        if self.maybe(0.2):
            request.lease = self.rng.choice(LEASES)
        if self.maybe(0.08):
            request.ignore_value = True
            if self.maybe(0.8):
                request.value = b""
        if self.maybe(0.08):
            request.ignore_lease = True
            if self.maybe(0.8):
                request.lease = 0
        return request

    def range(self) -> kv.RangeRequest:
        key, end = self.span()
        request = kv.RangeRequest(
            key=key, range_end=end, revision=self.a_revision(), serializable=self.maybe(0.3),
            keys_only=self.maybe(0.15), count_only=self.maybe(0.1),
        )  # fmt: skip
        if self.maybe(0.4):
            request.sort_order = self.rng.choice([kv.RangeRequest.ASCEND, kv.RangeRequest.DESCEND])
            request.sort_target = self.rng.choice(TARGETS)
        elif self.maybe(0.1):
            request.sort_target = self.rng.choice(TARGETS)
        if self.maybe(0.3):
            request.limit = self.rng.choice([1, 2, 3, 5, 100, -1])
        for field in ("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"):
            if self.maybe(0.07):
                setattr(request, field, self.rng.randint(max(0, self.revision - 40), self.revision + 2))
        return request

    def delete(self) -> kv.DeleteRangeRequest:
        key, end = self.span() if self.maybe(0.4) else (self.key(), b"")
        return kv.DeleteRangeRequest(key=key, range_end=end, prev_kv=self.maybe(0.3))

    def compare(self) -> kv.Compare:
        key, end = (self.key(), b"") if self.maybe(0.7) else self.span()
        compare = kv.Compare(
            key=key, range_end=end, result=self.rng.choice(RESULTS), target=self.rng.choice(COMPARED)
        )
        if self.maybe(0.02):
            compare.result = UNKNOWN_RESULT
        near = self.rng.choice([0, 1, 2, self.revision, self.revision - self.rng.randint(0, 20), -1])
        if self.maybe(0.95):
            match compare.target:
                case kv.Compare.VERSION:
                    compare.version = self.rng.choice([0, 1, 2, 3])
                case kv.Compare.CREATE:
                    compare.create_revision = near
                case kv.Compare.MOD:
                    compare.mod_revision = near
                case kv.Compare.VALUE:
                    compare.value = self.rng.choice(VALUES)
                case _:
                    compare.lease = self.rng.choice([0, *LEASES])
        elif self.maybe(0.5):
            # A value of another kind than the target compares.
            if compare.target == kv.Compare.VALUE:
                compare.version = 1
            else:
                compare.value = b"1"
        return compare

    def operation(self, depth: int) -> kv.RequestOp:
        choice = self.rng.random()
        if choice < 0.4:
            return kv.RequestOp(request_put=self.put())
        if choice < 0.75:
            return kv.RequestOp(request_range=self.range())
        if choice < 0.88 or depth >= 2:
            return kv.RequestOp(request_delete_range=self.delete()) if self.maybe(0.98) else kv.RequestOp()
        return kv.RequestOp(request_txn=self.txn(depth + 1))

    def txn(self, depth: int = 0) -> kv.TxnRequest:
        few = [0, 1, 1, 2, 3]
        request = kv.TxnRequest(
            compare=[self.compare() for _ in range(self.rng.choice(few))],
            success=[self.operation(depth) for _ in range(self.rng.choice(few))],
            failure=[self.operation(depth) for _ in range(self.rng.choice(few))],
        )
        if depth == 0 and deletes_from_key(request):
            keep_nothing(request)
        if self.maybe(0.005):
            request.success.extend(kv.RequestOp(request_range=self.range()) for _ in range(129))
        return request

    def compact(self) -> kv.CompactionRequest:
        revision = self.rng.choice(
            [
                0,
                self.compacted,
                self.revision + 1,
                self.revision,
                -1,
                *range(max(1, self.revision - 40), self.revision),
            ]
        )
        return kv.CompactionRequest(revision=revision, physical=self.maybe(0.5))

    def grant(self) -> lease.LeaseGrantRequest:
        ttl = self.rng.choice([LONG, LONG + 1, LONG * 2, 9_000_000_000, 9_000_000_001])
        return lease.LeaseGrantRequest(ID=self.rng.choice(LEASES), TTL=ttl)

    def brief_grant(self) -> lease.LeaseGrantRequest:
        """One that would soon end by itself: to be revoked at once."""
        id = self.rng.choice([0, 0, BRIEF_LEASE, BRIEF_LEASE, -BRIEF_LEASE])
        return lease.LeaseGrantRequest(ID=id, TTL=self.rng.choice([-(2**40), -1, 0, 1, 2, 3, 5, 60]))

    def large(self) -> Message:
        """Over what may be proposed, by much or by little."""
        size = self.rng.choice(
            [REQUEST_LIMIT, REQUEST_LIMIT + 1, REQUEST_LIMIT + 100_000, REQUEST_LIMIT - 2000]
        )
        put = kv.PutRequest(key=b"large", value=bytes(size))
        if self.maybe(0.5):
            return put
        halves = [kv.PutRequest(key=b"large/%d" % half, value=bytes(size // 2)) for half in range(2)]
        return kv.TxnRequest(success=[kv.RequestOp(request_put=half) for half in halves])

    def revoke(self) -> lease.LeaseRevokeRequest:
        return lease.LeaseRevokeRequest(ID=self.rng.choice([0, *LEASES]))

    def time_to_live(self) -> lease.LeaseTimeToLiveRequest:
        return lease.LeaseTimeToLiveRequest(ID=self.rng.choice([0, *LEASES]), keys=self.maybe(0.6))

    def leases(self) -> lease.LeaseLeasesRequest:
        return lease.LeaseLeasesRequest()

    def contest(self) -> Message:
        """A lock or an election under a name that no other lease uses: nobody has to wait."""
        lease = self.rng.choice(LEASES)
        name = b"name/%d" % lease
        key = b"%s/%x" % (name, lease)
        value = self.rng.choice(VALUES)
        leader = self.leading.get(lease) or election.LeaderKey(name=name, key=key, lease=lease, rev=2)
        if self.maybe(0.1):
            leader = election.LeaderKey(name=name, lease=lease)
        made: Message = self.rng.choice(
            [
                lock.LockRequest(name=name, lease=lease),
                lock.UnlockRequest(key=b"" if self.maybe(0.1) else key),
                *[election.CampaignRequest(name=name, lease=lease, value=value)] * 3,
                election.LeaderRequest(name=name),
                election.ResignRequest(leader=leader),
                election.ProclaimRequest(leader=leader, value=value),
                election.ProclaimRequest(value=value),
            ]
        )
        return made

    def keep_alive(self) -> lease.LeaseKeepAliveRequest:
        return lease.LeaseKeepAliveRequest(ID=self.rng.choice([0, *LEASES]))

    def watch_id(self) -> int:
        """One of few, so that they meet; -1 is no watch's."""
        return int(self.rng.choice([-9, -2, *range(13)]))

    def watch(self) -> watch.WatchRequest:
        """A create or a cancel of one of a few watches."""
        if self.maybe(0.2):
            return watch.WatchRequest(cancel_request=watch.WatchCancelRequest(watch_id=self.watch_id()))
        key, end = (self.key(), b"") if self.maybe(0.4) else self.span()
        create = watch.WatchCreateRequest(
            key=key, range_end=end, prev_kv=self.maybe(0.3), fragment=self.maybe(0.3),
            progress_notify=self.maybe(0.2),
        )  # fmt: skip
        if self.maybe(0.5):
            create.start_revision = self.rng.choice(
                [
                    *(1, self.compacted, self.compacted + 1),
                    *(self.revision, self.revision + 1, self.revision + 5, self.revision + 10_000),
                    self.rng.randint(max(1, self.revision - 30), self.revision),
                ]
            )
        if self.maybe(0.2):
            create.filters.append(watch.WatchCreateRequest.NOPUT)
        if self.maybe(0.2):
            create.filters.append(watch.WatchCreateRequest.NODELETE)
        if self.maybe(0.2):
            create.watch_id = self.watch_id()
        return watch.WatchRequest(create_request=create)


def operations_of(request: kv.TxnRequest) -> Iterator[kv.RequestOp]:
    """Of both branches, and of all that is nested in them."""
    for op in (*request.success, *request.failure):
        yield op
        if op.HasField("request_txn"):
            yield from operations_of(op.request_txn)


def deletes_from_key(request: kv.TxnRequest) -> bool:
    return any(op.request_delete_range.range_end == b"\x00" for op in operations_of(request))


def keep_nothing(request: kv.TxnRequest) -> None:
    """What a put may keep beside such a delete is ours to say (`tests/kv/test_txn.py`)."""
    for op in operations_of(request):
        if op.HasField("request_put"):
            op.request_put.ignore_value = op.request_put.ignore_lease = False
