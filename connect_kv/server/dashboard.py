"""Puts the dashboard's parts together, for one member."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from connect_kv.interfaces import Clock
from connect_kv.kv.lessor import Lessor
from connect_kv.kv.machine import KvMachine
from connect_kv.metrics import Metrics
from connect_kv.node.node import RaftNode
from connect_kv.rpc.dashboard_pb2 import MemberState
from connect_kv.rpc.maintenance_pb2 import AlarmType
from connect_kv.server.node_metrics import PrometheusNodeMetrics
from connect_kv.services.access import Access
from connect_kv.services.dashboard import DashboardService
from connect_kv.services.executor import CommandExecutor
from connect_kv.services.happenings import Happenings, of_membership, of_versions
from connect_kv.services.lease_views import LeaseViews
from connect_kv.services.machine import MachineService
from connect_kv.services.overview import Overviews
from connect_kv.services.peer_calls import PeerCalls
from connect_kv.services.samples import Samples, Sources
from connect_kv.statemachine.host import MachineHost
from connect_kv.statemachine.machine_counts import MethodCounts

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DashboardSources:
    """Where the dashboard of one member gets what it shows."""

    node: RaftNode[bytes]
    host: MachineHost
    kv: KvMachine
    lessor: Lessor
    clock: Clock
    metrics: Metrics
    node_metrics: PrometheusNodeMetrics
    executor: CommandExecutor
    peers: PeerCalls
    access: Access
    machines: MachineService
    version: str
    """The version of this software."""
    quota: int
    name: Callable[[int], str]
    disk: Callable[[], tuple[int, int]]
    """Free and total bytes, as last measured."""
    connections: Callable[[], int]
    errors: Callable[[], Sequence[str]]


class Dashboard:
    """What a member keeps for it, and the service that tells it. `run` is a task."""

    def __init__(self, sources: DashboardSources) -> None:
        self._sources = sources
        node, host, clock = sources.node, sources.host, sources.clock
        self._began = clock.now()
        self.samples = Samples(clock, _measured(sources))
        self.run = self.samples.run
        self._happenings = Happenings(node.identity.node_id, clock.wall)
        self._leader: int | None = None
        self._membership = node.membership
        self._alarms = self._active_alarms()
        self._versions = self._active_versions()
        self._happenings.note(
            "start", f"{node.identity.name or node.identity.node_id} started, version {sources.version}"
        )
        node.leader_changed.subscribe(self._note_leader)
        node.membership_changed.subscribe(self._note_membership)
        host.cluster.alarms_changed.subscribe(self._note_alarms)
        host.machines_changed.subscribe(self._note_versions)
        overviews = Overviews(
            node,
            sources.peers,
            clock=clock,
            own=self._state,
            samples=self.samples,
            published=lambda: host.cluster.members,
            name=sources.name,
        )
        self.service = DashboardService(
            sources.executor,
            overviews,
            LeaseViews(sources.kv, sources.lessor),
            sources.machines,
            sources.access,
            lambda: host.cluster.alarms(),
        )

    def _state(self) -> MemberState:
        """How this member is now."""
        sources = self._sources
        node, kv, host = sources.node, sources.kv, sources.host
        free, total = sources.disk()
        return MemberState(
            leader=node.leader_id or 0,
            term=node.term,
            commit_index=node.raft_status().commit_index,
            applied_index=node.last_applied,
            db_size=host.disk_size,
            quota=sources.quota,
            disk_free=free,
            disk_total=total,
            version=sources.version,
            wall=sources.clock.wall(),
            up_seconds=sources.clock.now() - self._began,
            revision=kv.revision,
            compact_revision=kv.compact_revision,
            keys=kv.keys,
            leases=len(kv.leases),
            watches=kv.hub.watches,
            connections=sources.connections(),
            errors=sources.errors(),
            happenings=self._happenings.kept,
        )

    def _note_leader(self) -> None:
        node = self._sources.node
        if node.leader_id == self._leader:
            return
        self._leader = node.leader_id
        if self._leader is None:
            self._happenings.note("election", f"no leader is known in term {node.term}")
        else:
            self._happenings.note("election", f"{self._sources.name(self._leader)} leads in term {node.term}")

    def _note_membership(self) -> None:
        old, self._membership = self._membership, self._sources.node.membership
        for text in of_membership(old, self._membership, self._sources.name):
            self._happenings.note("membership", text)

    def _note_alarms(self) -> None:
        old, self._alarms = self._alarms, self._active_alarms()
        for alarm, member in sorted(self._alarms - old):
            self._happenings.note("alarm", f"alarm {alarm} of {self._sources.name(member)} is on")
        for alarm, member in sorted(old - self._alarms):
            self._happenings.note("alarm", f"alarm {alarm} of {self._sources.name(member)} was ended")

    def _note_versions(self) -> None:
        old, self._versions = self._versions, self._active_versions()
        for machine, text in of_versions(old, self._versions):
            self._happenings.note("upgrade" if old.get(machine) else "machine", text)

    def _active_alarms(self) -> frozenset[tuple[str, int]]:
        known = {number: name for name, number in AlarmType.items()}
        return frozenset(
            (known.get(one.alarm, str(one.alarm)), one.memberID)
            for one in self._sources.host.cluster.alarms()
        )

    def _active_versions(self) -> dict[str, int]:
        machines = self._sources.host.machines.machines
        return {name: machine.standing.version for name, machine in machines.items()}


def _measured(sources: DashboardSources) -> Sources:
    """Of the metrics that are kept anyway, those that say how busy a member is."""
    kv, metrics, host = sources.kv, sources.metrics, sources.host
    return Sources(
        rates={
            "puts": lambda: kv.puts,
            "deletes": lambda: kv.deletes,
            "ranges": lambda: kv.ranges,
            "transactions": lambda: kv.txns,
            "calls of clients": metrics.calls,
            "failed calls": metrics.failed_calls,
            "entries applied": lambda: sources.node.last_applied,
            "events to watchers": lambda: kv.hub.sent,
            **{
                f"{kind} of {name}": partial(_calls, name, read)
                for name in host.machines.machines
                for kind, read in (
                    ("commands", lambda: host.machines.counts.commands),
                    ("queries", lambda: host.machines.counts.queries),
                )
            },
        },
        gauges={
            "database": ("bytes", lambda: host.disk_size),
            "keys": ("", lambda: kv.keys),
        },
        durations={
            "write of the log": sources.node_metrics.log_writes,
            "applying a slice": sources.node_metrics.applies,
        },
    )


def _calls(machine: str, read: Callable[[], Iterable[tuple[str, str, MethodCounts]]]) -> int:
    """Calls of all methods of a machine, however they ended."""
    return sum(one.returned + one.raised + one.not_run for name, _, one in read() if name == machine)
