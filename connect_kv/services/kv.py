"""connect_kv.v1.KV and etcdserverpb.KV."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from connect_kv.kv import txn, validation, wire
from connect_kv.kv.machine import KvMachine
from connect_kv.rpc import kv_pb2
from connect_kv.services.access import Access
from connect_kv.services.asked import Asked, Many
from connect_kv.services.caller import Caller
from connect_kv.services.executor import CommandExecutor, field_number
from connect_kv.services.gets import Gets
from connect_kv.services.quota import Quota
from connect_kv.services.turns import Turns
from connect_kv.services.writes import Writes

_PUT = field_number("put")
_DELETE_RANGE = field_number("delete_range")
_TXN = field_number("txn")
_COMPACT = field_number("compact")


class KvService:
    """Keys, values, transactions: writes through the log, reads behind a read barrier."""

    def __init__(
        self,
        executor: CommandExecutor,
        kv: KvMachine,
        quota: Quota,
        access: Access,
        turns: Turns | None = None,
    ) -> None:
        """In `turns` many are answered that came together."""
        self._executor = executor
        self._access = access
        self._quota = quota
        self._kv = kv
        turns = turns or Turns()
        writes = Writes(executor, turns)
        self.many: Mapping[str, Many] = {
            "Put": writes.method(_PUT, self._prepare_put),
            "DeleteRange": writes.method(_DELETE_RANGE, self._prepare_delete_range),
            "Txn": writes.method(_TXN, self._prepare_txn),
            "Range": Gets(executor, kv, access, turns).many,
        }

    async def Put(self, request: kv_pb2.PutRequest, caller: Caller) -> bytes:
        """Replicate one put. The answer is serialized already, here and below."""
        by = self._put(request, caller)
        await self._quota.admit_put(request)
        return await self._executor.respond(_PUT, request.SerializeToString(), by)

    async def DeleteRange(self, request: kv_pb2.DeleteRangeRequest, caller: Caller) -> bytes:
        """Replicate one delete; what is deleted may be large."""
        by = self._delete_range(request, caller)
        return await self._executor.respond(_DELETE_RANGE, request.SerializeToString(), by)

    async def Txn(self, request: kv_pb2.TxnRequest, caller: Caller) -> bytes:
        """Replicate a transaction; one that only reads is answered behind a read barrier instead."""
        by = self._txn(request, caller)
        if txn.is_read_only(request):
            if not txn.is_serializable(request):
                await self._access.behind(self._executor.barrier, lambda: self._access.txn(caller, request))
            return await self._kv.read_txn(request, self._executor.header(revision=0))
        await self._quota.admit_txn(request)
        return await self._executor.respond(_TXN, request.SerializeToString(), by)

    # Whether they are good, and what is to stand beside them in the log.

    def _put(self, request: kv_pb2.PutRequest, caller: Caller) -> bytes:
        validation.check_put(request)
        return self._access.put(caller, request)

    def _prepare_put(self, one: Asked[kv_pb2.PutRequest]) -> tuple[bytes, bytes] | None:
        if wire.is_plain_put(one.encoded) and not (self._access.enabled or self._quota.close):
            return one.encoded, b""  # nothing in it can be refused
        request = one.request
        by = self._put(request, one.caller)
        return (request.SerializeToString(), by) if self._quota.admits_put(request) else None

    def _delete_range(self, request: kv_pb2.DeleteRangeRequest, caller: Caller) -> bytes:
        validation.check_delete_range(request)
        return self._access.delete_range(caller, request)

    def _prepare_delete_range(self, one: Asked[kv_pb2.DeleteRangeRequest]) -> tuple[bytes, bytes]:
        request = one.request
        by = self._delete_range(request, one.caller)
        return request.SerializeToString(), by

    def _txn(self, request: kv_pb2.TxnRequest, caller: Caller) -> bytes:
        validation.check_txn(request)
        return self._access.txn(caller, request)

    def _prepare_txn(self, one: Asked[kv_pb2.TxnRequest]) -> tuple[bytes, bytes] | None:
        request = one.request
        by = self._txn(request, one.caller)
        if txn.is_read_only(request) or not self._quota.admits_txn(request):
            return None
        return request.SerializeToString(), by

    async def Compact(self, request: kv_pb2.CompactionRequest, caller: Caller) -> kv_pb2.CompactionResponse:
        """Replicate a compaction; with `physical`, wait until this member's disk is cleaned up."""
        by = self._access.root(caller)
        result = await self._executor.execute(_COMPACT, request.SerializeToString(), by)
        if request.physical:
            await self._kv.cleaned(request.revision)
        response = result.compact
        self._executor.fill(response.header)
        return response

    async def Range(self, request: kv_pb2.RangeRequest, caller: Caller) -> bytes:
        """Read keys; linearizable unless the request says otherwise."""
        validation.check_range(request)
        await self._judged(request, caller)
        return await self._kv.range_encoded(request, self._executor.header(revision=0))

    async def _judged(self, request: kv_pb2.RangeRequest, caller: Caller) -> None:
        """Whether the caller may read that, behind a read barrier if there is to be one (`Access.behind`)."""
        access = self._access
        access.range(caller, request)
        if not request.serializable:
            judged = access.generation
            await self._executor.barrier()
            if access.generation != judged:
                access.range(caller, request)

    async def RangeStream(
        self, request: kv_pb2.RangeRequest, caller: Caller
    ) -> AsyncIterator[kv_pb2.RangeStreamResponse]:
        """A range in chunks, all of one pinned revision, for large results."""
        validation.check_range_stream(request)
        await self._judged(request, caller)
        async for chunk in self._kv.range_stream(request):
            if chunk.range_response.HasField("header"):
                self._executor.fill(chunk.range_response.header)
            yield chunk
