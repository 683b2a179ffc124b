"""The client side of one node: every service, the gRPC port and the HTTP port."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from connect_kv.auth.authenticator import CallCredentials
from connect_kv.config import ServerConfig, split_address
from connect_kv.credentials import Credentials
from connect_kv.errors import RefusedToStart
from connect_kv.frontend.grpc.calls import RECEIVE_MARGIN
from connect_kv.frontend.grpc.door import DoorServer
from connect_kv.frontend.grpc.health import HealthService
from connect_kv.frontend.grpc.router import Router
from connect_kv.frontend.grpc.services import NAMES, add_health_and_reflection, add_services
from connect_kv.frontend.http.port import Answers, DashboardGate, Gate, HttpPort
from connect_kv.frontend.http.probes import Health
from connect_kv.http2.limits import Limits
from connect_kv.interfaces import Clock, Worker
from connect_kv.kv.lessor import Lessor
from connect_kv.kv.machine import KvMachine
from connect_kv.metrics import Metrics
from connect_kv.node.node import RaftNode
from connect_kv.node.status import Contact
from connect_kv.rpc.maintenance_pb2 import (
    AlarmMember,
    AlarmType,
    DowngradeInfo,
    MemberContact,
    StatusResponse,
)
from connect_kv.server.activation import Activations
from connect_kv.server.authentication import make_audit, make_authentication
from connect_kv.server.dashboard import Dashboard, DashboardSources
from connect_kv.server.node_metrics import PrometheusNodeMetrics
from connect_kv.server.server_metrics import show, show_connections
from connect_kv.server.tls import CLIENTS, HTTP, gateway_on_http_port, listed
from connect_kv.services.audit import Trail
from connect_kv.services.caller import Caller
from connect_kv.services.cluster import ClusterService
from connect_kv.services.election import ElectionService
from connect_kv.services.executor import CommandExecutor
from connect_kv.services.kv import KvService
from connect_kv.services.lease import LeaseService
from connect_kv.services.lock import LockService
from connect_kv.services.lock_queue import LockQueue
from connect_kv.services.machine import MachineService
from connect_kv.services.machine_calls import MachineCalls, MemberClaims
from connect_kv.services.machine_control import MachineControl
from connect_kv.services.maintenance import ETCD_VERSION, MaintenanceService
from connect_kv.services.membership import MemberChanges
from connect_kv.services.opening import Opening
from connect_kv.services.peer_calls import PeerCalls
from connect_kv.services.quota import Quota
from connect_kv.services.reads import Reads
from connect_kv.services.renewals import Renewals
from connect_kv.services.session import SessionService
from connect_kv.services.session_commands import SessionCommands
from connect_kv.services.streams import Streams
from connect_kv.services.turns import Turns
from connect_kv.services.user_quotas import UserLimits, UserQuotas
from connect_kv.services.watch import WatchService
from connect_kv.statemachine.host import MachineHost
from connect_kv.statemachine.hosted import HostedMachine
from connect_kv.tracing import Tracer

if TYPE_CHECKING:
    from connect_kv.frontend.grpc.grpcio_server import GrpcioServer

_LEADER_PATIENCE = 3
"""Election timeouts without a leader: then streams that need one end, and changes of members are refused."""
_GRACE_SECONDS = 1.0
"""How long calls under way may take to end when the node stops."""


@cache
def _version() -> str:
    """Looked up in files: once, however many nodes a process has."""
    return version("connect-kv")


class Services:
    """What clients reach of one node. `start` and `stop` once each."""

    def __init__(
        self,
        config: ServerConfig,
        *,
        node: RaftNode[bytes],
        host: MachineHost,
        kv: KvMachine,
        lessor: Lessor,
        machines: Mapping[str, HostedMachine],
        clock: Clock,
        metrics: Metrics,
        tls: Mapping[str, Credentials],
        listens: bool,
        no_space: Callable[[], None],
        auth_worker: Worker,
        rng: random.Random,
        node_metrics: PrometheusNodeMetrics,
        disk_space: Callable[[], tuple[int, int]],
        trail: Trail | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """`listens`: whether there are ports at all; a simulator calls the router itself.
        `tls`: see `server.tls`. `no_space` is told that the quota is used up. `auth_worker` compares
        passwords; `rng` makes tokens. `disk_space`: free and total bytes, as last measured. `trail`: where
        calls are written down, if anywhere; `tracer` collects spans of those that ask for it.
        """
        self._config = config
        self._node = node
        self._learner = False
        self._note_membership()
        # Before all others: they ask whether this member is a learner.
        node.membership_changed.subscribe(self._note_membership)
        self._host = host
        self._kv = kv
        self._clock = clock
        self.executor = CommandExecutor(
            node,
            cluster_id=node.identity.cluster_id,
            member_id=node.identity.node_id,
            revision=lambda: kv.revision,
            time_limit=config.time_limit,
            max_request_bytes=config.max_request_bytes,
            understood=lambda field: host.cluster.understood_by_all(field, node.membership.node_ids),
            why=self._why,
            tracer=tracer,
        )
        self.authentication = make_authentication(
            config,
            table=host.auth,
            executor=self.executor,
            kv=kv,
            worker=auth_worker,
            clock=clock,
            rng=rng,
            last_applied=lambda: host.last_applied,
        )
        access = self.authentication.access
        self.user_quotas = UserQuotas(
            UserLimits(
                streams=config.max_streams_per_user,
                watches=config.max_watches_per_user,
                sessions=config.max_sessions_per_user,
            ),
            free=lambda user: host.auth.rights(user).root,
        )
        if trail is not None:
            access.audit = make_audit(config, trail, access, clock)
        self._audit = access.audit
        self._streams = Streams(
            self.executor.has_leader, patience=_LEADER_PATIENCE * config.election_ms / 1000
        )
        node.leader_changed.subscribe(self._streams.leader_changed)
        self._renewals = Renewals(self.executor)
        self.peers = PeerCalls(node, self.executor)
        """What this member does for others."""
        changes = MemberChanges(
            node,
            self.executor,
            lambda: host.cluster.members,
            clock=clock,
            election_seconds=config.election_ms / 1000,
            max_learners=config.max_learners,
            peer_scheme=config.peer_scheme,
        )
        self.quota = Quota(config.quota_bytes, clock=clock, measure=host.measure, exceeded=no_space)
        claims = MemberClaims(node, lambda: host.cluster.members)
        calls = MachineCalls(host.machines, host.retired, claims, host.machines_changed)
        self.activations = Activations(
            node,
            host,
            claims=claims.by_member,
            understood=lambda field: host.cluster.understood_by_all(field, host.cluster.members),
            clock=clock,
            patience=_LEADER_PATIENCE * config.election_ms / 1000,
        )
        reads = Reads(kv, host, lessor, lambda: node.read_date)
        commands = SessionCommands(
            calls,
            access,
            max_request_bytes=config.max_request_bytes,
            leases=kv.leases.by_expiry,
            quota=self.quota,
        )
        self.control = MachineControl(self.executor, host, node, self.peers, self.activations.waits)
        self._lock_queue = LockQueue(self.executor, kv, access)
        self.maintenance = MaintenanceService(
            self.executor,
            self._status,
            node=node,
            host=host,
            kv=kv,
            clock=clock,
            peers=self.peers,
            metrics=metrics,
            access=access,
        )
        turns = Turns(clock.now)
        watches = WatchService(self.executor, kv.hub, clock, access, self.user_quotas)
        host.auth.changed = watches.rights_changed
        machine = MachineService(
            self.executor, host, calls, self.control, lambda: node.read_date, access, turns
        )
        self.dashboard = Dashboard(
            DashboardSources(
                node=node,
                host=host,
                kv=kv,
                lessor=lessor,
                clock=clock,
                metrics=metrics,
                node_metrics=node_metrics,
                executor=self.executor,
                peers=self.peers,
                access=access,
                machines=machine,
                version=_version(),
                quota=config.quota_bytes,
                name=self._name,
                disk=disk_space,
                connections=self._connections,
                errors=lambda: self._status().errors,
            )
        )
        self.servicers: Mapping[str, object] = {
            "KV": KvService(self.executor, kv, self.quota, access, turns),
            "Watch": watches,
            "Lease": LeaseService(self.executor, reads, self._renewals, self.quota, access, turns),
            "Cluster": ClusterService(
                self.executor,
                lambda: node.membership,
                changes,
                self.peers,
                access,
                patience=_LEADER_PATIENCE * config.election_ms / 1000,
            ),
            "Maintenance": self.maintenance,
            "Lock": LockService(self.executor, self._lock_queue, self._streams, access),
            "Election": ElectionService(self.executor, kv, self._lock_queue, self._streams, access),
            "Session": SessionService(
                self.executor,
                reads,
                commands,
                host.sessions,
                access,
                clock=clock,
                user_quotas=self.user_quotas,
            ),
            "Machine": machine,
            "Dashboard": self.dashboard.service,
            "Auth": self.authentication.service,
        }
        """Every service, by its short name."""
        self.opening = Opening(time_limit=config.time_limit, why=self._why)
        """Opened by who publishes this member."""
        self.router = Router(
            self._streams,
            metrics,
            self.executor.has_leader,
            self._is_learner,
            self.opening,
            access.ready,
            access.audit,
            lambda caller: self.user_quotas.stream(access.who(caller) if access.enabled else ""),
            clock.now,
            tracer,
        )
        """Every method clients can call; a simulator calls them without a port."""
        add_services(self.router, self.servicers)
        self.health = Health(
            self.executor,
            alarms=self._alarms,
            is_learner=self._is_learner,
            suspended=self._suspended,
            opening=self.opening,
        )
        for changed in (node.leader_changed, node.membership_changed, host.cluster.alarms_changed):
            changed.subscribe(self.health.changed.fire)
        self._grpc_health = HealthService(NAMES, self.health.serving, self.health.changed)
        add_health_and_reflection(self.router, self._grpc_health)
        answers = Answers(
            health=self.health.health,
            live=self.health.live,
            ready=self.health.ready,
            version={
                "etcdserver": ETCD_VERSION,
                "etcdcluster": ETCD_VERSION,
                "storage": ETCD_VERSION,
                "connect_kv": _version(),
            },
            metrics=metrics,
            raft_status=self._raft_status,
        )
        gate = Gate(
            router=self.router,
            most_message=config.max_request_bytes + RECEIVE_MARGIN,
            enabled=config.enable_grpc_gateway,
            on_own_port=gateway_on_http_port(config),
            origins=listed(config.cors),
            hosts=listed(config.host_whitelist),
            limited=None if access.audit is None else access.audit.limited,
            dashboard=None if config.dashboard == "off" else self._dashboard_gate(),
        )
        self._http = HttpPort(answers, tls.get(HTTP), gate)
        self._grpc: DoorServer | GrpcioServer | None = None
        if listens and config.grpc_server == "grpcio":
            from connect_kv.frontend.grpc.grpcio_server import GrpcioServer  # a library that few need

            self._grpc = GrpcioServer(
                self.router, max_request_bytes=config.max_request_bytes, credentials=tls.get(CLIENTS)
            )
        elif listens:
            self._grpc = DoorServer(
                self.router,
                max_request_bytes=config.max_request_bytes,
                credentials=tls.get(CLIENTS),
                http1=partial(self._http.protocol, tls.get(CLIENTS)),
                requests=partial(self._http.request, CLIENTS in tls),
                limits=Limits(connections=config.max_connections, arrivals=config.max_handshakes),
                turned_away=None if access.audit is None else access.audit.turned_away,
                limited=None if access.audit is None else access.audit.limited,
            )
            show_connections(metrics, self._grpc)
        self._tasks: list[asyncio.Task[None]] = []
        show(
            metrics,
            clock=clock,
            node=node,
            kv=kv,
            host=host,
            quota=self.quota,
            is_learner=self._is_learner,
            health=self.health,
            streams=self._streams,
            changes=changes,
            logins=self.authentication.service.attempts,
            user_quotas=self.user_quotas,
        )

    def _dashboard_gate(self) -> DashboardGate:
        access, identity = self.authentication.access, self._node.identity
        return DashboardGate(
            writes=self._config.dashboard == "write",
            cluster=f"{identity.cluster_id:x}",
            member=identity.name,
            enabled=lambda: access.enabled,
            who=lambda token: access.who(Caller(credentials=CallCredentials(token=token))),
        )

    def _connections(self) -> int:
        """Connections of clients that are open, where our own server has their port."""
        return self._grpc.connections if isinstance(self._grpc, DoorServer) else 0

    @property
    def client_port(self) -> int:
        """The gRPC port, once bound; 0 if there is none."""
        return 0 if self._grpc is None else self._grpc.port

    @property
    def http_port(self) -> int:
        """The HTTP port, once bound; 0 if there is none."""
        return self._http.port

    async def bind(self) -> None:
        """Take both ports. Raises RefusedToStart naming the one that is in use.

        HTTP is answered once clients are served.
        """
        if self._grpc is None:
            return
        for address in (self._config.listen_client, *self._config.also_listen_client):
            await self._grpc.bind(address)
        if self._config.listen_http:
            host, port = split_address(self._config.listen_http, "listen_http")
            try:
                await self._http.bind(host, port)
            except OSError as error:
                reason = error.strerror or str(error)
                raise RefusedToStart(
                    f"cannot listen for HTTP on {self._config.listen_http}: {reason}"
                ) from error

    async def start(self) -> None:
        """Serve clients."""
        if self._grpc is not None:
            await self._grpc.start()
            self._tasks.append(asyncio.create_task(self.health.run(), name="until caught up"))
        await self._http.serve()

    async def stop(self) -> None:
        """End streams for a reason, give calls under way a moment, give both ports back."""
        self._streams.stop()
        self.opening.stop()
        self.executor.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._grpc is not None:
            self._grpc_health.stop()
            await asyncio.gather(self._grpc.stop(_GRACE_SECONDS), self._http.stop())
        await self.router.close()
        await self.executor.close()
        await self._renewals.close()
        await self._lock_queue.close()
        if self._audit is not None:
            self._audit.close()

    def _alarms(self) -> frozenset[str]:
        cluster = self._host.cluster
        return frozenset(name for name, number in AlarmType.items() if number and cluster.active(number))

    def _why(self) -> str:
        """The reason why nothing can be committed, if one is known."""
        outage = self._node.outage()
        return "" if outage is None else outage.text(self._name)

    def _name(self, node_id: int) -> str:
        """What people call that member; its peer address before it has started and said its name."""
        published = self._host.cluster.members.get(node_id)
        member = self._node.raft_status().membership.member(node_id)
        if published is not None:
            return published.name
        return f"{node_id:x}" if member is None else member.name or member.peer_address

    def _suspended(self) -> list[str]:
        """What is to be said of machines that do not go on here."""
        return [one.of(name) for name, one in sorted(self._host.machines.suspended.items())]

    def _raft_status(self) -> Mapping[str, object]:
        raft = self._node.status().raft
        return {
            "id": f"{self._node.identity.node_id:x}",
            "term": raft.term,
            "commit": raft.commit_index,
            "lead": f"{self._node.leader_id or 0:x}",
            "raftState": "StateLeader" if self._node.is_leader else "StateFollower",
            "applied": self._node.last_applied,
        }

    def _is_learner(self) -> bool:
        return self._learner

    def _note_membership(self) -> None:
        self._learner = self._node.identity.node_id in self._node.membership.learners

    def _status(self) -> StatusResponse:
        """Gathered when asked; its header is filled by who answers."""
        why = self._why()
        return StatusResponse(
            version=ETCD_VERSION,
            storageVersion=ETCD_VERSION,
            connectKvVersion=_version(),
            leader=self._node.leader_id or 0,
            raftIndex=self._node.status().raft.commit_index,
            raftTerm=self._node.term,
            raftAppliedIndex=self._node.last_applied,
            isLearner=self._is_learner(),
            dbSize=self._host.disk_size,
            dbSizeInUse=self._host.used_size,
            dbSizeQuota=self._config.quota_bytes,
            downgradeInfo=DowngradeInfo(),
            errors=[*([why] if why else []), *self._suspended(), *map(_told, self._host.cluster.alarms())],
            contacts=[
                MemberContact(memberID=member, answers=contact is Contact.ANSWERS, contact=contact.value)
                for member, contact in self._node.contacts().items()
            ],
        )


def _told(alarm: AlarmMember) -> str:
    """An alarm as Go prints it: a member whose id is 0 is left out."""
    member = f"memberID:{alarm.memberID} " if alarm.memberID else ""
    return f"{member}alarm:{AlarmType.Name(alarm.alarm)}"
