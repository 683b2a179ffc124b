"""One chaos run: start three nodes and clients, do one fault after another, and judge what clients saw."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from chaos import watches
from chaos.faults import FAULTS, Scene
from chaos.leases import Leases, LockClaims
from chaos.namespaces import NamespaceNetwork, NamespacesNotAllowed
from chaos.nodes import NAMES, PROGRAM, ChaosCluster, ChaosNode
from chaos.observer import Look, Observer
from chaos.recording import ClientHistory, Log, Sample
from chaos.workloads import RECORDED, read_registers, use_bank, use_lists, use_registers
from connect_kv import errors
from connect_kv.client.client import Client
from connect_kv.testing.checker import timeline
from connect_kv.testing.checker.linearizability import CheckResult, Verdict
from connect_kv.testing.network import Network, NodeLocation
from connect_kv.testing.proxy import ProxyNetwork

PAUSE = 0.06
"""Mean seconds between two calls of one client."""
CALM_SECONDS = 2.0
"""Seconds without a fault between two faults."""
FAULT_TIMEOUT = 90.0
MARKER = "end-of-run"


@dataclass
class Interval:
    """A fault, and when it began and ended."""

    kind: str
    began: float
    ended: float = 0.0
    recovered: float = 0.0
    """When every node served again."""
    note: str = ""


@dataclass
class Workload:
    """What became of a workload: how many calls, and whether its history is right."""

    name: str
    calls: int
    answered: int
    verdict: str
    detail: str = ""


@dataclass
class Result:
    """All that the report shows."""

    seed: int
    seconds: float
    network: str
    kinds: Sequence[str]
    skipped: dict[str, str]
    faults: list[Interval] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    workloads: list[Workload] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    drawings: list[str] = field(default_factory=list)
    events: int = 0
    leases: int = 0
    locks: int = 0
    revision: int = 0

    @property
    def undecided(self) -> bool:
        """Whether some history was too much for the checker, or nothing was answered at all."""
        nothing = not any(one.answered for one in self.workloads)
        return nothing or any(one.verdict == Verdict.UNKNOWN.value for one in self.workloads)

    @property
    def ok(self) -> bool:
        """The verdict."""
        return not self.violations


async def open_network(
    kind: str, rng: random.Random, say: Callable[[str], None]
) -> tuple[Network, dict[str, NodeLocation]]:
    """Namespaces where they are allowed, unless told otherwise. Raises NamespacesNotAllowed if told so."""
    if kind != "proxy":
        namespaces = NamespaceNetwork()
        try:
            return namespaces, await namespaces.start(NAMES)
        except NamespacesNotAllowed as error:
            if kind == "namespaces":
                raise
            say(f"{error}: loopback and proxies instead")
    proxies = ProxyNetwork(rng)
    return proxies, await proxies.start(NAMES)


class ChaosRun:
    """One run in a directory of its own."""

    def __init__(
        self, directory: Path, *, kinds: Sequence[str], seconds: float, seed: int, network: str,
        say: Callable[[str], None], program: str = PROGRAM,
    ) -> None:  # fmt: skip
        self._directory = directory
        self._rng = random.Random(seed)
        self._network_kind = network
        self._say = say
        self._program = program
        self.result = Result(seed, seconds, "", kinds, {})
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> Result:
        """Do it all; always leaves the machine as it was."""
        network, places = await open_network(self._network_kind, self._rng, self._say)
        self.result.network = network.kind
        cluster = ChaosCluster(self._directory, network, places, self._program)
        try:
            await cluster.start()
            await cluster.ready()
            await self._on(cluster)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await cluster.stop()
        return self.result

    async def _on(self, cluster: ChaosCluster) -> None:
        log = Log(asyncio.get_running_loop().time())
        observer = Observer(cluster, log)
        recorders = {name: ClientHistory(log, name, model) for name, model in RECORDED.items()}
        locks, leases = LockClaims(log), Leases(log)
        watchers = self._watchers(cluster)
        background = [observer.run(), *(watcher.run() for watcher in watchers)]
        self._start(background)
        workers = self._start(self._workers(cluster, recorders, locks, leases))
        await self._faults(cluster, log)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        self._failed(workers, log)
        self.result.looks = list(observer.looks)  # while it judges, this process answers nobody
        self._say("judging")
        await self._judge(cluster, log, watchers, leases)
        self._judge_histories(recorders)
        result = self.result
        result.violations += [*log.violations, *locks.violations(), *observer.violations(), *cluster.troubles]
        result.samples = log.samples
        result.locks, result.leases = len(locks.held), leases.watched
        self._count(log)

    def _workers(
        self, cluster: ChaosCluster, recorders: dict[str, ClientHistory], locks: LockClaims, leases: Leases
    ) -> list[Awaitable[None]]:
        """All clients; about half of them with a session."""
        kinds = {"registers": use_registers, "lists": use_lists, "bank": use_bank}
        workers: list[Awaitable[None]] = []
        for kind, use in kinds.items():
            for number in range(3):
                client = cluster.client(session=number % 2 == 0)
                rng = random.Random(f"{self.result.seed} {kind} {number}")
                workers.append(use(recorders[kind], f"{kind}{number}", client, rng, PAUSE))
        for node in cluster.nodes:
            rng = random.Random(f"{self.result.seed} {node.name}")
            client = self._client_of(node, timeout=3)
            workers.append(read_registers(recorders["registers"], f"on {node.name}", client, rng, PAUSE))
        for number in range(3):
            rng = random.Random(f"{self.result.seed} other {number}")
            client = cluster.client(session=number % 2 == 0)
            workers.append(locks.use(f"locker{number}", client, rng, 0.4))
            use_lease = leases.keep if number == 0 else leases.abandon
            client = cluster.client(session=number % 2 == 1)
            workers.append(use_lease(f"holder{number}", client, rng, 0.3))
        workers.append(leases.abandon_long("long", cluster.client(session=False), rng, 0.3))
        return workers

    def _client_of(self, node: ChaosNode, timeout: float) -> Client:
        """One that only ever asks this node, whichever state it is in."""
        rng = random.Random(node.name)
        return Client(node.client_address, timeout=timeout, session=False, session_ttl=60, rng=rng)

    def _watchers(self, cluster: ChaosCluster) -> list[watches.ChaosWatcher]:
        found = [watches.ChaosWatcher("all", cluster.client(session=False), "", previous=True)]
        for node, prefix in zip(cluster.nodes, ("register/", "bank/", "lock/"), strict=True):
            client = self._client_of(node, timeout=10)
            found.append(
                watches.ChaosWatcher(f"{prefix} on {node.name}", client, prefix, previous=prefix == "bank/")
            )
        return found

    def _start(self, work: Sequence[Awaitable[None]]) -> list[asyncio.Task[None]]:
        started = [asyncio.ensure_future(one) for one in work]
        self._tasks += started
        return started

    def _failed(self, workers: Sequence[asyncio.Task[None]], log: Log) -> None:
        for worker in workers:
            if not worker.cancelled() and (error := worker.exception()) is not None:
                log.violations.append(f"a client failed: {type(error).__name__}: {error}")

    async def _faults(self, cluster: ChaosCluster, log: Log) -> None:
        """One after another, each kind once before any comes again."""
        wanted = list(self.result.kinds)
        for kind in self.result.kinds:
            if FAULTS[kind].small_disk and not cluster.small_disks:
                wanted.remove(kind)
                self.result.skipped[kind] = "needs root, to mount small file systems"
        await asyncio.sleep(CALM_SECONDS)
        deck: list[str] = []
        while log.now < self.result.seconds and wanted:
            if not deck:
                deck = self._rng.sample(wanted, len(wanted))
            await self._fault(deck.pop(), cluster, log)
            await asyncio.sleep(CALM_SECONDS)

    async def _fault(self, kind: str, cluster: ChaosCluster, log: Log) -> None:
        interval = Interval(kind, log.now)
        self.result.faults.append(interval)
        notes: list[str] = []
        try:
            async with asyncio.timeout(FAULT_TIMEOUT):
                await FAULTS[kind].run(Scene(cluster, self._rng, notes.append))
        except (TimeoutError, errors.ConnectKvError) as error:
            cluster.troubles.append(f"{kind}: {type(error).__name__}: {error}")
        interval.ended, interval.note = log.now, "; ".join(notes)
        self._say(f"{log.now:6.1f} s  {kind}: {interval.note}")
        await cluster.recover()
        interval.recovered = log.now

    async def _judge(
        self, cluster: ChaosCluster, log: Log, watchers: Sequence[watches.ChaosWatcher], leases: Leases
    ) -> None:
        """What can only be seen once all is calm."""
        violations = self.result.violations
        try:
            async with cluster.client(session=False, timeout=20) as client:
                violations += await leases.all_end(client)
                self.result.revision = (await client.put(MARKER, "")).header.revision
                history = await watches.whole_history(client, self.result.revision)
                violations += await self._compare_members(cluster, client)
        except (errors.ConnectKvError, TimeoutError) as error:
            violations.append(
                f"the cluster does not serve after the last fault: {type(error).__name__}: {error}"
            )
            return
        self.result.events = len(history)
        violations += watches.check_chain(history)
        await watches.caught_up(watchers, history)
        for watcher in watchers:
            violations += watches.check_watcher(watcher, history)

    async def _compare_members(self, cluster: ChaosCluster, client: Client) -> list[str]:
        """All members hold the same keys and history."""
        found: dict[str, int] = {}
        for node in cluster.nodes:
            for _ in range(50):
                with suppress(errors.Refused):  # it has not applied that revision yet
                    answer = await client.maintenance.hash_kv(
                        node.client_address, revision=self.result.revision
                    )
                    found[node.name] = answer.hash
                    break
                await asyncio.sleep(0.2)
        if len(set(found.values())) > 1 or len(found) < len(cluster.nodes):
            return [f"members differ at revision {self.result.revision}: {found}"]
        return []

    def _judge_histories(self, recorders: dict[str, ClientHistory]) -> None:
        for name, recorder in recorders.items():
            outcomes = recorder.check()
            for outcome in outcomes:
                if outcome.verdict is Verdict.VIOLATION:
                    self._violation(name, recorder, outcome)
            verdicts = {outcome.verdict for outcome in outcomes}
            worst = next((v for v in (Verdict.VIOLATION, Verdict.UNKNOWN) if v in verdicts), Verdict.OK)
            detail = f"{sum(outcome.states_tried for outcome in outcomes):,} states tried"
            self.result.workloads.append(Workload(name, recorder.calls, 0, worst.value, detail))

    def _violation(self, name: str, recorder: ClientHistory, outcome: CheckResult) -> None:
        self.result.violations.append(f"{name}: not linearizable ({outcome.partition!r})")
        self.result.drawings.append(timeline.draw(recorder.model, outcome, title=f"{name}: not linearizable"))

    def _count(self, log: Log) -> None:
        by_name: dict[str, list[bool]] = {}
        for sample in log.samples:
            by_name.setdefault(sample.workload, []).append(sample.ok)
        known = {one.name: one for one in self.result.workloads}
        for name, oks in by_name.items():
            if name not in known:
                bad = any(text.startswith(name.rstrip("s")) for text in self.result.violations)
                detail = (
                    f"{self.result.locks} times held" if name == "lock" else f"{self.result.leases} followed"
                )
                known[name] = Workload(name, 0, 0, "violation" if bad else "ok", detail)
                self.result.workloads.append(known[name])
            known[name].calls, known[name].answered = len(oks), sum(oks)
        bad = any(text.startswith(("watch", "history")) for text in self.result.violations)
        events = self.result.events
        self.result.workloads.append(
            Workload("watches", events, events, "violation" if bad else "ok", "4 watches; calls are events")
        )
