"""connect_kv.v1.Maintenance and etcdserverpb.Maintenance."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

from connect_kv.backup.running import backup
from connect_kv.errors import NotLeader, Unavailable
from connect_kv.etcd_errors import Code, Refusal
from connect_kv.interfaces import Clock
from connect_kv.kv import validation
from connect_kv.kv.machine import KvMachine
from connect_kv.metrics import Metrics
from connect_kv.node.node import RaftNode
from connect_kv.rpc import maintenance_pb2
from connect_kv.services.access import Access
from connect_kv.services.caller import Caller
from connect_kv.services.executor import CommandExecutor, field_number
from connect_kv.services.peer_calls import PeerCalls
from connect_kv.statemachine.host import MachineHost

ETCD_VERSION = "3.6.0"
"""What etcd clients are told: they switch features on it."""

BAD_TRANSFEREE = Refusal(Code.FAILED_PRECONDITION, "etcdserver: bad leader transferee")
TRANSFER_TOO_LONG = Refusal(Code.UNKNOWN, "etcdserver: request timed out, leader transfer took too long")

_ALARM = field_number("alarm")


class MaintenanceService:
    """What an operator asks of one member. Downgrade answers UNIMPLEMENTED by name."""

    def __init__(
        self,
        executor: CommandExecutor,
        status: Callable[[], maintenance_pb2.StatusResponse],
        *,
        node: RaftNode[bytes],
        host: MachineHost,
        kv: KvMachine,
        clock: Clock,
        peers: PeerCalls,
        metrics: Metrics,
        access: Access,
    ) -> None:
        self._hashing = metrics.durations("etcd_mvcc_hash_duration_seconds", "Hash, answered here.")
        self._hashing_keys = metrics.durations("etcd_mvcc_hash_rev_duration_seconds", "HashKV, for anybody.")
        self._saving = metrics.durations("etcd_disk_backend_snapshot_duration_seconds", "Backups sent.")
        self._defragmenting = metrics.durations("etcd_disk_backend_defrag_duration_seconds", "Defragment.")
        self._defragmentations = 0
        metrics.gauge(
            "etcd_disk_defrag_inflight", "Defragmentations under way.", lambda: self._defragmentations
        )
        self._executor = executor
        self._access = access
        self._status = status
        self._node = node
        self._host = host
        self._kv = kv
        self._clock = clock
        peers.serve("HashKV", self._hash_for_peer)

    async def Alarm(
        self, request: maintenance_pb2.AlarmRequest, caller: Caller
    ) -> maintenance_pb2.AlarmResponse:
        """List alarms, or raise or end one; listing needs no entry of the log."""
        validation.check_alarm(request)
        if request.action == maintenance_pb2.AlarmRequest.GET:
            await self._access.behind(self._executor.barrier, lambda: self._access.known(caller))
            response = maintenance_pb2.AlarmResponse(alarms=self._host.cluster.alarms(request.alarm))
        else:
            by = self._access.root(caller)
            response = (await self._executor.execute(_ALARM, request.SerializeToString(), by)).alarm
        response.header.CopyFrom(self._executor.header())
        return response

    async def Status(
        self, request: maintenance_pb2.StatusRequest, caller: Caller
    ) -> maintenance_pb2.StatusResponse:
        """This member's state; needs no leader."""
        self._access.known(caller)
        status = self._status()
        status.header.CopyFrom(self._executor.header())
        if not status.leader:
            status.errors.insert(0, "etcdserver: no leader")
        return status

    async def HashKV(
        self, request: maintenance_pb2.HashKVRequest, caller: Caller
    ) -> maintenance_pb2.HashKVResponse:
        """Of the keys and their history: equal on all members that have compacted up to the same revision,
        and on an etcd that holds the same.
        """
        self._access.root(caller)
        response = await self._hashed(request.revision, self._kv.hash_kv)
        self._executor.fill(response.header)
        return response

    async def hash_for_members(self, revision: int) -> maintenance_pb2.HashKVResponse:
        """Of the same byte for byte, as members of every version compute it; without ids."""
        return await self._hashed(revision, self._kv.hash_history)

    async def _hashed(
        self, revision: int, of: Callable[[int], Awaitable[tuple[int, int, int]]]
    ) -> maintenance_pb2.HashKVResponse:
        with self._hashing_keys.time():
            checksum, compacted, last = await of(revision)
        response = maintenance_pb2.HashKVResponse(
            hash=checksum, compact_revision=compacted, hash_revision=last
        )
        response.header.revision = self._kv.revision
        return response

    async def Hash(
        self, request: maintenance_pb2.HashRequest, caller: Caller
    ) -> maintenance_pb2.HashResponse:
        """Of everything replicated: equal on all members that have applied the same."""
        self._access.root(caller)
        with self._hashing.time():
            checksum, revision = await self._host.hash()
        return maintenance_pb2.HashResponse(header=self._executor.header(revision), hash=checksum)

    async def Defragment(
        self, request: maintenance_pb2.DefragmentRequest, caller: Caller
    ) -> maintenance_pb2.DefragmentResponse:
        """Give back this member's unneeded disk space; it serves meanwhile, unlike etcd."""
        self._access.root(caller)
        self._defragmentations += 1
        try:
            with self._defragmenting.time():
                await self._host.defragment()
        finally:
            self._defragmentations -= 1
        return maintenance_pb2.DefragmentResponse()

    async def Downgrade(
        self, request: maintenance_pb2.DowngradeRequest, caller: Caller
    ) -> maintenance_pb2.DowngradeResponse:
        """There is one storage version: for who may ask, not implemented."""
        self._access.root(caller)
        raise NotImplementedError(
            "connect-kv: etcdserverpb.Maintenance/Downgrade is not implemented, nor is "
            "connect_kv.v1.Maintenance/Downgrade"
        )

    async def MoveLeader(
        self, request: maintenance_pb2.MoveLeaderRequest, caller: Caller
    ) -> maintenance_pb2.MoveLeaderResponse:
        """Hand leadership to another voter; returns once that leads."""
        self._access.root(caller)
        if not self._node.is_leader:
            raise NotLeader(self._node.leader_id)
        if request.targetID not in self._node.membership.voters:
            raise BAD_TRANSFEREE.error()
        try:
            await self._node.transfer_leadership(request.targetID)
        except Unavailable:
            raise TRANSFER_TOO_LONG.error() from None
        return maintenance_pb2.MoveLeaderResponse()

    async def Snapshot(
        self, request: maintenance_pb2.SnapshotRequest, caller: Caller
    ) -> AsyncIterator[maintenance_pb2.SnapshotResponse]:
        """A backup of everything, in the frame that clients of etcd check; see `connect-kv snapshot`."""
        self._access.root(caller)
        with self._saving.time():
            async with aclosing(backup(self._host, self._node.identity, self._clock)) as blobs:
                async for blob in blobs:
                    yield maintenance_pb2.SnapshotResponse(
                        remaining_bytes=blob.remaining, blob=blob.data, version=ETCD_VERSION
                    )

    async def _hash_for_peer(self, request: bytes) -> bytes:
        """The hash that the leader asks for, to compare: up to the revision where it stands itself."""
        await self._executor.barrier()
        wanted = maintenance_pb2.HashKVRequest.FromString(request)
        return (await self.hash_for_members(wanted.revision)).SerializeToString()
