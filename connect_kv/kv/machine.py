"""KvMachine: the one dispatch from command to effect, and the reads beside it.

Writes come in through `apply`, on the loop, into the changes of a slice; once the slice is in the
database, `published` makes them known to watchers and timers. Reads take a frozen view of the
database and its own revision from it, so they see whole slices only and need no lock.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

from connect_kv import etcd_errors, protowire
from connect_kv.errors import NodeStopped, Refused, UnknownEntry
from connect_kv.kv import consistency, gets, hashing, scan, txn, wire
from connect_kv.kv.compaction import Cleaner
from connect_kv.kv.layout import Changes, Source, StoreState
from connect_kv.kv.leases import MAXIMUM_TTL, LeaseTable
from connect_kv.kv.moment import Moment
from connect_kv.kv.page_counts import PageCounts
from connect_kv.kv.ranges import RangeRead, check_revision
from connect_kv.kv.read_transactions import ReadTransaction, ReadTransactions
from connect_kv.kv.scan import Walk
from connect_kv.kv.store import MvccStore
from connect_kv.kv.watch import WatchHub
from connect_kv.protowire import MessagePieces, varint
from connect_kv.rpc.command_pb2 import Command, Failure, LeaseExpired, LeaseRenewed, Result
from connect_kv.rpc.kv_pb2 import (
    CompactionRequest,
    CompactionResponse,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RangeStreamResponse,
    ResponseHeader,
    TxnRequest,
)
from connect_kv.rpc.lease_pb2 import LeaseGrantResponse, LeaseRevokeResponse
from connect_kv.storage.engine import Reader

R = TypeVar("R")

_ENDED = object()
_NUMBER = bytes((Result.NUMBER_FIELD_NUMBER << 3,))
"""The tag of a result's number."""

STREAM_CHUNK_BYTES = 512 << 10
"""A message of a RangeStream holds about so much."""


class KvMachine:
    """Keys, values and leases. Headers of its answers hold the revision only."""

    REQUESTS = frozenset(
        {
            "put",
            "delete_range",
            "txn",
            "compact",
            "lease_grant",
            "lease_revoke",
            "lease_renew",
            "lease_expire",
        }
    )
    """The kinds of Command that `apply` takes."""

    def __init__(self) -> None:
        self.leases = LeaseTable()
        self._transactions = ReadTransactions()
        self._counts = PageCounts()
        self.hub = WatchHub(self._transactions)
        self.no_space = False
        """The NOSPACE alarm is on, as replicated: requests that need space are refused."""
        self.corrupt = False
        """The CORRUPT alarm is on: requests that change anything are refused."""
        self._store = MvccStore(self.leases, self.hub)
        self.ranges = self.txns = self.expired_leases = 0
        """Since this process started: answered here, or applied."""
        self._cleaner = Cleaner()
        self._visible = StoreState()
        self._clean_to = -1
        """The revision up to which old history is gone, also in the database."""
        self._cleaned: list[tuple[int, asyncio.Future[None]]] = []
        self._put_results = wire.PutResults()
        self._appliers: dict[str, Callable[[Command, int, Moment, Changes], Result]] = {
            "put": self._put,
            "compact": self._compact,
            "lease_grant": self._lease_grant,
        }
        self._walks: dict[str, Callable[[Command, int, Moment, Changes], Walk[MessagePieces]]] = {
            "delete_range": self._delete_range,
            "txn": self._txn,
            "lease_revoke": self._lease_revoke,
            "lease_expire": self._lease_expire,
            "lease_renew": self._lease_renew,
        }
        """Those that may touch any number of keys or leases: an encoded Result without its number."""

    def load(self, source: Source, at: Moment) -> None:
        """Continue from that database, whose last entry was applied at that moment; at start, or after a
        snapshot was installed.

        Reads under way on another one are ended with NodeStopped, watches go on from its history.
        Afterwards the former database may be closed.
        """
        self._transactions.load(source)
        self._counts.clear()
        with self._transactions.open() as transaction:
            self._visible = transaction.state
            self._store.load(transaction.state)
            self.leases.load(transaction.view, at)
            self._cleaner.load(transaction.view, transaction.state.compacted)
        self.hub.load(self._visible.revision)
        self._tell_cleaned()

    def close(self) -> None:
        """End reads and watches; the database may be closed afterwards."""
        self._transactions.load(None)
        self.hub.close()
        for _, waiter in self._cleaned:
            if not waiter.done():
                waiter.set_exception(NodeStopped("this node is stopping"))
        self._cleaned.clear()

    @property
    def revision(self) -> int:
        """What readers see: the store's revision as of the last published slice."""
        return self._visible.revision

    @property
    def applied_revision(self) -> int:
        """The store's revision after the last command: the one for the results of others, which do not
        depend on where a slice ends.
        """
        return self._store.revision

    @property
    def compact_revision(self) -> int:
        """Reads below it are refused; -1 if nothing was ever compacted."""
        return self._visible.compacted

    @property
    def keys(self) -> int:
        """How many keys there are."""
        return self._visible.live

    @property
    def puts(self) -> int:
        """How many were applied since this process started, those of transactions among them."""
        return self._store.puts

    @property
    def source(self) -> Source | None:
        """The database, as it is now; None while there is none."""
        return self._transactions.source

    @property
    def deletes(self) -> int:
        """Deletions of a key or a range that were applied."""
        return self._store.deletes

    @property
    def open_readings(self) -> int:
        """How many frozen states are in use."""
        return len(self._transactions)

    # Writes.

    def apply(self, command: Command, index: int, at: Moment, overlay: Changes) -> Walk[bytes]:
        """Execute one command of the entry at `index`: its encoded Result; a refusal is one with `failure`.

        Whoever runs it to the end runs nothing else that writes meanwhile. `seal` follows the last one
        of a slice.

        The same on every member: depends on the commands before, `index` and `at` alone.
        """
        kind = command.WhichOneof("request")
        if kind is None or kind not in self.REQUESTS:
            raise UnknownEntry(f"the key/value machine does not know the command {kind!r}")
        refusal = self._alarm_refusal(command, kind)
        number = command.number
        try:
            if refusal is not None:
                result = refusal.result()
            elif kind in self._walks:
                parts = yield from self._walks[kind](command, index, at, overlay)
                return parts.begin_with(_NUMBER + varint(number) if number else b"").joined()
            else:
                result = self._appliers[kind](command, index, at, overlay)
        except Refused as refused:
            result = Result(failure=Failure(code=refused.code, message=refused.message))
        if number:
            result.number = number
        return result.SerializeToString()

    def plain_put(self, request: PutRequest, number: int, overlay: Changes) -> bytes | None:
        """`apply` for most puts: the encoded Result with that number, without building messages.

        None for a put that has options or may be refused: nothing has happened then.
        """
        if request.lease or request.prev_kv or request.ignore_value or request.ignore_lease:
            return None
        if self.no_space or self.corrupt:
            return None
        store = self._store
        store.put(overlay, request.key, request.value, 0)
        return self._put_results.encode(number, store.finish())

    def seal(self, overlay: Changes) -> None:
        """The slice ends: store the numbers that stand beside the keys."""
        self._store.save(overlay)

    def published(self) -> None:
        """The slice applied since the last call is in the database: tell everybody who waits."""
        self._visible = self._store.state
        self._store.range_counts.published(self._visible.revision)
        self.hub.publish(self._visible.revision, self._store.take_changes())
        self.leases.published()
        self._tell_cleaned()

    def _alarm_refusal(self, command: Command, kind: str) -> etcd_errors.Refusal | None:
        if self.corrupt and kind not in ("lease_renew", "lease_expire"):
            return etcd_errors.CORRUPT
        if self.no_space and (kind in ("put", "lease_grant") or (kind == "txn" and _puts(command.txn))):
            return etcd_errors.NO_SPACE
        return None

    def _put(self, command: Command, index: int, at: Moment, overlay: Changes) -> Result:
        request: PutRequest = command.put
        lease = request.lease
        if lease and self.leases.get(lease) is None:
            return etcd_errors.LEASE_NOT_FOUND.result()
        store = self._store
        if request.ignore_value or request.ignore_lease:
            if store.get(overlay, request.key) is None:
                return etcd_errors.KEY_NOT_FOUND.result()
            result = Result(put=txn.put(store, overlay, request))
        else:
            result = Result()
            old = store.put(overlay, request.key, request.value, lease, previous=request.prev_kv)
            result.put.header.revision = store.writing
            if old is not None and request.prev_kv:
                result.put.prev_kv.ParseFromString(old)
        store.finish()
        return result

    def _delete_range(
        self, command: Command, index: int, at: Moment, overlay: Changes
    ) -> Walk[MessagePieces]:
        response = yield from txn.delete_range(self._store, overlay, command.delete_range)
        self._store.finish()
        return _result(Result.DELETE_RANGE_FIELD_NUMBER, response)

    def _txn(self, command: Command, index: int, at: Moment, overlay: Changes) -> Walk[MessagePieces]:
        self.txns += 1
        branch = yield from txn.choose(overlay, command.txn)
        yield from txn.check(overlay, self._store.state, self.leases, branch)
        response = yield from txn.TxnWrite(self._store, overlay).execute(branch)
        response.begin_with(wire.header(self._store.finish()))
        return _result(Result.TXN_FIELD_NUMBER, response)

    def _compact(self, command: Command, index: int, at: Moment, overlay: Changes) -> Result:
        request: CompactionRequest = command.compact
        store = self._store
        if request.revision <= store.compacted:
            return etcd_errors.COMPACTED.result()
        if request.revision > store.revision:
            return etcd_errors.FUTURE_REVISION.result()
        store.compacted = request.revision
        self._cleaner.compact(request.revision)
        header = ResponseHeader(revision=store.finish())
        return Result(compact=CompactionResponse(header=header))

    def _lease_grant(self, command: Command, index: int, at: Moment, overlay: Changes) -> Result:
        request = command.lease_grant
        if request.TTL > MAXIMUM_TTL:
            return etcd_errors.LEASE_TTL_TOO_LARGE.result()
        lease = request.ID or self.leases.choose_id(index, at)
        if self.leases.get(lease) is not None:
            return etcd_errors.LEASE_EXISTS.result()
        ttl = self.leases.grant(overlay, lease, request.TTL, index, at.now)
        header = ResponseHeader(revision=self._store.finish())
        return Result(lease_grant=LeaseGrantResponse(header=header, ID=lease, TTL=ttl))

    def _lease_revoke(
        self, command: Command, index: int, at: Moment, overlay: Changes
    ) -> Walk[MessagePieces]:
        lease = command.lease_revoke.ID
        if self.leases.get(lease) is None:
            raise etcd_errors.LEASE_NOT_FOUND.error()
        header = ResponseHeader(revision=(yield from self._end_lease(lease, overlay)))
        return MessagePieces(Result(lease_revoke=LeaseRevokeResponse(header=header)).SerializeToString())

    def _lease_renew(self, command: Command, index: int, at: Moment, overlay: Changes) -> Walk[MessagePieces]:
        ttls = []
        for number, lease in enumerate(command.lease_renew.ids, 1):
            ttls.append(self.leases.renew(overlay, lease, index, at.now))
            if not number % scan.SLICE_WRITES:
                yield
        self._store.finish()
        return MessagePieces(Result(lease_renew=LeaseRenewed(ttls=ttls)).SerializeToString())

    def _lease_expire(
        self, command: Command, index: int, at: Moment, overlay: Changes
    ) -> Walk[MessagePieces]:
        ended = []
        for item in command.lease_expire.items:
            if self.leases.outlived(item.id, item.renewal):
                yield from self._end_lease(item.id, overlay)
                ended.append(item.id)
                self.expired_leases += 1
                yield
        return MessagePieces(Result(lease_expire=LeaseExpired(ids=ended)).SerializeToString())

    def _end_lease(self, lease: int, overlay: Changes) -> Walk[int]:
        """Delete its keys in one revision, in key order, and then the lease itself."""
        keys = yield from self.leases.keys(overlay, lease)
        for number, key in enumerate(keys, 1):
            self._store.delete(overlay, key)
            if not number % scan.SLICE_WRITES:
                yield
        self.leases.remove(overlay, lease)
        return self._store.finish()

    # Cleanup after compactions.

    @property
    def cleanup_pending(self) -> bool:
        """Whether `cleanup` has something to do."""
        return self._cleaner.pending

    @property
    def cleaned_changes(self) -> int:
        """Changes of keys that cleanups have removed since this process started."""
        return self._cleaner.removed

    def cleanup(self, overlay: Changes) -> None:
        """Remove a little of what compactions have made superfluous (about two milliseconds).

        Called between slices while `cleanup_pending`; the overlay is written like that of a slice
        that applied nothing, and `published` follows.
        """
        if self._cleaner.pending:
            self._cleaner.step(self._store, overlay)

    def take_emptied(self) -> tuple[bytes, bytes] | None:
        """Once after each finished cleanup: the range in which ``Engine.compact_range`` will find space.

        That may take long and belongs on a thread of its own; None when there is nothing to gain.
        """
        return self._cleaner.take_emptied()

    async def cleaned(self, compacted: int) -> None:
        """Wait until nothing below that compacted revision is left on this member's disk.

        Raises NodeStopped.
        """
        if self._clean_to < compacted:
            waiter = asyncio.get_running_loop().create_future()
            self._cleaned.append((compacted, waiter))
            await waiter

    def _tell_cleaned(self) -> None:
        self._clean_to = self._cleaner.clean_to
        waiting = []
        for compacted, waiter in self._cleaned:
            if self._clean_to < compacted:
                waiting.append((compacted, waiter))
            elif not waiter.done():
                waiter.set_result(None)
        self._cleaned = waiting

    # Reads: of this member's state, as far as it has been written.

    async def range(self, request: RangeRequest) -> RangeResponse:
        """Answer a Range. Raises Refused, NodeStopped."""
        response = RangeResponse()
        with self._transactions.open() as transaction:
            read = self._read(transaction, request)
            for _ in transaction.steps(read.run()):
                response.MergeFromString(read.take())
                await asyncio.sleep(0)
        response.MergeFromString(read.take())
        response.MergeFrom(read.tail())
        return response

    async def range_encoded(self, request: RangeRequest, header: ResponseHeader) -> bytes:
        """The answer to a range with that header, already serialized: a large one exists in memory once."""
        encoded = io.BytesIO()
        with self._transactions.open() as transaction:
            if gets.is_plain(request):
                self.ranges += 1
                return next(gets.answers(transaction, (request.key,), header))
            read = self._read(transaction, request)
            for _ in transaction.steps(read.run()):
                encoded.write(read.take())
                await asyncio.sleep(0)
        encoded.write(read.take())
        tail = read.tail()
        tail.header.MergeFrom(header)
        encoded.write(tail.SerializeToString())
        return encoded.getvalue()

    def gets(
        self, keys: Sequence[bytes], header: ResponseHeader | None = None, *, most: int | None = None
    ) -> list[bytes]:
        """The answer to a plain get of each key (`gets.is_plain`), all of one state, encoded, with these
        fields in its header. After `most` bytes it ends: then these are the answers to the first keys.

        Raises NodeStopped. For at most a few hundred keys: it does not pause.
        """
        with self._transactions.open() as transaction:
            answers = list(gets.answers(transaction, keys, header, most))
        self.ranges += len(answers)
        return answers

    async def range_stream(self, request: RangeRequest) -> AsyncIterator[RangeStreamResponse]:
        """Answer a Range in pieces, all of one revision; only the last has header, count and more.

        Each takes at most STREAM_CHUNK_BYTES, unless a single key-value is larger.
        """
        kvs: list[bytes] = []
        size = 0
        with self._transactions.open() as transaction:
            read = self._read(transaction, request)
            walk = transaction.steps(read.run())
            ended = False
            while not ended:
                ended = next(walk, _ENDED) is _ENDED
                for part in read.parts():
                    if kvs and size + len(part) > STREAM_CHUNK_BYTES:
                        yield _chunk(kvs)
                        kvs, size = [], 0
                    kvs.append(part)
                    size += len(part)
                await asyncio.sleep(0)
        last = _chunk(kvs)
        last.range_response.MergeFrom(read.tail())
        yield last

    async def read_txn(self, request: TxnRequest, header: ResponseHeader | None = None) -> bytes:
        """The encoded TxnResponse to one for which `txn.is_read_only` holds, with these fields in its header.

        A large one exists in memory once. Raises Refused, NodeStopped.
        """
        self.txns += 1
        answers: list[MessagePieces] = []
        with self._transactions.open() as transaction:
            full = ResponseHeader(revision=transaction.state.revision)
            if header is not None:
                full.MergeFrom(header)
            walk = txn.read_only(
                transaction.view, transaction.state, self.leases, request, self._store.range_counts
            )
            for _ in transaction.steps(_kept(walk, answers)):
                await asyncio.sleep(0)
        encoded = io.BytesIO(protowire.field(wire.HEADER, full.SerializeToString()))
        encoded.seek(0, io.SEEK_END)
        for piece in answers.pop().taken():
            encoded.write(piece)
        return encoded.getvalue()

    async def hash_kv(self, revision: int) -> tuple[int, int, int]:
        """(hash, compacted, revision) of what etcd's HashKV covers up to `revision`; 0 or less: the last.

        The number that an etcd with the same history answers. Waits until this member has cleaned up after
        the last compaction. Raises Refused, NodeStopped.
        """
        return await self._hash(revision, hashing.etcd_history)

    async def hash_history(self, revision: int) -> tuple[int, int, int]:
        """The same of every change that is kept, byte for byte: what members compare with each other.

        Members of every version so far compute it alike.
        """
        return await self._hash(revision, lambda view, last, _: hashing.history(view, last))

    async def _hash(
        self, revision: int, walk: Callable[[Reader, int, int], Walk[int]]
    ) -> tuple[int, int, int]:
        while True:
            compacted = self._visible.compacted
            await self.cleaned(compacted)
            with self._transactions.open() as transaction:
                if transaction.state.compacted == compacted:
                    check_revision(revision, transaction.state)
                    last = revision if revision > 0 else transaction.state.revision
                    hashes: list[int] = []
                    for _ in transaction.steps(_kept(walk(transaction.view, last, compacted), hashes)):
                        await asyncio.sleep(0)
                    return hashes[0], compacted, revision or last
            # The next compaction is written and not published yet: let that happen.
            await asyncio.sleep(0)

    async def difference(self) -> str | None:
        """What of this member's state does not follow from its history, or None. Raises NodeStopped."""
        with self._transactions.open() as transaction:
            found: list[str | None] = []
            for _ in transaction.steps(
                _kept(consistency.difference(transaction.view, transaction.state), found)
            ):
                await asyncio.sleep(0)
            return found[0]

    async def lease_keys(self, lease: int) -> list[bytes]:
        """The keys attached to a lease, in order."""
        found: list[list[bytes]] = []
        with self._transactions.open() as transaction:
            for _ in transaction.steps(_kept(self.leases.keys(transaction.view, lease), found)):
                await asyncio.sleep(0)
        return found[0]

    def _read(self, transaction: ReadTransaction, request: RangeRequest) -> RangeRead:
        check_revision(request.revision, transaction.state)
        self.ranges += 1
        return RangeRead(transaction.view, transaction.state, request, self._store.range_counts, self._counts)


def _kept(walk: Walk[R], results: list[R]) -> Walk[None]:
    """The walk, with its result put into a list."""
    results.append((yield from walk))


def _chunk(kvs: list[bytes]) -> RangeStreamResponse:
    """Of key-values that are encoded as a RangeResponse holds them."""
    return RangeStreamResponse(range_response=RangeResponse.FromString(b"".join(kvs)))


def _result(number: int, response: MessagePieces) -> MessagePieces:
    """A Result, without its number, that holds this response in that field."""
    result = MessagePieces()
    result.add_field(varint(number << 3 | 2), response)
    return result


def _puts(request: TxnRequest) -> bool:
    """Whether a branch, nested ones included, may put something."""
    return any(
        op.HasField("request_put") or (op.HasField("request_txn") and _puts(op.request_txn))
        for branch in (request.success, request.failure)
        for op in branch
    )
