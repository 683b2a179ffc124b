"""The composition root: the only file that knows every concrete class."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from connect_kv.config import ServerConfig
from connect_kv.errors import ConfigError, NodeStopped
from connect_kv.interfaces import Clock, LogStore, ReplicatedState, Transport, Worker
from connect_kv.kv.auto_compaction import AutoCompactor, Retention
from connect_kv.kv.lessor import Lessor
from connect_kv.kv.machine import KvMachine
from connect_kv.metrics import Metrics
from connect_kv.node.clock import SystemClock
from connect_kv.node.config import NodeConfig
from connect_kv.node.entry_spans import EntrySpans
from connect_kv.node.node import RaftNode
from connect_kv.node.workers import ThreadWorker
from connect_kv.raft.config import RaftConfig
from connect_kv.raft.core import RaftCore
from connect_kv.raft.types import Entry
from connect_kv.rpc.command_pb2 import Command, MemberPublish
from connect_kv.rpc.maintenance_pb2 import CORRUPT, NOSPACE, AlarmRequest, AlarmType
from connect_kv.server.audit_file import AuditFile
from connect_kv.server.corruption import CorruptionCheck
from connect_kv.server.directory import Directory, open_directory
from connect_kv.server.node_metrics import PrometheusNodeMetrics
from connect_kv.server.peer_metrics import peer_families
from connect_kv.server.self_signed import with_self_signed
from connect_kv.server.server_metrics import show_audit
from connect_kv.server.services import Services
from connect_kv.server.tls import client_credentials, families, member_credentials
from connect_kv.services.executor import field_number
from connect_kv.statemachine import batches
from connect_kv.statemachine.batches import ELAPSED
from connect_kv.statemachine.code_records import hosted_record
from connect_kv.statemachine.depth import STACK_BYTES
from connect_kv.statemachine.host import HostConfig, MachineHost
from connect_kv.statemachine.hosted import HostedMachine
from connect_kv.storage.engine import Disk
from connect_kv.storage.leveldb import LevelDbDisk
from connect_kv.tracing import Tracer
from connect_kv.transport.grpc_transport import GrpcTransport
from connect_kv.transport.limits import TransportLimits

logger = logging.getLogger(__name__)

_FIRST_READ = 64
"""Requests of `Command` from here on are reads, which no log holds."""
HIGHEST_COMMAND = max(
    ELAPSED,
    *(one.number for one in Command.DESCRIPTOR.oneofs_by_name["request"].fields if one.number < _FIRST_READ),
)
"""The largest command number that this version can apply."""

_ENVELOPE_BYTES = 512 << 10
"""What a proposal may have around a request."""
_REPLAY_BYTES = 4 << 20

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Seams:
    """What a node takes from the world outside it; a simulator replaces exactly these."""

    disk: Disk = field(default_factory=LevelDbDisk)
    clock: Clock = field(default_factory=SystemClock)
    rng: random.Random = field(default_factory=random.SystemRandom)
    transport: Callable[[ServerConfig, Clock], Transport] = lambda config, clock: GrpcTransport(
        config.listen_peer,
        clock=clock,
        credentials=member_credentials(config),
        limits=TransportLimits.for_election(config.election_ms / 1000),
    )
    worker: Callable[[str], Worker] = lambda name: ThreadWorker(
        name, stack_bytes=STACK_BYTES if name == "apply" else 0
    )
    """Makes the thread of that name."""
    tracer: Tracer | None = None
    """Collects spans, whatever the settings say."""
    listens: bool = True
    """Whether clients reach it over gRPC and HTTP; if not, call ``services.router``."""
    tune: Callable[[NodeConfig], NodeConfig] = lambda config: config
    """Changes limits that are no settings."""
    log: Callable[[LogStore], LogStore] = lambda log: log
    """Stands between the node and its log, to watch it."""
    state: Callable[[ReplicatedState[bytes]], ReplicatedState[bytes]] = lambda state: state
    """Stands between the node and what is replicated, to watch it."""


class KvServer:
    """One member: disk, log, state, machines, core, transport, node and services, put together.

    `start` once, `stop` once; a new object for a new start.
    """

    def __init__(
        self,
        config: ServerConfig,
        machines: Mapping[str, HostedMachine] | None = None,
        *,
        seams: Seams | None = None,
    ) -> None:
        self.config = config
        self.metrics = Metrics(process=seams is None)
        self._machines = dict(machines or {})
        for name in filter(None, config.accept_changed_code.replace(" ", "").split(",")):
            if name not in self._machines:
                raise ConfigError(f"accept_changed_code: there is no machine {name!r} here")
            self._machines[name].accept_changed = True
        self._seams = seams or Seams()
        self._workers: dict[str, Worker] = {}
        self._directory: Directory | None = None
        self._transport: Transport | None = None
        self._host: MachineHost | None = None
        self._node: RaftNode[bytes] | None = None
        self._services: Services | None = None
        self._audit: AuditFile | None = None
        self._tracer = self._seams.tracer
        self._end_tracing: Callable[[], None] | None = None
        self._background: dict[str, Callable[[], Coroutine[object, object, None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._raising = False
        self._low = False
        self._disk_space = (0, 0)
        self._stopping = False
        self._failed: asyncio.Future[BaseException] | None = None

    @property
    def node(self) -> RaftNode[bytes]:
        """The Raft node, once started."""
        return _made(self._node)

    @property
    def services(self) -> Services:
        """What clients reach, once started."""
        return _made(self._services)

    @property
    def host(self) -> MachineHost:
        """The replicated state, once started."""
        return _made(self._host)

    @property
    def failed(self) -> asyncio.Future[BaseException]:
        """Resolves with the error that ended it; stays open if it is stopped in order."""
        return _made(self._failed)

    @property
    def client_address(self) -> str:
        """``host:port`` for clients; with port 0 configured, the one that was free."""
        host, _, port = self.config.client_address.rpartition(":")
        return f"{host}:{port}" if int(port) else f"{host}:{self.services.client_port}"

    async def start(self) -> None:
        """Open the data directory, join the others, serve. Does not wait for a leader.

        Raises RefusedToStart, ConfigError, MemberRemoved, StorageError; nothing is left open then.
        """
        try:
            await self._open()
            await self._listen()
        except BaseException:
            await self.stop()
            raise
        identity = self.node.identity
        logger.info(
            "serving",
            extra={
                "member": f"{identity.node_id:x}",
                "cluster": f"{identity.cluster_id:x}",
                "clients": self.client_address if self._seams.listens else "",
                "peers": self.config.peer_address,
                "data": str(self.config.data_dir),
            },
        )

    async def stop(self) -> None:
        """Take no new calls, hand leadership over, write what is queued, close everything."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._services is not None:
            await self._services.stop()
        if self._node is not None:
            await self._node.stop()
        else:
            await self._close_unused()
        for name in ("state", "apply", "space", "sync", "auth"):
            if name in self._workers:
                await self._workers[name].close()
        if self._audit is not None:
            self._audit.close()
        if self._end_tracing is not None:
            await asyncio.to_thread(self._end_tracing)

    def reopen_files(self) -> None:
        """Whoever rotates logs has moved one away: the audit log goes on in a new file of its name."""
        if self._audit is not None:
            self._audit.reopen()

    async def _close_unused(self) -> None:
        """What the node would have closed, if there had come to be one."""
        if self._host is not None:
            await self._host.close()
        elif self._directory is not None:
            self._directory.database.close()
        if self._directory is not None:
            self._directory.log.close()
        if "log" in self._workers:
            await self._workers["log"].close()

    # Putting together, from the disk upwards.

    async def _open(self) -> None:
        config, seams = with_self_signed(self.config), self._seams
        self.config = config
        self._failed = asyncio.get_running_loop().create_future()
        if config.audit_log is not None:
            self._audit = AuditFile(config.audit_log, wall=seams.clock.wall)
            show_audit(self.metrics, self._audit)
        if config.tracing and self._tracer is None:
            from connect_kv.otel import exporting  # an extra, and loaded by nobody else

            self._tracer, self._end_tracing = exporting(config.name)
        for name in ("log", "state", "apply", "space", "sync", "auth"):
            self._workers[name] = seams.worker(name)
        log_worker = self._workers["log"]
        tls = client_credentials(config)
        self._transport = seams.transport(config, seams.clock)
        directory = self._directory = await open_directory(
            config,
            disk=seams.disk,
            worker=log_worker,
            background=partial(self._give_back_space, asyncio.get_running_loop()),
            transport=self._transport,
            rng=seams.rng,
        )
        kv = KvMachine()
        host = self._host = MachineHost(
            dirs=directory.states,
            state_name=directory.log.state_name,
            database=directory.database,
            kv=kv,
            machines=self._machines,
            state_worker=self._workers["state"],
            apply_worker=self._workers["apply"],
            clock=seams.clock,
            config=HostConfig(snapshot_entries=config.snapshot_count),
            space_worker=self._workers["space"],
            sync_worker=self._workers["sync"],
        )

        async def read_log(start: int, end: int) -> Sequence[Entry]:
            read = partial(directory.log.entries, start, end, _REPLAY_BYTES)
            return await log_worker.run(read)

        await host.start(read_log, directory.restored.compacted.index + 1)
        node = self._node = self._make_node(directory, host, self._transport)
        if isinstance(self._transport, GrpcTransport):
            traffic, own_id = self._transport.traffic, node.identity.node_id
            self.metrics.families(lambda: peer_families(traffic, own_id))
        node.failed.add_done_callback(lambda failed: self._fail(failed.result()))
        lessor = Lessor(kv.leases, seams.clock, node.propose, lambda: node.is_leader)
        self._services = Services(
            config,
            node=node,
            host=host,
            kv=kv,
            lessor=lessor,
            machines=self._machines,
            clock=seams.clock,
            metrics=self.metrics,
            tls=tls,
            listens=seams.listens,
            no_space=self._quota_exceeded,
            auth_worker=self._workers["auth"],
            rng=seams.rng,
            trail=self._audit,
            node_metrics=self._node_metrics,
            disk_space=lambda: self._disk_space,
            tracer=self._tracer,
        )
        check = CorruptionCheck(
            node,
            node.identity.node_id,
            peers=self._services.peers,
            hash_kv=self._services.maintenance.hash_for_members,
            difference=kv.difference,
            corrupt=self._raise_corrupt,
            machines=self._services.control.compare,
            clock=seams.clock,
            every=config.corruption_check_seconds,
        )
        self._background = {
            "tokens": self._services.authentication.expire_tokens,
            "lessor": lessor.run,
            "watch progress": partial(kv.hub.run_progress, seams.clock),
            "publish member": self._publish,
            "measure space": self._services.quota.run,
            "compare members": check.run,
            "dashboard": self._services.dashboard.run,
        }
        if isinstance(self._transport, GrpcTransport) and self._transport.credentials is not None:
            tls = {**tls, "members": self._transport.credentials}
        for use, credentials in tls.items():
            self._background[f"watch TLS files for {use}"] = partial(credentials.watch, seams.clock.sleep)
        self.metrics.families(lambda: families(tls))
        if self._machines:
            self._background["activate versions"] = self._services.activations.run
        seconds, revisions = config.retention
        if seconds or revisions:
            self._background["automatic compaction"] = AutoCompactor(
                Retention(seconds=seconds, revisions=revisions),
                clock=seams.clock,
                revision=lambda: kv.revision,
                propose=node.propose,
                is_leader=lambda: node.is_leader,
            ).run

    def _make_node(self, directory: Directory, host: MachineHost, transport: Transport) -> RaftNode[bytes]:
        config, seams = self.config, self._seams
        self._node_metrics = PrometheusNodeMetrics(self.metrics.registry, seams.clock)
        raft = RaftConfig(
            node_id=directory.identity.node_id,
            election_ticks=config.election_ticks,
            heartbeat_ticks=config.heartbeat_ticks,
            first_election_ticks=2 * config.heartbeat_ticks,
        )
        node_config = seams.tune(
            NodeConfig(
                raft=raft,
                tick_seconds=config.tick_ms / 1000,
                highest_command=HIGHEST_COMMAND,
                machines=hosted_record(self._machines),
                max_request_bytes=config.max_request_bytes + _ENVELOPE_BYTES,
                keep_entries=config.catch_up_entries,
            )
        )
        return RaftNode(
            config=node_config,
            core=RaftCore(node_config.raft, directory.restored, random.Random(seams.rng.getrandbits(64))),
            restored=directory.restored,
            log=seams.log(directory.log),
            log_worker=self._workers["log"],
            state=seams.state(host),
            transport=transport,
            clock=seams.clock,
            rng=seams.rng,
            metrics=self._node_metrics,
            free_bytes=self._measure_disk,
            space_low=self._space_low,
            answer=self._answer,
            spans=None if self._tracer is None else EntrySpans(self._tracer, config.name, batches.traces),
        )

    async def _listen(self) -> None:
        """Ports first: a node that cannot serve must not take part either."""
        await self.services.bind()
        await self.node.start(_made(self._directory).description)
        await self.services.start()
        for name, work in self._background.items():
            self._spawn(work(), name)

    def _give_back_space(self, loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> None:
        """Called on the log's thread, which must go on: the space of old entries can wait."""

        def begin() -> None:
            if not self._stopping:
                self._spawn(self._workers["space"].run(work), "give back space of the log")

        loop.call_soon_threadsafe(begin)

    async def _answer(self, method: str, request: bytes) -> bytes:
        """Carry out a call for another member."""
        return await self.services.peers.answer(method, request)

    # What a running member does by itself.

    def _measure_disk(self) -> tuple[int, int]:
        """Free and total bytes. On a thread: asking a sick disk may block."""
        self._disk_space = found = self._seams.disk.free_bytes(self.config.data_dir)
        return found

    def _space_low(self, low: bool, free: int) -> None:
        """The disk is nearly full: raise the alarm while deletes can still be stored.

        Also again, if an operator ended it and the disk is as full as before.
        """
        if low and not self._low:
            logger.warning("little space is left on the disk", extra={"free_bytes": free})
        self._low = low
        own = self.node.identity.node_id
        if low and not any(one.memberID == own for one in self.host.cluster.alarms(NOSPACE)):
            self._want_no_space(lambda: self._low)

    def _quota_exceeded(self) -> None:
        """A request did not fit: the alarm keeps all members from taking any, until an operator ends it."""
        active = self.host.cluster.active(NOSPACE)
        if not active and self._want_no_space(lambda: not self.services.quota.fits(1)):
            logger.warning(
                "the space quota is used up",
                extra={"quota_bytes": self.config.quota_bytes, "disk_bytes": self.host.disk_size},
            )

    def _want_no_space(self, still: Callable[[], bool]) -> bool:
        """Raise NOSPACE for this member; False if that is under way."""
        if self._raising:
            return False
        self._raising = True
        self._spawn(self._raise_no_space(still), "raise NOSPACE")
        return True

    async def _raise_no_space(self, still: Callable[[], bool]) -> None:
        try:
            await self._raise(self.node.identity.node_id, NOSPACE, still)
        finally:
            self._raising = False

    async def _raise_corrupt(self, member: int) -> None:
        await self._raise(member, CORRUPT)

    async def _raise(
        self, member: int, alarm: AlarmType.ValueType, still: Callable[[], bool] = lambda: True
    ) -> None:
        request = AlarmRequest(action=AlarmRequest.ACTIVATE, memberID=member, alarm=alarm)
        await self._until_applied("alarm", request.SerializeToString(), still)

    async def _publish(self) -> None:
        """Tell the cluster this member's name and where clients reach it; then serve them."""
        identity = self.node.identity
        address = self.client_address if self._seams.listens else self.config.client_address
        publish = MemberPublish(
            id=identity.node_id,
            name=identity.name,
            client_urls=[f"{self.config.client_scheme}://{address}"],
            highest_command=HIGHEST_COMMAND,
        )
        known = self.host.cluster.members.get(identity.node_id)
        if known is not None and (known.name, known.client_urls) == (publish.name, publish.client_urls):
            # After a restart: to read what is here nobody has to wait for a leader.
            self.services.opening.open()
        await self._until_applied("member_publish", publish.SerializeToString())
        self.services.opening.open()

    async def _until_applied(
        self, name: str, request: bytes, still: Callable[[], bool] = lambda: True
    ) -> None:
        """Propose something that does no harm twice, until it is known to be applied.

        Whatever has to be waited for, only if its reason is `still` there: a leader may be missing for long.
        """
        await self.services.executor.until_applied(field_number(name), request, still)

    def _spawn(self, work: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A member without its timers would look healthy and not be: it ends instead."""
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, NodeStopped):
            logger.error("a task failed", exc_info=error, extra={"task": task.get_name()})
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        failed = _made(self._failed)
        if not failed.done():
            failed.set_result(error)


def _made(part: T | None) -> T:
    if part is None:
        raise RuntimeError("the server has not been started")
    return part
