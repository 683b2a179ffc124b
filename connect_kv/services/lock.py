"""connect_kv.v1.Lock and v3lockpb.Lock."""

from __future__ import annotations

from connect_kv.kv import validation
from connect_kv.rpc import lock_pb2
from connect_kv.rpc.kv_pb2 import DeleteRangeRequest
from connect_kv.services.access import Access, as_unknown
from connect_kv.services.caller import Caller
from connect_kv.services.executor import CommandExecutor, field_number
from connect_kv.services.lock_queue import LockQueue
from connect_kv.services.streams import Streams

_DELETE_RANGE = field_number("delete_range")


class LockService:
    """One holder at a time, in the order of asking."""

    def __init__(
        self, executor: CommandExecutor, lock_queue: LockQueue, streams: Streams, access: Access
    ) -> None:
        self._executor = executor
        self._access = access
        self._lock_queue = lock_queue
        self._streams = streams

    async def Lock(self, request: lock_pb2.LockRequest, caller: Caller) -> lock_pb2.LockResponse:
        """Wait for the lock. `key` is deleted by Unlock, or with the lease.

        Its create revision is the number to fence off earlier holders with. Asking again with the same
        lease gives the same place. The key's value is the note.
        """
        scope = self._streams.scope(needs_leader=caller.needs_leader)
        place = await self._lock_queue.win(caller, request.name, request.lease, request.note or None, scope)
        return lock_pb2.LockResponse(header=self._executor.header(place.first_at), key=place.key)

    async def Unlock(self, request: lock_pb2.UnlockRequest, caller: Caller) -> lock_pb2.UnlockResponse:
        """Give it back; one that is gone already is no error."""
        delete = DeleteRangeRequest(key=request.key)
        validation.check_delete_range(delete)
        with as_unknown():
            by = self._access.delete_range(caller, delete)
        result = await self._executor.execute(_DELETE_RANGE, delete.SerializeToString(), by)
        response = lock_pb2.UnlockResponse(header=result.delete_range.header)
        self._executor.fill(response.header)
        return response
