"""What users test their own machines with: fixtures, the command, and that they catch what is broken."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from connect_kv import Replicated
from connect_kv.errors import ConfigError
from connect_kv.framework.versions import methods_of
from connect_kv.testing.plugin import CheckDeterminism, MakeSimCluster
from connect_kv.testing.simulation.invariants import Violation
from connect_kv.testing.simulation.machine import MachineSimulation
from connect_kv.testing.simulation.random_arguments import random_arguments
from connect_kv.testing.simulation.simulation import RunConfig
from connect_kv.testing.simulation.workloads import NotLinearizable
from tests.simulation.machines import (
    CachedCounter,
    Chosen,
    Counter,
    Dated,
    Everything,
    ForgottenCopy,
    InheritedVisits,
    Mute,
    Pages,
    Passing,
    Point,
    ReadOnly,
    Sized,
    StaleVisits,
    Stamped,
    Tags,
    Visits,
    Yearly,
)

ROOT = Path(__file__).parent.parent.parent


def test_a_counter_survives_what_happens_to_its_members(sim_cluster: MakeSimCluster) -> None:
    cluster = sim_cluster({"counter": Counter}, seed=7)

    async def scenario() -> None:
        async with cluster.client() as client:
            counter = client.machine("counter", Counter)
            assert await counter.call(Counter.increment, by=2) == 2
            leader = await cluster.leader()
            cluster.isolate(leader)
            assert await counter.call(Counter.increment, by=3) == 5
            cluster.heal()
            for member in cluster.members:
                await cluster.crash(member, power=True)
            await cluster.advance(3600)
            for member in cluster.members:
                cluster.restart(member)
            leader = await cluster.leader()
            cluster.pause(leader)
            assert await counter.call(Counter.increment) == 6
            cluster.resume(leader)
            assert await counter.call(Counter.value) == 6

    cluster.run(scenario())
    assert cluster.now > 3600


def test_a_deterministic_machine_passes(check_determinism: CheckDeterminism) -> None:
    check_determinism(Counter, calls=50)


@pytest.mark.long
@pytest.mark.parametrize(
    ("machine", "why"),
    [(Tags, "the order of a set"), (Stamped, "the clock"), (Dated, "time zone"), (Yearly, "the clock")],
)
def test_a_machine_that_is_not_is_caught(
    machine: type[Replicated], why: str, check_determinism: CheckDeterminism
) -> None:
    with pytest.raises(Violation, match=why):
        check_determinism(machine, calls=50)


def test_arguments_of_any_type_can_be_given(check_determinism: CheckDeterminism) -> None:
    with pytest.raises(ConfigError, match=r"Raw.* can be made up; say some with @examples"):
        check_determinism(Passing, calls=50)
    days = [datetime(2026, 1, day) for day in range(1, 9)]
    with pytest.raises(Violation, match="the order of a set"):
        check_determinism(Chosen, calls=50, arguments=lambda name, rng: {"among": days})


def test_arguments_are_made_up_from_annotations(check_determinism: CheckDeterminism) -> None:
    check_determinism(Everything, calls=50)
    method = methods_of(Everything)["take"]
    made = [random_arguments(Everything, method, random.Random(seed)) for seed in range(50)]
    assert {type(one["point"]) for one in made} == {Point, type(None)}
    assert {one["mode"] for one in made} == {"fast", "slow"}
    assert all(isinstance(one["pair"][0], int) and isinstance(one["pair"][1], str) for one in made)
    assert len({method.bind((), one) for one in made}) > 40


def test_a_machine_with_a_snapshot_of_its_own_is_its_own_specification() -> None:
    assert MachineSimulation(RunConfig(seed=3, seconds=4), Pages).run().violation is None


def test_a_machine_is_checked_against_its_own_class() -> None:
    config = RunConfig(seed=3, seconds=4)
    assert MachineSimulation(config, Counter).run().violation is None
    violation = MachineSimulation(config, CachedCounter).run().violation
    text = r"value\(\) is a query and changes the object: it changed CachedCounter\.reads"
    assert re.match(text, str(violation))


def test_two_names_of_one_object_are_that_on_every_member(check_determinism: CheckDeterminism) -> None:
    check_determinism(ForgottenCopy, calls=60)
    assert MachineSimulation(RunConfig(seed=3, seconds=4), ForgottenCopy).run().violation is None


@pytest.mark.parametrize("machine", [Visits, InheritedVisits])
def test_a_machine_that_reads_the_time_of_the_log_is_checked_at_that_time(machine: type[Replicated]) -> None:
    report = MachineSimulation(RunConfig(seed=3, seconds=4), machine).run()
    assert report.violation is None
    assert not report.undecided
    assert report.answered > 30


def test_a_stale_answer_of_a_machine_that_reads_the_time_of_the_log_is_found() -> None:
    violation = MachineSimulation(RunConfig(seed=3, seconds=4), StaleVisits).run().violation
    assert isinstance(violation, NotLinearizable)
    assert "value() → " in str(violation)


@pytest.mark.long
def test_the_command_tells_a_broken_counter_from_a_good_one() -> None:
    def simulate(machine: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "connect_kv.cli.main",
            "simulate",
            f"tests.simulation.machines:{machine}",
        ]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [*command, "--seed", "3", "--minutes", "0.2"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    good, broken = simulate("Counter"), simulate("StaleVisits")
    assert good.returncode == 0, good.stdout + good.stderr
    assert "linearizable" in good.stdout
    assert broken.returncode == 1
    assert "SEED=" in broken.stdout


def test_the_line_of_a_failure_repeats_it() -> None:
    first = MachineSimulation(RunConfig(seed=3, seconds=4), CachedCounter).run()
    again = MachineSimulation(RunConfig(seed=3, seconds=4, step_limit=first.steps), CachedCounter).run()
    assert (again.steps, again.digest, str(again.violation)) == (
        first.steps,
        first.digest,
        str(first.violation),
    )


def test_an_unknown_member_is_named(sim_cluster: MakeSimCluster) -> None:
    cluster = sim_cluster({"counter": Counter})

    async def scenario() -> None:
        cluster.partition(["n9"], ["n1"])

    with pytest.raises(ValueError, match=r"there is no member 'n9'; there are n1, n2, n3"):
        cluster.run(scenario())


@pytest.mark.parametrize(
    ("machine", "says"),
    [
        (Mute, "Mute has no @command and no @query"),
        (Sized, "Sized cannot be made without arguments: missing a required argument: 'size'"),
    ],
)
def test_what_is_no_machine_is_refused(
    machine: type[Replicated], says: str, check_determinism: CheckDeterminism
) -> None:
    with pytest.raises(ConfigError, match=says):
        MachineSimulation(RunConfig(seed=1), machine)
    with pytest.raises(ConfigError, match=says):
        check_determinism(machine)


def test_what_other_processes_cannot_run_is_refused(check_determinism: CheckDeterminism) -> None:
    class Hidden(Counter):
        pass

    with pytest.raises(ConfigError, match="Hidden is defined inside a function"):
        check_determinism(Hidden)
    with pytest.raises(ConfigError, match="ReadOnly has no @command"):
        check_determinism(ReadOnly)
