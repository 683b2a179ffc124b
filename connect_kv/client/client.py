"""Client: how a Python program reaches a cluster, typed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from connect_kv import errors
from connect_kv.client import retry
from connect_kv.client.auth import AuthClient
from connect_kv.client.cluster import ClusterClient
from connect_kv.client.endpoints import ChannelTo, Endpoints, SecureChannels, asks_tls, parse_endpoints
from connect_kv.client.lease import Lease, LeaseKeeper, PendingLease, renew_once
from connect_kv.client.limits import within
from connect_kv.client.lock import Election, Lock
from connect_kv.client.login import login_of
from connect_kv.client.machine import MachineClient
from connect_kv.client.maintenance import MaintenanceClient
from connect_kv.client.ranges import Text, span, to_bytes
from connect_kv.client.request_channel import RequestChannel, UnaryRequests
from connect_kv.client.retry import UnaryCalls
from connect_kv.client.session import Session
from connect_kv.client.txn import HasLeaseId
from connect_kv.client.watch import Watch
from connect_kv.credentials import Tls
from connect_kv.framework.replicated import Replicated
from connect_kv.rpc.cluster_pb2 import Member
from connect_kv.rpc.command_pb2 import Command
from connect_kv.rpc.kv_pb2 import (
    CompactionResponse,
    Compare,
    DeleteRangeResponse,
    KeyValue,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnResponse,
)
from connect_kv.rpc.lease_pb2 import LeaseTimeToLiveResponse
from connect_kv.rpc.machine_pb2 import (
    MachineCallRequest,
    MachineDecideRequest,
    MachineDescribeRequest,
    MachineDescribeResponse,
    MachineStatusRequest,
    MachineStatusResponse,
)
from connect_kv.rpc.maintenance_pb2 import StatusRequest, StatusResponse
from connect_kv.rpc.watch_pb2 import WatchCreateRequest

if TYPE_CHECKING:
    from connect_kv.client.stubs import Stubs

__all__ = ["Client", "connect"]

DEFAULT_ENDPOINTS = "127.0.0.1:2379"
DEFAULT_TIMEOUT = 10.0
DEFAULT_SESSION_TTL = 60

M = TypeVar("M", bound=Replicated)


def connect(
    endpoints: str | Iterable[str] = DEFAULT_ENDPOINTS,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    session: bool = True,
    session_ttl: int = DEFAULT_SESSION_TTL,
    tls: Tls | None = None,
    user: str = "",
    password: str | None = None,
    token: str = "",
    rng: random.Random | None = None,
    channel_to: ChannelTo | None = None,
) -> Client:
    """A client of the cluster with these members, for use with ``async with``, or between open and close.

    `endpoints` are ``HOST:PORT``, several or comma-separated: some or all members. `timeout` is
    the seconds a call may take unless it says otherwise; 0 does not wait at all. Through a session
    (the default) each command is executed exactly once however often connections break; without
    one, a write whose answer is lost raises OutcomeUnknown at once. A session that nobody uses for
    `session_ttl` seconds ends. `tls`: the connections are encrypted, the members' certificates verified, and
    the client's own shown where it has one; ``https://`` before the endpoints alone trusts whom this machine
    trusts. `user` and `password`: calls are made for that user, where the cluster asks; the client logs in by
    itself, and again whenever its token is no longer known. A `token` of `Client.auth.login` stands for
    both until it ends. Either travels in the clear without `tls`. `rng` and `channel_to` are for tests.
    Raises ConfigError for a malformed endpoint, for files of `tls` that cannot be used, and for a user
    without a password.
    """
    return Client(
        endpoints,
        timeout=timeout,
        session=session,
        session_ttl=session_ttl,
        tls=tls,
        user=user,
        password=password,
        token=token,
        rng=rng,
        channel_to=channel_to,
    )


class Client:
    """The client of one cluster, made by `connect`.

    Any number of tasks of one event loop may use it at once; their calls travel together.
    Keys and values are bytes or bytes-like; text is taken as UTF-8. Every call raises Unavailable when nobody
    answered in time and nothing was done, OutcomeUnknown when a write may or may not have
    happened, Refused with etcd's code and text when the cluster refuses it, and ClientNotOpen before
    `open` and after `close`.
    """

    def __init__(
        self,
        endpoints: str | Iterable[str],
        *,
        timeout: float,
        session: bool,
        session_ttl: int,
        rng: random.Random | None,
        tls: Tls | None = None,
        user: str = "",
        password: str | None = None,
        token: str = "",
        channel_to: ChannelTo | None = None,
    ) -> None:
        self._login = login_of(user, password, token)
        endpoints = endpoints if isinstance(endpoints, str) else list(endpoints)
        if channel_to is None and asks_tls(endpoints, tls is not None):
            channel_to = SecureChannels(tls or Tls())
        self._addresses = parse_endpoints(endpoints)
        self._timeout = within(timeout, timeout)
        self._use_session = session
        self._session_ttl = session_ttl
        self._rng = rng or random.Random()
        self._channel_to = channel_to
        self._opened: tuple[Endpoints, RequestChannel, LeaseKeeper] | None = None
        self._entered = 0
        """How many ``async with`` are in it."""

    async def open(self) -> Self:
        """Make it ready for calls, on the running event loop; it connects when the first one is made.

        Safe to repeat. ``async with`` does this, and `close` at its end.
        """
        if self._opened is None:
            # Loads gRPC, now: it should not take the time of a call.
            import connect_kv.client.stubs  # noqa: F401

            endpoints = Endpoints(self._addresses, self._rng, self._channel_to, self._login)
            requests: RequestChannel = UnaryRequests(endpoints)
            if self._use_session:
                session = Session(endpoints, ttl=self._session_ttl)
                session.start()
                requests = session
            self._opened = endpoints, requests, LeaseKeeper(endpoints)
        return self

    async def close(self) -> None:
        """End the session and all connections; calls that wait fail. Safe to repeat, and to open again."""
        if self._opened is None:
            return
        endpoints, requests, keeper = self._opened
        self._opened = None
        async with AsyncExitStack() as stack:  # whichever fails, the others are closed
            stack.push_async_callback(endpoints.close)
            stack.push_async_callback(requests.close)
            stack.push_async_callback(keeper.close)

    async def __aenter__(self) -> Self:
        """Open it. Entered several times, it is closed when the last body ends."""
        await self.open()
        self._entered += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered -= 1
        if self._entered <= 0:
            await self.close()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Addresses of the members it knows."""
        return tuple(self._addresses)

    async def put(
        self,
        key: Text,
        value: Text,
        *,
        lease: int | HasLeaseId = 0,
        prev_kv: bool = False,
        ignore_value: bool = False,
        ignore_lease: bool = False,
        timeout: float | None = None,
    ) -> PutResponse:
        """Store a value; the key is attached to `lease`, or to none.

        `ignore_value` and `ignore_lease` keep the present one. `header.revision` of the answer is
        the revision this put created.
        """
        command = Command()
        request = command.put
        request.key = to_bytes(key)
        request.value = to_bytes(value)
        if lease:
            request.lease = lease if isinstance(lease, int) else lease.id
        if prev_kv or ignore_value or ignore_lease:
            request.prev_kv = prev_kv
            request.ignore_value = ignore_value
            request.ignore_lease = ignore_lease
        return (await self._requests.call(command, within(timeout, self._timeout), writes=True)).put

    async def get(
        self, key: Text, *, revision: int = 0, serializable: bool = False, timeout: float | None = None
    ) -> KeyValue | None:
        """One key, or None; as of `revision` if given.

        Sees every write acknowledged before this call, unless `serializable`: then whatever the
        asked member has. Raises Compacted if the revision is compacted away.
        """
        command = Command()
        request = command.range
        request.key = to_bytes(key)
        if revision or serializable:
            request.revision = revision
            request.serializable = serializable
        kvs = (await self._requests.call(command, within(timeout, self._timeout), writes=False)).range.kvs
        return kvs[0] if kvs else None

    async def get_prefix(
        self, prefix: Text, *, revision: int = 0, limit: int = 0, timeout: float | None = None
    ) -> list[KeyValue]:
        """All keys that begin with `prefix`, in key order; an empty prefix: all keys."""
        answer = await self.range(prefix, prefix=True, revision=revision, limit=limit, timeout=timeout)
        return list(answer.kvs)

    async def range(
        self,
        key: Text,
        range_end: Text = b"",
        *,
        prefix: bool = False,
        limit: int = 0,
        revision: int = 0,
        sort_order: RangeRequest.SortOrder.ValueType = RangeRequest.NONE,
        sort_target: RangeRequest.SortTarget.ValueType = RangeRequest.KEY,
        serializable: bool = False,
        keys_only: bool = False,
        count_only: bool = False,
        min_mod_revision: int = 0,
        max_mod_revision: int = 0,
        min_create_revision: int = 0,
        max_create_revision: int = 0,
        timeout: float | None = None,
    ) -> RangeResponse:
        """Keys in ``[key, range_end)``, with every option of the API.

        It travels beside the session: a large answer does not hold up other calls.
        """
        start, end = span(key, range_end, prefix)
        request = RangeRequest(
            key=start,
            range_end=end,
            limit=limit,
            revision=revision,
            sort_order=sort_order,
            sort_target=sort_target,
            serializable=serializable,
            keys_only=keys_only,
            count_only=count_only,
            min_mod_revision=min_mod_revision,
            max_mod_revision=max_mod_revision,
            min_create_revision=min_create_revision,
            max_create_revision=max_create_revision,
        )
        return await self._calls.ask(lambda stubs: stubs.range, request, timeout, writes=False)

    async def delete(
        self,
        key: Text,
        range_end: Text = b"",
        *,
        prefix: bool = False,
        prev_kv: bool = False,
        timeout: float | None = None,
    ) -> DeleteRangeResponse:
        """Delete a key, ``[key, range_end)``, or all keys with a prefix; `deleted` says how many."""
        command = Command()
        request = command.delete_range
        request.key, request.range_end = span(key, range_end, prefix)
        request.prev_kv = prev_kv
        return (await self._requests.call(command, within(timeout, self._timeout), writes=True)).delete_range

    async def transaction(
        self,
        compare: Sequence[Compare] = (),
        success: Sequence[RequestOp] = (),
        failure: Sequence[RequestOp] = (),
        *,
        timeout: float | None = None,
    ) -> TxnResponse:
        """If all of `compare` hold, do `success`, else `failure`: atomically, in one revision.

        Their parts are made with `connect_kv.client.txn`.
        """
        command = Command()
        command.txn.SetInParent()
        command.txn.compare.extend(compare)
        command.txn.success.extend(success)
        command.txn.failure.extend(failure)
        return (await self._requests.call(command, within(timeout, self._timeout), writes=True)).txn

    async def compact(
        self, revision: int, *, physical: bool = False, timeout: float | None = None
    ) -> CompactionResponse:
        """Forget what was before `revision`; with `physical`, wait until its space is given back."""
        command = Command()
        command.compact.revision = revision
        command.compact.physical = physical
        return (await self._requests.call(command, within(timeout, self._timeout), writes=True)).compact

    def watch(
        self,
        key: Text,
        range_end: Text = b"",
        *,
        prefix: bool = False,
        start_revision: int = 0,
        prev_kv: bool = False,
        puts: bool = True,
        deletes: bool = True,
    ) -> Watch:
        """Changes of a key, of ``[key, range_end)`` or of a prefix: an async iterator of events.

        From `start_revision` on (inclusive), or from when the watch is in force. See Watch.
        """
        start, end = span(key, range_end, prefix)
        request = WatchCreateRequest(
            key=start,
            range_end=end,
            start_revision=start_revision,
            prev_kv=prev_kv,
            progress_notify=True,
            fragment=True,
        )
        if not puts:
            request.filters.append(WatchCreateRequest.NOPUT)
        if not deletes:
            request.filters.append(WatchCreateRequest.NODELETE)
        return Watch(self._endpoints, request, self._timeout)

    def lease(self, ttl: int, *, id: int = 0, timeout: float | None = None) -> PendingLease:
        """A lease of `ttl` seconds that is renewed until it is revoked or the client closes.

        ``async with client.lease(10) as lease`` revokes it at the end; ``await`` it to keep it longer.
        """

        async def grant() -> Lease:
            command = Command()
            command.lease_grant.TTL = ttl
            command.lease_grant.ID = id
            asked_at = asyncio.get_running_loop().time()
            answer = (
                await self._requests.call(command, within(timeout, self._timeout), writes=True)
            ).lease_grant
            lease = Lease(answer.ID, answer.TTL, asked_at, self.revoke_lease)
            self._keeper.keep(lease)
            return lease

        return PendingLease(grant)

    async def grant_lease(self, ttl: int, *, id: int = 0, timeout: float | None = None) -> tuple[int, int]:
        """A lease that nobody renews; its id and the seconds it really got."""
        command = Command()
        command.lease_grant.TTL = ttl
        command.lease_grant.ID = id
        answer = (await self._requests.call(command, within(timeout, self._timeout), writes=True)).lease_grant
        return answer.ID, answer.TTL

    async def revoke_lease(self, id: int, *, timeout: float | None = None) -> None:
        """End a lease and delete its keys, in one revision."""
        command = Command()
        command.lease_revoke.ID = id
        await self._requests.call(command, within(timeout, self._timeout), writes=True)

    async def keep_lease_alive(self, id: int, ttl: int) -> Lease:
        """Renew a lease granted elsewhere from now on; `ttl` is what it was granted."""
        now = asyncio.get_running_loop().time()
        lease = Lease(id, ttl, now, self.revoke_lease)
        lease.renew_at = now
        self._keeper.keep(lease)
        return lease

    async def renew_lease(self, id: int, *, timeout: float | None = None) -> int:
        """Renew a lease once; the seconds it now lives, 0 if there is no such lease."""

        async def renew(stubs: Stubs, seconds: float) -> int:
            async with asyncio.timeout(seconds):
                return await renew_once(stubs, id)

        return await retry.call(self._endpoints, renew, timeout=within(timeout, self._timeout), writes=False)

    async def lease_time_to_live(
        self, id: int, *, keys: bool = False, timeout: float | None = None
    ) -> LeaseTimeToLiveResponse:
        """Seconds left (-1: unknown lease), seconds granted, and the attached keys if asked."""
        command = Command()
        command.lease_time_to_live.ID = id
        command.lease_time_to_live.keys = keys
        result = await self._requests.call(command, within(timeout, self._timeout), writes=False)
        return result.lease_time_to_live

    async def leases(self, *, timeout: float | None = None) -> list[int]:
        """Ids of all leases."""
        command = Command()
        command.lease_leases.SetInParent()
        result = await self._requests.call(command, within(timeout, self._timeout), writes=False)
        return [lease.ID for lease in result.lease_leases.leases]

    def lock(self, name: Text, *, ttl: int = 10, note: Text = b"") -> Lock:
        """``async with client.lock("name") as lock``: waits for the lock, and gives it back at the end.

        It is lost if this client cannot renew its lease of `ttl` seconds in time: see `Lock.revision`.
        `note`, such as a host and a process, tells others who it is: see `Lock.queue`.
        """
        prefix = to_bytes(name) + b"/"
        return Lock(
            to_bytes(name),
            to_bytes(note),
            partial(self.lease, ttl),
            self._endpoints,
            self._timeout,
            contenders=partial(
                self.range,
                prefix,
                prefix=True,
                sort_target=RangeRequest.CREATE,
                sort_order=RangeRequest.ASCEND,
            ),
        )

    def election(self, name: Text, value: Text = b"", *, ttl: int = 10) -> Election:
        """``async with client.election("name", "me") as election``: waits until this candidate leads, and
        resigns at the end. `leader` and `observe` work without being a candidate.
        """
        prefix = to_bytes(name) + b"/"
        return Election(
            to_bytes(name),
            to_bytes(value),
            partial(self.lease, ttl),
            self._endpoints,
            self._timeout,
            candidates=partial(self.range, prefix, prefix=True),
            watch=lambda revision: self.watch(prefix, prefix=True, start_revision=revision),
        )

    def machine(self, name: str, machine: type[M]) -> MachineClient[M]:
        """A replicated machine of that class, to be called by its methods."""
        return MachineClient(self._requests, name, machine, self._timeout)

    async def call_json(
        self, machine: str, method: str, arguments: str = "{}", *, timeout: float | None = None
    ) -> str:
        """Call a machine whose class is not at hand: arguments and value are JSON.

        At most once: raises OutcomeUnknown if the answer is lost, also for a query.
        """
        request = MachineCallRequest(machine=machine, method=method, json=arguments)
        answer = await self._calls.ask(lambda stubs: stubs.machine_call, request, timeout, writes=True)
        return answer.json

    async def describe_machines(
        self, name: str = "", *, timeout: float | None = None
    ) -> list[MachineDescribeResponse.Machine]:
        """The cluster's machines, or one: methods, parameters, types."""
        request = MachineDescribeRequest(machine=name)
        answer = await self._calls.ask(lambda stubs: stubs.machine_describe, request, timeout, writes=False)
        return list(answer.machines)

    async def machine_status(
        self, name: str = "", *, timeout: float | None = None
    ) -> list[MachineStatusResponse.Member]:
        """How each machine, or one, is on each member: its version, and why it does not go on."""
        request = MachineStatusRequest(machine=name)
        answer = await self._calls.ask(lambda stubs: stubs.machine_status, request, timeout, writes=False)
        return list(answer.members)

    async def skip_command(self, machine: str, index: int, *, timeout: float | None = None) -> None:
        """Have no member run the command of entry `index` that stopped a machine. Raises Refused.

        It is refused unless a majority stopped there, and nobody has run it.
        """
        await self._decide(machine, MachineDecideRequest.SKIP, index, timeout)

    async def retire_machine(self, machine: str, *, timeout: float | None = None) -> None:
        """End a machine, with its state, on all members. Its calls are refused from then on."""
        await self._decide(machine, MachineDecideRequest.RETIRE, 0, timeout)

    async def host_machine(self, machine: str, *, timeout: float | None = None) -> None:
        """Begin a retired machine again, with its first state. Raises Refused."""
        await self._decide(machine, MachineDecideRequest.HOST, 0, timeout)

    async def _decide(
        self,
        machine: str,
        decision: MachineDecideRequest.Decision.ValueType,
        index: int,
        timeout: float | None,
    ) -> None:
        request = MachineDecideRequest(machine=machine, decision=decision, index=index)
        await self._calls.ask(lambda stubs: stubs.machine_decide, request, timeout, writes=True)

    async def status(self, endpoint: str = "", *, timeout: float | None = None) -> StatusResponse:
        """How one member is: that at `endpoint`, or the first that answers."""
        request = StatusRequest()
        return await self._calls.ask(
            lambda stubs: stubs.status, request, timeout, writes=False, at=endpoint or None
        )

    async def members(self, *, linearizable: bool = True, timeout: float | None = None) -> list[Member]:
        """The cluster's members, by id; not `linearizable`: as the asked member knows them."""
        return await self.cluster.members(linearizable=linearizable, timeout=timeout)

    @property
    def cluster(self) -> ClusterClient:
        """Members of the cluster, and changes of them."""
        return ClusterClient(self._endpoints, self._timeout)

    @property
    def auth(self) -> AuthClient:
        """Users, roles and their rights."""
        return AuthClient(self._endpoints, self._timeout)

    @property
    def maintenance(self) -> MaintenanceClient:
        """Alarms, hashes, backups and other work of an operator."""
        return MaintenanceClient(self._endpoints, self._timeout)

    @property
    def _endpoints(self) -> Endpoints:
        return self._open()[0]

    @property
    def _calls(self) -> UnaryCalls:
        return UnaryCalls(self._endpoints, self._timeout)

    @property
    def _requests(self) -> RequestChannel:
        return self._open()[1]

    @property
    def _keeper(self) -> LeaseKeeper:
        return self._open()[2]

    def _open(self) -> tuple[Endpoints, RequestChannel, LeaseKeeper]:
        if self._opened is None:
            raise errors.ClientNotOpen(
                "the client is not open: use it as `async with connect(...) as client`, or call open()"
            )
        return self._opened
