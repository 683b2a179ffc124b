"""connect_kv.v1.Lock and v3lockpb.Lock."""

from __future__ import annotations

from connect_kv.kv import validation
from connect_kv.rpc import lock_pb2
from connect_kv.rpc.kv_pb2 import DeleteRangeRequest
from connect_kv.services.access import Access, as_unknown
from connect_kv.services.caller import Caller
from connect_kv.services.executor import Replica, field_number
from connect_kv.services.lock_queue import Contests
from connect_kv.services.streams import Streams

_DELETE_RANGE = field_number("delete_range")


class LockService:
    """One holder at a time, in the order of asking."""

    def __init__(self, replica: Replica, contests: Contests, streams: Streams, access: Access) -> None:
        self._replica = replica
        self._access = access
        self._contests = contests
        self._streams = streams

    async def Lock(self, request: lock_pb2.LockRequest, caller: Caller) -> lock_pb2.LockResponse:
        """Wait for the lock. `key` is deleted by Unlock, or with the lease.

        Its create revision is the number to fence off earlier holders with. Asking again with the same
        lease gives the same place. The key's value is the note.
        """
        scope = self._streams.scope(needs_leader=caller.needs_leader)
        place = await self._contests.win(caller, request.name, request.lease, request.note or None, scope)
        return lock_pb2.LockResponse(header=self._replica.header(place.first_at), key=place.key)

    async def Unlock(self, request: lock_pb2.UnlockRequest, caller: Caller) -> lock_pb2.UnlockResponse:
        """Give it back; one that is gone already is no error."""
        delete = DeleteRangeRequest(key=request.key)
        validation.check_delete_range(delete)
        with as_unknown():
            by = self._access.delete_range(caller, delete)
        result = await self._replica.execute(_DELETE_RANGE, delete.SerializeToString(), by)
        response = lock_pb2.UnlockResponse(header=result.delete_range.header)
        self._replica.fill(response.header)
        return response
