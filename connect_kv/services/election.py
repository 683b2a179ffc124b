"""connect_kv.v1.Election and v3electionpb.Election."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from connect_kv.errors import Refused
from connect_kv.etcd_errors import Code, Refusal
from connect_kv.kv.machine import KvMachine
from connect_kv.kv.watch_stream import WatchStream
from connect_kv.rpc import election_pb2
from connect_kv.rpc.kv_pb2 import Event, KeyValue, RangeRequest
from connect_kv.rpc.watch_pb2 import WatchCreateRequest, WatchRequest
from connect_kv.services.access import Access, as_unknown
from connect_kv.services.caller import Caller
from connect_kv.services.executor import CommandExecutor
from connect_kv.services.lock_queue import LockQueue
from connect_kv.services.streams import Streams

NO_LEADER = Refusal(Code.UNKNOWN, "election: no leader")
NOT_LEADER = Refusal(Code.UNKNOWN, "election: not leader")
NO_LEADER_GIVEN = Refusal(Code.UNKNOWN, '"leader" field must be provided')


class ElectionService:
    """One leader at a time under each name, who has said something."""

    def __init__(
        self,
        executor: CommandExecutor,
        kv: KvMachine,
        lock_queue: LockQueue,
        streams: Streams,
        access: Access,
    ) -> None:
        self._executor = executor
        self._access = access
        self._kv = kv
        self._lock_queue = lock_queue
        self._streams = streams

    async def Campaign(
        self, request: election_pb2.CampaignRequest, caller: Caller
    ) -> election_pb2.CampaignResponse:
        """Wait until this candidate leads. The header's revision is that at which it became a candidate."""
        scope = self._streams.scope(needs_leader=caller.needs_leader)
        place = await self._lock_queue.win(caller, request.name, request.lease, request.value, scope)
        leader = election_pb2.LeaderKey(
            name=request.name, key=place.key, rev=place.revision, lease=place.lease
        )
        return election_pb2.CampaignResponse(header=self._executor.header(place.entered), leader=leader)

    async def Proclaim(
        self, request: election_pb2.ProclaimRequest, caller: Caller
    ) -> election_pb2.ProclaimResponse:
        """The leader says something else."""
        if not request.HasField("leader"):
            raise NO_LEADER_GIVEN.error()
        leader = request.leader
        replaced = await self._lock_queue.replace(caller, leader.key, leader.rev, leader.lease, request.value)
        if not replaced.succeeded:
            raise NOT_LEADER.error()
        return election_pb2.ProclaimResponse(header=self._executor.header(replaced.header.revision))

    async def Leader(
        self, request: election_pb2.LeaderRequest, caller: Caller
    ) -> election_pb2.LeaderResponse:
        """Who leads now."""
        with as_unknown():
            await self._access.behind(
                self._executor.barrier,
                lambda: self._access.queue(caller, request.name + b"/", request.name + b"0"),
            )
        leader, revision = await self._lock_queue.first(request.name)
        if leader is None:
            raise NO_LEADER.error()
        return election_pb2.LeaderResponse(header=self._executor.header(revision), kv=leader)

    async def Resign(
        self, request: election_pb2.ResignRequest, caller: Caller
    ) -> election_pb2.ResignResponse:
        """Lead no longer; who does not anyway resigns without an error."""
        if not request.HasField("leader"):
            raise NO_LEADER_GIVEN.error()
        deleted = await self._lock_queue.delete(caller, request.leader.key, request.leader.rev)
        return election_pb2.ResignResponse(header=self._executor.header(deleted.header.revision))

    async def Observe(
        self, request: election_pb2.LeaderRequest, caller: Caller
    ) -> AsyncIterator[election_pb2.LeaderResponse]:
        """Who leads now, then every leader after that and everything each of them says, in order.

        Without a right to see them the stream ends without a word, as etcd's; also when the right is lost.
        """
        prefix = request.name + b"/"
        shown: KeyValue | None = None
        while True:
            if not self._may_observe(request, caller):
                return
            await self._executor.barrier()
            candidates, revision = await self._candidates(prefix)
            async with aclosing(self._leaders(prefix, candidates, revision)) as leaders:
                async for leader, at in leaders:
                    if leader != shown:
                        if not self._may_observe(request, caller):
                            return
                        shown = leader
                        yield election_pb2.LeaderResponse(header=self._executor.header(at), kv=leader)

    def _may_observe(self, request: election_pb2.LeaderRequest, caller: Caller) -> bool:
        try:
            self._access.queue(caller, request.name + b"/", request.name + b"0")
        except Refused as refused:
            if self._access.audit is not None:
                self._access.audit.ended(caller, "Election.Observe", request, refused)
            return False
        return True

    async def _candidates(self, prefix: bytes) -> tuple[dict[bytes, KeyValue], int]:
        found = await self._kv.range(RangeRequest(key=prefix, range_end=prefix[:-1] + b"0"))
        return {kv.key: kv for kv in found.kvs}, found.header.revision

    async def _leaders(
        self, prefix: bytes, candidates: dict[bytes, KeyValue], revision: int
    ) -> AsyncGenerator[tuple[KeyValue, int], None]:
        """The first candidate after every change, and when; ends if a compaction overtook the watch."""
        if candidates:
            yield _first(candidates), revision
        stream = WatchStream(self._kv.hub)
        try:
            create = WatchCreateRequest(key=prefix, range_end=prefix[:-1] + b"0", start_revision=revision + 1)
            stream.handle(WatchRequest(create_request=create))
            async for response in stream:
                if response.canceled:
                    return
                for at, event in enumerate(response.events):
                    if event.type == Event.DELETE:
                        candidates.pop(event.kv.key, None)
                    else:
                        candidates[event.kv.key] = event.kv
                    if candidates and _ends_revision(response.events, at):
                        yield _first(candidates), event.kv.mod_revision
        finally:
            stream.close()


def _first(candidates: dict[bytes, KeyValue]) -> KeyValue:
    return min(candidates.values(), key=lambda kv: kv.create_revision)


def _ends_revision(events: Sequence[Event], at: int) -> bool:
    """Whether the changes of one revision, which happened at once, end there."""
    return at + 1 == len(events) or events[at].kv.mod_revision != events[at + 1].kv.mod_revision
