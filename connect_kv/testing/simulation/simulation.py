"""One run: a world, its workloads, its faults, and the verdict."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from connect_kv import errors
from connect_kv.testing.checker.linearizability import Verdict
from connect_kv.testing.simulation import faults as fault_kinds
from connect_kv.testing.simulation.bookmarks import BookmarkWatcher
from connect_kv.testing.simulation.faults import Nemesis
from connect_kv.testing.simulation.invariants import Violation
from connect_kv.testing.simulation.locking import LockHistory, abandon_leases, compact_history
from connect_kv.testing.simulation.process import StepLimit
from connect_kv.testing.simulation.rights import USERS, Narrowed, change_rights, use_rights
from connect_kv.testing.simulation.watching import WatchRecorder, watchers
from connect_kv.testing.simulation.workloads import (
    CounterMachine,
    SequentialClient,
    WorkloadHistory,
    end_alarms,
    read_registers,
    recorders,
    use_counter,
    use_registers,
    use_transactions,
)
from connect_kv.testing.simulation.world import World, WorldConfig

SETTLE_SECONDS = 40.0


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What to simulate. The same is the same run."""

    seed: int
    seconds: float = 10.0
    """Virtual seconds of work and faults; coming to rest takes a few more."""
    members: int = 3
    """The cluster begins with so many."""
    faults: Sequence[str] = fault_kinds.ALL
    step_limit: int | None = None
    pause: float = 0.1
    """Seconds a client thinks between two calls, on average."""
    mean: float | None = None
    """Seconds between two faults, on average; None: the seed decides."""
    readers: int = 0
    """Further clients that only read."""
    rights: bool = False
    """Whether authentication is switched on and off, and users work whose rights change."""
    overdue: float | None = None
    """No lease may outlive its time by more than so many seconds. None: faults may keep it alive."""


@dataclass(kw_only=True)
class SimulationReport:
    """What came of a simulated run."""

    seed: int
    steps: int = 0
    digest: str = ""
    virtual_seconds: float = 0.0
    real_seconds: float = 0.0
    answered: int = 0
    unknown: int = 0
    undecided: list[str] = field(default_factory=list)
    """Histories too tangled to decide."""
    judged: tuple[int, int] = (0, 0)
    """Commands of users that were allowed, and refused, while authentication was on."""
    commits: int = 0
    terms: int = 0
    events: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    story: list[tuple[float, str]] = field(default_factory=list)
    """When each fault began."""
    notes: list[str] = field(default_factory=list)
    """What the author of a machine should know, though it is not wrong."""
    violation: Violation | None = None
    drawing: str = ""
    """An SVG of the history, where the runner drew one."""

    @property
    def replay(self) -> str:
        """The line that repeats a failure."""
        return f"SEED={self.seed} STEPS={self.steps}"


class Simulation:
    """Everything of one run. A subclass may change what is done in it."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        skew = 0.3 if config.seed % 3 == 0 else 0.0
        self.world = World(self.world_config(skew))
        self.recorders: dict[str, WorkloadHistory] = recorders(self.world)
        self.watchers: list[WatchRecorder] = [
            *watchers(self.world),
            BookmarkWatcher(self.world, "w-bookmarks", b"", prev_kv=True),
        ]
        self.locks = LockHistory(self.world)
        self.unheard = False
        """Nobody lived to tell what an entry did: what follows from it cannot be checked."""
        mean = config.mean or self.world.chance("mean").choice((0.15, 0.4, 1.0))
        self.nemesis = Nemesis(self.world, config.faults, mean=mean)

    def world_config(self, skew: float) -> WorldConfig:
        """The world of this run."""
        config = self.config
        return WorldConfig(
            seed=config.seed,
            machines={"counter": CounterMachine},
            members=config.members,
            clock_skew=skew,
            step_limit=config.step_limit,
        )

    def run(self) -> SimulationReport:
        """Run it; never raises for what it finds."""
        report = SimulationReport(seed=self.config.seed)
        began = time.perf_counter()
        try:
            self.world.run(self.main())
            self.check_histories(report)
        except Violation as violation:
            report.violation = violation
        except (errors.ConnectKvError, errors.RefusedToStart) as error:
            report.violation = Violation(f"a client was told {type(error).__name__}: {error}")
        except StepLimit:
            report.undecided.append("stopped after the given steps")
        world = self.world
        report.steps, report.digest = world.steps_at_end, world.digest
        report.virtual_seconds, report.real_seconds = world.now, time.perf_counter() - began
        report.answered = sum(recorder.answered for recorder in self.recorders.values())
        report.unknown = sum(recorder.unknown for recorder in self.recorders.values())
        report.commits, report.terms = world.ledger.commit_index, world.ledger.terms
        report.events = sum(len(part.events) for watch in self.watchers for part in watch.segments)
        report.judged = world.reference.judged.allowed, world.reference.judged.refused
        report.faults, report.story = self.nemesis.count, self.nemesis.log
        return report

    async def main(self) -> None:
        """Work under faults, repair, come to rest, look at everything."""
        world = self.world
        world.start()
        working = [world.loop.create_task(work) for work in self.work()]
        watching = [world.loop.create_task(watcher.run()) for watcher in self.watchers]
        for task in watching:
            task.add_done_callback(self._ended)
        await world.agreed()
        plague = world.loop.create_task(self.nemesis.run())
        done, _ = await asyncio.wait(
            [plague, *working], timeout=self.config.seconds, return_when=asyncio.FIRST_EXCEPTION
        )
        for task in done:
            task.result()
        await _cancel([plague])
        await self.nemesis.end()
        await world.agreed(SETTLE_SECONDS)
        await self.makes_progress()
        await self.nemesis.dismiss()
        await _cancel(working)
        await self.comes_to_rest()
        await _cancel(watching)
        await world.stop()

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.world.fail(Violation(f"a watch ended with {type(error).__name__}: {error}"))

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """The clients."""
        world, pause = self.world, self.config.pause
        registers, transactions, counter = (
            self.recorders["registers"],
            self.recorders["transactions"],
            self.recorders["counter"],
        )
        readers = [
            read_registers(
                registers, SequentialClient(registers, f"r{number}", session=False, timeout=2), 2, pause
            )
            for number in range(self.config.readers)
        ]
        narrowed = Narrowed()
        users = (
            [
                change_rights(world, "a1", pause, narrowed),
                *(use_rights(world, user, pause, narrowed) for user in USERS),
            ]
            if self.config.rights
            else []
        )
        return [
            *readers,
            *users,
            use_registers(registers, SequentialClient(registers, "c1", session=True, timeout=2), 2, pause),
            use_registers(registers, SequentialClient(registers, "c2", session=False, timeout=2), 2, pause),
            use_transactions(
                transactions, SequentialClient(transactions, "c3", session=True, timeout=2), pause
            ),
            use_transactions(
                transactions, SequentialClient(transactions, "c4", session=False, timeout=2), pause
            ),
            use_counter(counter, SequentialClient(counter, "c5", session=True, timeout=4), pause),
            use_counter(counter, SequentialClient(counter, "c6", session=True, timeout=1), pause),
            self.locks.use("l1", 3 * pause),
            self.locks.use("l2", 3 * pause),
            abandon_leases(world, "l3", 3 * pause),
            compact_history(world, "l4", 20 * pause),
            end_alarms(world, "l5", 5 * pause),
        ]

    async def makes_progress(self) -> None:
        """After the repair every workload gets answers again."""
        before = {name: recorder.answered for name, recorder in self.recorders.items()}
        await self.world.until(
            lambda: all(r.answered > before[name] for name, r in self.recorders.items()),
            SETTLE_SECONDS,
            "answers after everything was repaired",
        )

    async def comes_to_rest(self) -> None:
        """All members apply all there is, hold the same, and every watch has seen it."""
        world = self.world
        async with world.client("last", session=False, timeout=10) as client:
            for key in ("r0", "r1"):
                number = self.recorders["registers"].history.call("last", ("read", key), world.now)
                held = await client.get(key)
                answer = None if held is None else held.value.decode()
                self.recorders["registers"].history.returns(number, answer, world.now)
        await world.until(
            self.all_applied,
            SETTLE_SECONDS,
            "all members to apply everything",
        )
        if world.ledger.applied_index > world.ledger.commit_index:
            self.unheard = True
            return
        for host in world.hosts:
            if host.wanted:
                await self._same_keys(host.client_address)
        with suppress(Violation):  # the check below says what is missing
            await world.until(
                lambda: not any(watcher.behind(world.reference) for watcher in self.watchers),
                SETTLE_SECONDS,
                "watches",
            )
        for watcher in self.watchers:
            watcher.check(world.reference, finished=True)
        self.locks.check()
        if self.config.overdue is not None and world.reference.overdue() > self.config.overdue:
            raise Violation(f"a lease outlived its time by {world.reference.overdue():.3f} s")

    def all_applied(self) -> bool:
        """Whether every member has applied all there is. Who is just removed, or removed itself, is none."""
        last = self.world.ledger.applied_index
        return all(
            host.up and host.running.node.last_applied == last for host in self.world.hosts if host.wanted
        )

    async def _same_keys(self, address: str) -> None:
        world = self.world
        end = world.now + SETTLE_SECONDS
        while True:
            if world.now >= end:
                raise Violation(f"{address} does not answer with the state of all, though it is up")
            async with world.client_of("compare", address) as client:
                revision = world.reference.revision
                try:
                    answer = await client.range(b"", prefix=True, serializable=True)
                except errors.Unavailable:
                    continue
            if revision == world.reference.revision == answer.header.revision:
                break
            await asyncio.sleep(0.05)
        found = {
            kv.key: (kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease) for kv in answer.kvs
        }
        if found != world.reference.keys:
            raise Violation(f"{address} holds {found}, not {world.reference.keys}")

    def check_histories(self, report: SimulationReport) -> None:
        """Raises Violation."""
        if self.unheard:
            report.undecided.append("an entry of unknown effect")
        for name, recorder in self.recorders.items():
            if recorder.check().verdict is Verdict.UNKNOWN:
                report.undecided.append(name)


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def simulate(config: RunConfig, make: Callable[[RunConfig], Simulation] = Simulation) -> SimulationReport:
    """Run a whole cluster under faults, all of it decided by the seed."""
    return make(config).run()
